"""What is installed is whole: its commands, studies and pages work without a checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from convae.data import cache_folder

ROOT = Path(__file__).parents[1]
# Sources that a wheel has beside Python files.
DATA = ["analysis/page/page.html.j2", "analysis/page/page.css", "analysis/page/page.js"]
DATA += ["study/study.schema.json"]
DATA += [f"study/{path.parent.name}/{path.name}" for path in (ROOT / "study").glob("*/*.toml")]
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
# Of a person: none of it changes what these programs do.
THEIRS = {
    "KERAS_BACKEND": "jax",
    "MPLBACKEND": "Qt4Agg",
    "HOME": "/dev/null",  # nothing can be written there
    "XDG_CACHE_HOME": str(cache_folder().parent),
    "RAY_ADDRESS": "ray://nowhere:10001",
    "TUNE_RESULT_DIR": "/nowhere",
    "RAY_AIR_LOCAL_CACHE_DIR": "/nowhere",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """What git knows, so that nothing else that lies around gets in."""
    command = ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.check_output(command, text=True)
    source = tmp_path_factory.mktemp("source")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/", "docs/")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    return source


def build(source, how, folder):
    """The wheel that a hook of setuptools builds."""
    code = f"import sys; from setuptools.build_meta import {how} as b; b(sys.argv[1])"
    command = [sys.executable, "-W", "ignore", "-c", code, folder]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return build(source, "build_wheel", tmp_path_factory.mktemp("wheel"))


def test_an_editable_installation_is_found_before_folders_of_the_same_names(source, tmp_path):
    """As a folder on Python's path: a package there goes before a mere folder anywhere."""
    files = zipfile.ZipFile(build(source, "build_editable", tmp_path))
    (path,) = [name for name in files.namelist() if name.endswith(".pth")]
    assert files.read(path).decode().split() == [str(source)]


def test_the_wheel_has_all_sources_and_no_others(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(DATA) <= names
    sources = {
        str(path.relative_to(ROOT))
        for package in ("analysis", "convae", "study")
        for path in (ROOT / package).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == sources
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs commands from another folder, in an environment that has the wheel alone.

    It borrows the packages that the wheel needs, so that nothing is fetched.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    uv = [shutil.which("uv"), "pip", "install", "--python", python]
    pip = [sys.executable, "-m", "pip", "--python", python, "install"]
    install = uv if uv[0] else pip
    subprocess.run(
        [*install, "--no-deps", "--no-index", wheel], check=True, capture_output=True, cwd=folder
    )
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = folder / "elsewhere"
    for name in ("analysis", "convae", "study"):  # a person's folders, which hide none of ours
        (elsewhere / name).mkdir(parents=True)

    def run(command, *arguments):
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | THEIRS
        done = subprocess.run(
            [python.with_name(command), *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert run("python", "-c", "import study; print(study.__file__)").startswith(str(site))
    return elsewhere, run


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_there_and_calls_itself_by_its_name(installed, command):
    _, run = installed
    assert run(command, "--help").startswith(f"usage: {command} ")


def test_a_study_printed_by_the_command_is_the_modules(installed):
    _, run = installed
    printed = run("convae-study", "--preset=quick", "--print-study")
    assert printed == run("python", "-m", "study.run", "--preset=quick", "--print-study")


@pytest.mark.cluster
def test_a_study_and_its_report_run_where_only_the_wheel_is_installed(installed):
    elsewhere, run = installed
    (elsewhere / "mine.toml").write_text(run("convae-study", "--preset=quick", "--print-study"))
    options = ["--gpus=0", "--models", "dense", "--hidden", "64", "--epochs=1", "--trials=1"]
    run("convae-study", "mine.toml", *options, "--name", "mine")
    page = elsewhere / "results" / "mine" / "report" / "index.html"
    before = page.read_bytes()
    run("convae-report", "results/mine")
    assert page.read_bytes() == before
    run("convae-compare", "results/mine", "results/mine")
    assert "epoch 1/1" in run("convae-train", "--model=dense", "--epochs=1")
