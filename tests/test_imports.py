"""Imports point one way, and nobody reaches into Ray or Optuna. New processes tell, and sources."""

import ast
import inspect
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest
from ray.tune.schedulers import MedianStoppingRule

HEAVY = {"tensorflow", "keras", "ray", "optuna"}
ROOT = Path(__file__).parent.parent
# What of the project the analysis stands on, besides itself.
GROUND = ("study", "study.folder")
GROUND_OF_CONVAE = {"convae", "convae.config", "convae.errors", "convae.hardware"}
OTHERS = ("ray", "optuna")


def modules(package):
    """The names of a package's modules."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return [name.removesuffix(".__init__") for name in names]


@cache
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


def modules_of_others(code):
    """The private modules and names that a module imports of Ray and Optuna."""
    return re.findall(r"^\s*(?:from|import) ((?:ray|optuna)\b.*[. ]_\w.*)", code, re.MULTILINE)


def private_names(a_class):
    """Those of a class's methods, and what these call or set of their object."""
    nodes = list(ast.walk(ast.parse(dedent(inspect.getsource(a_class)))))
    found = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    found |= {node.attr for node in attributes if ast.unparse(node.value) == "self"}
    return {name for name in found if name.startswith("_") and not name.endswith("__")}


def private_names_of_others(a_class):
    """Private names of a class that belong to a base class of Ray's or Optuna's."""
    bases = [base for base in a_class.__mro__ if base.__module__.split(".")[0] in OTHERS]
    return private_names(a_class) & set().union(*map(private_names, bases))


class Calls(MedianStoppingRule):
    def f(self):
        return self._best_result


class Overrides(MedianStoppingRule):
    def _on_insufficient_samples(self, *_):
        pass


def test_code_that_reaches_into_others_is_found():
    """Ruff finds the private names of any other object."""
    assert len(modules_of_others("import ray._private.worker\nfrom ray import _private")) == 2
    assert modules_of_others("from optuna.samplers._tpe import sampler")
    assert not modules_of_others("from ray.tune import Tuner\nray.get(self._mine)")
    assert private_names_of_others(Calls) == {"_best_result"}
    assert private_names_of_others(Overrides) == {"_on_insufficient_samples"}


@pytest.mark.parametrize("name", modules("study"))
def test_nothing_reaches_into_ray_or_optuna(name):
    module = import_module(name)
    assert modules_of_others(inspect.getsource(module)) == []
    for each in vars(module).values():
        if inspect.isclass(each) and each.__module__ == name:
            assert private_names_of_others(each) == set(), each
