"""The command line as people use it: what it refuses, and one real study with real Ray workers."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import closed_form
import numpy as np
import pandas as pd
import pytest
from closed_form import CLOSED_FORM, FileInTheWay
from ray import cloudpickle
from running import wait_until, write_images
from synthetic_runs import MANIFEST

import analysis.report
import convae.data
import study.run
from study.folder import schema
from study.folder.storage import RunFolder, RunFolderError
from study.plan.spec import SpecError, StudySpec
from study.plan.study_file import PRESETS
from study.run import build_parser, check_packages, main, resume_command, run
from study.tune.driver import Outcome
from study.tune.trainable import WorkerSettings


@pytest.fixture
def storage(tmp_path):
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--gpus", "-1"], "--gpus"),
        (["--lanes", "0"], "--lanes"),
        (["--cpus-per-trial", "0"], "--cpus-per-trial"),
        (["--max-concurrent", "0"], "--max-concurrent"),
        (["--trials", "3"], "--trials"),  # test_space has the others of the spec
        (["--name", "a/b"], "--name"),
        (["--name="], "--name"),
        (["--data", "no/such/mnist.npz"], "no/such/mnist.npz"),
        (["--dry-run", "--resume", "--name", "x"], "--dry-run"),
        (["--dry-run", "--resume-or-start", "--name", "x"], "--dry-run"),
        (["--resume-or-start"], "--name"),
        (["--resume"], "--name"),
        (["--resume", "--name", "none"], "--resume"),
    ],
)
def test_bad_arguments_end_at_once(arguments, named, storage, capsys):
    assert main(["--storage", str(storage), *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0]
    assert not any(storage.glob("*"))


def test_a_name_that_exists_and_storage_that_is_a_file_are_refused(tmp_path, capsys):
    assert main(["--storage", str(tmp_path.parent), "--name", tmp_path.name]) == 2
    assert f"{tmp_path.name} exists already" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["--storage", str(tmp_path / "file")]) == 2
    assert "--storage" in capsys.readouterr().err


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--gpus", "64"], ["--gpus 64", "--gpus 0"]),
        (["--gpus", "0", "--cpus-per-trial", "4096"], ["--cpus-per-trial 4096"]),
    ],
)
def test_more_than_there_is_is_an_error_before_any_trial(options, told, storage, capfd):
    assert main([*options, "--storage", str(storage)]) == 2
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert all(words in line for words in told)
    assert not any(storage.glob("*"))


@pytest.mark.usefixtures("session")
def test_a_dry_run_tells_the_trials_and_writes_nothing(storage, capfd):
    options = ["--gpus", "0", "--dry-run", "--models", "dense", "--hidden", "64", "--epochs", "7"]
    assert main([*options, "--trials", "4", "--storage", str(storage)]) == 0
    told = capfd.readouterr()
    assert told.err == ""
    lines = [line.split() for line in told.out.splitlines()]
    assert {line[2]: line[0] for line in lines if line[1] == "×"} == {
        "reference": "1",
        "search": "4",
        "finalist": "12",  # three and the reference, with three seeds
        "winner": "1",
    }
    assert any("estimate: " in line for line in told.out.splitlines())
    assert not storage.exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A real study: one reference trial, two search trials and their winner, an epoch each."""
    storage = tmp_path_factory.mktemp("results")
    options = "--gpus 0 --models dense --hidden 64 --epochs 2 --trials 2 --scheduler none"
    options += f" --finalists 0 --storage {storage} --name small"
    command = [sys.executable, "-m", "study.run", *options.split()]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr + run.stdout
    return run, storage / "small"


def test_optuna_dashboard_opens_the_storage_as_it_is(finished):
    _, folder = finished
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["optuna-dashboard", f"sqlite:///{folder / 'optuna.db'}", "--port", str(port)]
    executable = Path(sys.executable).with_name(command[0])
    with subprocess.Popen([executable, *command[1:]], stderr=subprocess.DEVNULL) as server:
        try:
            studies = wait_for_json(f"http://127.0.0.1:{port}/api/studies")
            assert [study["study_name"] for study in studies["study_summaries"]] == ["dense"]
            number = studies["study_summaries"][0]["study_id"]
            study = wait_for_json(f"http://127.0.0.1:{port}/api/studies/{number}")
        finally:
            server.terminate()
    trials = pd.read_parquet(folder / schema.TRIALS_FILE)
    values = trials.val_mse[trials.group == schema.SEARCH]
    assert [trial["state"] for trial in study["trials"]] == ["Complete"] * 2
    assert [trial["values"] for trial in study["trials"]] == [[value] for value in values]
    assert [len(trial["intermediate_values"]) for trial in study["trials"]] == [2, 2]


def wait_for_json(url):
    def answer():
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)

    return wait_until(answer)


def test_study_says_what_it_does(finished):
    run, folder = finished
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert sum(" completed  " in line for line in lines) == 4
    assert any(str(folder / "report") in line for line in lines)
    # A busy machine adds that it waits, every half a minute, and how it stands, every minute.
    by_time = re.compile(r"\[ *\d+ s\] (no trial runs: |\d+ (completed|running|to come)\b)")
    assert len([line for line in lines if not by_time.match(line)]) < 15


def test_study_leaves_the_run_folder_of_the_contract(finished):
    _, folder = finished
    for name in ("study.json", "trials.csv", "epochs.csv", "optuna.db", "report/index.html"):
        assert (folder / name).stat().st_size > 0
    models = {path.name for path in (folder / "models").iterdir()}
    assert models == {"reference-dense-64-s0.keras", "winner-dense-s0.keras"}
    manifest = json.loads((folder / "study.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["spec"]["epochs"] == 2
    assert manifest["data"]["sha256"]["train_images"]


def test_tables_hold_every_trial_and_epoch(finished):
    _, folder = finished
    trials = pd.read_parquet(folder / "trials.parquet")
    epochs = pd.read_parquet(folder / "epochs.parquet")
    assert list(trials.columns) == list(schema.TRIAL_COLUMNS)
    assert sorted(trials.group) == ["reference", "search", "search", "winner"]
    assert set(trials.state) == {"completed"}
    assert (trials.n_retries == 0).all()
    assert (epochs.groupby("trial_id").epoch.apply(tuple) == (1, 2)).all()
    searched = trials[trials.group == "search"]
    assert searched.test_mse.isna().all()
    assert searched.val_mse.notna().all()
    fixed = trials[trials.group != "search"]
    assert fixed.val_mse.isna().all()
    assert fixed.test_mse.notna().all()
    sums = epochs.groupby("trial_id").train_seconds.sum()
    for trial in trials.itertuples():
        assert trial.train_seconds == pytest.approx(sums[trial.trial_id])
        assert trial.wall_seconds > trial.train_seconds


def test_kept_model_reconstructs_what_the_table_says(finished):
    """The .keras file, opened by plain Keras, gives the recorded test MSE."""
    import keras

    from convae.data import load_images

    _, folder = finished
    model = keras.models.load_model(folder / "models" / "reference-dense-64-s0.keras")
    images = (load_images().test_images[..., None] / 255).astype(np.float32)
    output = model.predict(images, batch_size=1000, verbose=0)
    trials = pd.read_parquet(folder / "trials.parquet").set_index("trial_id")
    expected = trials.loc["reference-dense-64-s0", "test_mse"]
    assert np.mean((output - images) ** 2) == pytest.approx(expected, rel=1e-5)
    shown = pd.read_parquet(folder / "reconstructions" / "reference-dense-64-s0.parquet")
    errors = ((output - images) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(shown.mse, errors[shown.test_index], rtol=1e-4)
    assert set(shown.choice) == set(schema.CHOICES)
    assert shown[shown.choice == "worst"].mse.min() >= shown[shown.choice == "median"].mse.max()


@pytest.fixture
def formula(storage):
    """Commands of this process that train by a formula."""
    cloudpickle.register_pickle_by_value(closed_form)
    return SimpleNamespace(
        folder=storage / "study",
        there=["--storage", str(storage), "--name", "study", "--gpus", "0", "--no-report"],
        options=["--models", "dense", "--hidden", "64", "--epochs", "2", "--trials", "0"],
    )


@pytest.mark.cluster
@pytest.mark.usefixtures("session")
def test_a_study_goes_on_with_the_images_it_began_with(tmp_path, formula, capsys, monkeypatch):
    run_main = partial(main, workers=CLOSED_FORM)
    path, folder = tmp_path / "clothes.npz", formula.folder
    resume = [*formula.there, "--resume"]
    write_images(path)
    assert run_main([*formula.there, *formula.options, "--data", os.path.relpath(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "images: clothes from " in lines[0]
    assert lines[0].endswith("(60 + 12, not MNIST)")
    manifest = json.loads((folder / "study.json").read_text())
    described = manifest["data"]
    assert (described["name"], described["n_train"], described["n_test"]) == ("clothes", 60, 12)
    assert set(described["sha256"]) == {"train_images", "test_images"}
    assert Path(described["path"]).expanduser().samefile(path)

    # Without --data, from anywhere: the same file.
    monkeypatch.chdir(tmp_path)
    assert run_main([*resume, "--seeds", "2"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines()[0].endswith("(60 + 12, not MNIST)")
    manifest = json.loads((folder / "study.json").read_text())
    assert len(manifest["sessions"]) == 2

    # Other images are refused, wherever they are, and nothing is written.
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = tmp_path / "other.npz"
    write_images(other, seed=1)
    assert run_main([*resume, "--data", str(other)]) == 2
    write_images(path, seed=1)
    assert run_main(resume) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert f"images at {other} are not those that the study began with" in first
    assert f"images at {path} are not those that the study began with" in second
    path.unlink()
    assert run_main(resume) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert f"{path} does not exist: give --data" in captured.err
    assert captured.out == ""
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def begun(storage):
    """Options to go on with a study of which there is the manifest."""

    def make(**spec):
        folder = storage / "begun"
        folder.mkdir(parents=True)
        values = {**StudySpec(preset="test").to_dict(), **spec}
        (folder / "study.json").write_text(json.dumps({**MANIFEST, "spec": values}))
        return ["--storage", str(storage), "--name", "begun", "--resume"]

    return make


def test_a_study_of_another_version_is_refused(begun, capsys):
    assert main(begun(flavour="new")) == 2
    assert "holds no study that this version can go on with" in capsys.readouterr().err


@pytest.mark.parametrize("there", [True, False])
def test_a_fault_of_ours_is_a_sentence_and_its_traceback_is_in_a_log(
    there, begun, storage, capsys, monkeypatch
):
    def fault(_):
        raise ZeroDivisionError("by us")

    monkeypatch.setattr(convae.data, "load_images", fault)
    arguments = begun() if there else ["--storage", str(storage)]
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "stopped over a fault of its own (ZeroDivisionError: by us); /" in line
    log = Path(line.partition("by us); ")[2].removesuffix(" has the traceback."))
    assert "in fault\n" in log.read_text()
    assert (log == storage / "begun" / schema.LOG_FILE) is there
    if not there:
        log.unlink()


@pytest.mark.parametrize("called", ["run.py", "convae-study"])
def test_an_interrupt_while_the_report_is_written_says_how_to_write_it(
    called, tmp_path, capsys, monkeypatch
):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(analysis.report, "write_report", interrupt)
    monkeypatch.setattr(sys, "argv", [str(Path(sys.executable).with_name(called))])
    folder = RunFolder(tmp_path / "a b")
    ended = SimpleNamespace(no_report=False), PRESETS["standard"], folder, Outcome("finished", 0)
    assert study.run._tell_end(*ended) == 130
    before, said, command = capsys.readouterr().out.splitlines()[-1].partition("report: ")
    assert (before, said) == ("interrupted; for the ", "report: ")
    program, *words = shlex.split(command)
    assert words[-1] == str(folder)
    if called == "convae-study":
        assert (Path(program).name, len(words)) == ("convae-report", 1)
    else:
        assert words[:-1] == ["-m", "analysis.report"]


def test_the_printed_command_goes_on_under_the_same_conditions():
    """What the study is, its folder knows."""
    given = "--preset quick --epochs 3 --gpus 0 --lanes 4 --cpus-per-trial 2"
    given += " --max-concurrent 3 --address auto --data 'my images' --quiet --no-report"
    given += " --storage '~/a b' --name a --mlflow http://me:secret@host"
    command = resume_command(build_parser().parse_args(shlex.split(given)))
    assert shlex.split(command)[1:4] == ["-m", "study.run", "--resume"]
    assert "secret" not in command
    again = build_parser().parse_args(shlex.split(command)[3:])
    for name, value in vars(build_parser().parse_args(shlex.split(given))).items():
        if name in ("preset", "epochs"):
            assert getattr(again, name) is None
        elif name == "mlflow":
            assert again.mlflow == "http://***@host"
        elif name != "resume":
            assert getattr(again, name) == value, name


def test_the_function_refuses_what_the_command_line_does(storage):
    with pytest.raises(TypeError, match="epoch"):
        run("quick", storage=storage, epoch=3)
    for settings, told in (
        ({"preset": "quik"}, "--preset is 'quik'"),
        ({"epochs": 0}, "--epochs"),
        ({"name": "x", "resume": True}, "holds no study to --resume"),
    ):
        with pytest.raises(SpecError, match=told):
            run(storage=storage, **settings)
    with pytest.raises(RunFolderError, match="--name"):
        run(storage=storage, name="a/b")
    assert not storage.exists()


IN_A_NOTEBOOK = """
import ray, sys
from study.plan.spec import StudySpec
from study.run import run

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
spec = StudySpec(preset="custom", models=("dense",), hidden_units=(64,), epochs=1)
for settings in ({"preset": spec}, {"resume": True, "seeds": 2}):
    print(run(storage=sys.argv[1], name="mine", gpus=0, quiet=True, no_report=True, **settings))
    assert ray.is_initialized()
assert ray.cluster_resources()["CPU"] == 1
"""


@pytest.mark.parametrize("name", ["study/__init__.py", "convae.py", "ray.py"])
def test_a_package_of_the_same_name_would_be_found_first_and_is_refused(name, tmp_path):
    (tmp_path / "study").mkdir()
    check_packages(tmp_path)  # a mere folder hides nothing
    (tmp_path / name).touch()
    with pytest.raises(
        SpecError, match=f"{name} has the name .* run (it|this) from another folder"
    ):
        check_packages(tmp_path)


def test_a_printed_study_is_utf_8_whatever_the_terminal_is_and_not_lost_on_a_full_disk(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('question = "Größe × 4?"', encoding="utf-8")
    command = [sys.executable, "-m", "study.run", str(path), "--print-study"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert 'question = "Größe × 4?"' in ran.stdout.decode()
    with Path("/dev/full").open("w") as full:
        lost = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (lost.returncode, lost.stderr.count("\n")) == (1, 1)
    assert "cannot be written (No space left" in lost.stderr


@pytest.mark.parametrize("how", [["-OO"], []], ids=["by an option", "by the environment"])
def test_the_command_starts_again_where_there_are_no_docstrings(how):
    environment = {**os.environ, "PYTHONOPTIMIZE": "2" if not how else ""}
    command = [sys.executable, *how, "-m", "study.run", "--preset=quick", "--print-study"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "epochs = 3" in ran.stdout


@pytest.mark.cluster
def test_a_notebooks_own_session_is_used_and_left_alone(storage):
    """`run` in a process that has called `ray.init`: a study, then one seed more of it."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", IN_A_NOTEBOOK, str(storage)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    told = [line for line in ran.stdout.splitlines() if line == str(storage / "mine")]
    assert len(told) == 2
    trials = pd.read_parquet(storage / "mine" / schema.TRIALS_FILE)
    assert list(trials.state) == ["completed"] * 2
    spec = StudySpec.from_dict(json.loads((storage / "mine" / "study.json").read_text())["spec"])
    assert (spec.preset, spec.n_seeds) == ("custom", 2)


@pytest.mark.cluster
@pytest.mark.usefixtures("session")
def test_a_trial_that_fails_is_retried_then_kept_as_failed(tmp_path, formula, capsys):
    engine = partial(FileInTheWay, place=formula.folder / schema.MODELS_FOLDER)
    workers = WorkerSettings(engine=engine)
    write_images(tmp_path / "few.npz")
    words = [*formula.there, *formula.options, "--data", str(tmp_path / "few.npz")]
    assert main(words, workers=workers) == 1
    assert "1 trial failed" in capsys.readouterr().out
    (trial,) = pd.read_parquet(formula.folder / "trials.parquet").to_dict("records")
    assert (trial["state"], trial["n_retries"]) == ("failed", 2)
    assert "models" in trial["error"]


def test_a_signal_for_places_ends_no_study_that_does_not_wait_for_it_yet():
    program = (
        "import os, signal, study.run\n"
        "study.run.main()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print('lives')"
    )
    command = [sys.executable, "-c", program, "--print-study"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("lives\n")
