"""Imports point one way, and nobody reaches into Ray or Optuna. New processes tell, and sources."""

import ast
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest

HEAVY = {"tensorflow", "keras", "ray", "optuna"}
ROOT = Path(__file__).parent.parent
# What of the project the analysis stands on, besides itself.
GROUND = ("study", "study.folder")
GROUND_OF_CONVAE = {"convae", "convae.config", "convae.errors", "convae.hardware"}
OTHERS = ("ray", "optuna")
PATCHES = "tune/ray_patches.py"  # the one place where it is done


def modules(package):
    """The names of a package's modules."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return [name.removesuffix(".__init__") for name in names]


def loaded_by(*names):
    """Names of the modules that importing these loads."""
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    command = [sys.executable, "-W", "error", "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("names", "forbidden"),
    [
        (modules("analysis"), HEAVY),
        (modules("study/folder"), HEAVY | {"pandas", "matplotlib", "analysis"}),
        (modules("study/plan"), (HEAVY - {"optuna"}) | {"matplotlib", "analysis"}),
        (modules("study"), {"tensorflow", "keras", "matplotlib", "analysis"}),
        (["study.folder.schema"], HEAVY | {"numpy", "pandas", "pyarrow"}),
        (["study.tune.trainable"], {"tensorflow", "keras"}),
        (["study.plan.lanes"], HEAVY),
        (["study.run"], HEAVY | {"pandas", "pyarrow", "matplotlib"}),
        (["convae.config"], HEAVY | {"numpy", "study"}),
        (["convae.data"], HEAVY | {"study"}),
        (["convae.train"], HEAVY | {"study"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_import_loads_none_of(names, forbidden):
    assert loaded_by(*names) & forbidden == set()


def test_the_analysis_stands_on_the_run_folder_alone():
    project = {n for n in loaded_by(*modules("analysis")) if n.startswith(("study", "convae"))}
    assert "study.folder.tables" in project
    rest = {name for name in project if not name.startswith("study.folder.")}
    assert rest - set(GROUND) <= GROUND_OF_CONVAE


def test_the_trainer_and_the_engine_know_neither_ray_nor_the_study():
    loaded = loaded_by("convae.engine")
    assert "convae.training" in loaded
    assert "tensorflow" in loaded
    assert loaded & {"ray", "optuna", "study", "analysis"} == set()


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def custom_names(*codes):
    """The private names that these modules give to things of their own."""
    found = set()
    for node in (node for code in codes for node in ast.walk(ast.parse(code))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(getattr(node, "ctx", None), ast.Store):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
                found.add(node.attr)
    return set(filter(is_private, found))


def theirs(tree):
    """What a module imports of Ray and Optuna: dotted paths, by the name that each has there."""
    found = {}
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            module = getattr(node, "module", None)
            path = f"{module}.{alias.name}" if module else alias.name
            if path.split(".")[0] in OTHERS:
                found[alias.asname or path.split(".")[-1 if module else 0]] = path
    return found


def reaches_into(code, custom):
    """The private names that a module uses, or overrides, that are not the project's own."""
    tree = ast.parse(code)
    imported = theirs(tree)
    found = [path for path in imported.values() if any(map(is_private, path.split(".")))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root = node.value
            while isinstance(root, ast.Attribute | ast.Call):
                root = root.func if isinstance(root, ast.Call) else root.value
            if node.attr not in custom or getattr(root, "id", None) in imported:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.ClassDef):
            for base in {ast.unparse(base) for base in node.bases} & set(imported):
                base_class = resolve_name(imported[base])
                found += [n for n in custom_names(ast.unparse(node)) if hasattr(base_class, n)]
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import ray._private.worker",
        "from ray._private import worker",
        "from ray import _private",
        "from optuna.samplers._tpe import sampler",
        "import ray\nray._private.worker",
        "import ray as r\nr.get(1)._mine",
        "import optuna\noptuna.samplers._tpe",
        "def f(trial): trial._theirs",
        "class A:\n def f(self): self._theirs",
        "from ray.tune.schedulers import MedianStoppingRule as M\n"
        "class A(M):\n def _on_insufficient_samples(self): pass",
    ],
)
def test_code_that_reaches_into_others_is_found(code):
    assert reaches_into(code, {"_mine", "_on_insufficient_samples"})


def test_code_with_private_names_of_its_own_reaches_into_nobody():
    code = (
        "import ray\nclass A:\n def f(self, other): self._mine = other._mine; ray.get(self.__x__)"
    )
    assert custom_names(code) == {"_mine"}
    assert reaches_into(code, {"_mine"}) == []


def test_nothing_but_the_patches_reaches_into_ray_or_optuna():
    folder = ROOT / "study"
    codes = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}
    patches = codes.pop(PATCHES)
    custom = custom_names(*codes.values())
    assert {name: found for name in codes if (found := reaches_into(codes[name], custom))} == {}
    assert reaches_into(patches, custom)
