"""The examples run as they are, on few images, and each page answers its question."""

import html
import re
import tomllib
from pathlib import Path

import pytest
from running import write_images

from analysis.load import load_run
from study.plan.study_file import read_study
from study.run import run

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.toml"))
SHORT = {"epochs": 2, "seeds": 2, "finalists": 1, "finalist_seeds": 2, "max_concurrent": 1}


def question_of(table):
    """What a file asks, or the paper that it spells out."""
    return table.get("question") or table["paper"]["question"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "noise.npz"
    write_images(path, 120, 20)
    return path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_whole_study_whose_file_says_what_it_asks(example):
    text = example.read_text()
    assert f"python -m study.run examples/{example.name}" in text
    assert question_of(tomllib.loads(text)).endswith("?")


@pytest.mark.cluster
@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_its_page_answers_its_question(example, images, tmp_path):
    file, text = read_study(example), example.read_text()
    if "\n[paper]\n" in text:  # whose claims are about its images
        example = tmp_path / example.name
        theirs = f'\n[paper]\nimages = "{images.stem}"\n'
        example.write_text(text.replace("\n[paper]\n", theirs))
    n_trials = 2 * len(file.spec.models) if file.spec.n_search_trials else 0
    folder = run(
        example, storage=tmp_path, name="it", gpus=0, data=str(images), trials=n_trials, **SHORT
    )
    trials, _ = load_run(folder)
    assert set(trials.state) <= {"completed", "pruned"}
    assert set(file.spec.models) <= set(trials.model)
    page = (Path(folder) / "report" / "index.html").read_text()
    text = html.unescape(re.sub(r"<[^>]*>", " ", page))
    assert question_of(tomllib.loads(example.read_text())) in text
    assert "Nothing to compare yet" not in text
