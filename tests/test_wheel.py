"""What is installed is whole: studies, page and report work without a checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Sources that a wheel has beside Python files.
DATA = ["analysis/page/page.html.j2", "analysis/page/page.css", "analysis/page/page.js"]
DATA += [f"study/presets/{path.name}" for path in (ROOT / "study" / "presets").glob("*.toml")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of what git knows, so that nothing else that lies around gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z"],
        capture_output=True,
        check=True,
    )
    source = folder / "source"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/", "docs/")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    code = "import sys; from setuptools.build_meta import build_wheel as b; b(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, folder],
        cwd=source,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_has_all_sources_and_no_others(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(DATA) <= names
    sources = {
        str(path.relative_to(ROOT))
        for package in ("analysis", "convae", "study")
        for path in (ROOT / package).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == sources


@pytest.mark.cluster
def test_a_study_and_its_report_run_where_only_the_wheel_is_installed(wheel, tmp_path):
    """In an environment of its own, which borrows the packages that it needs."""
    venv.create(tmp_path / "venv", with_pip=False)
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def python(*arguments):
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [tmp_path / "venv" / "bin" / "python", *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert python("-c", "import study; print(study.__file__)").startswith(str(site))
    (elsewhere / "mine.toml").write_text(
        python("-m", "study.run", "--preset=quick", "--print-study")
    )
    options = [
        "--gpus",
        "0",
        "--models",
        "dense",
        "--hidden",
        "64",
        "--epochs",
        "1",
        "--trials",
        "1",
    ]
    python("-m", "study.run", "mine.toml", *options, "--name", "mine")
    page = elsewhere / "results" / "mine" / "report" / "index.html"
    before = page.read_bytes()
    python("-m", "analysis.report", "results/mine")
    assert page.read_bytes() == before
