"""The first screen: the answer is one that the run at hand can give, with n and an interval."""

from typing import Any

import numpy as np
import pytest
from pages import run_of_trials
from synthetic_runs import audit_trials, custom_trials, finalist_trials, quick_trials, trial

from analysis.chapters import curves, likely
from analysis.chapters.answer import Answer, answer, outcome
from study.folder import schema


def reference(conv: list[float], dense: list[float], n_epochs: int = 50) -> list:
    """Trials whose test MSE ends at the given values, a seed each."""
    return [
        trial(model, size, seed, mse=np.geomspace(0.06, end, n_epochs))
        for model, size, ends in (("conv", 8, conv), ("dense", 512, dense))
        for seed, end in enumerate(ends)
    ]


def failed_references() -> list:
    return [trial(*size, state=schema.FAILED) for size in (("conv", 8), ("dense", 512))]


def answer_of(*pairs: Any, **manifest: Any) -> Answer:
    return answer(run_of_trials(*pairs, **manifest))


@pytest.mark.parametrize(
    ("conv", "dense", "short"),
    [
        ([0.0040, 0.0041, 0.0039], [0.008, 0.0082, 0.0079], "Yes, at this setting."),
        ([0.0060, 0.0061, 0.0059], [0.008, 0.0082, 0.0079], "Not at this setting."),
        ([0.0160, 0.0161, 0.0162], [0.008, 0.0082, 0.0079], "No: at this setting it has more."),
        ([0.0020, 0.0080], [0.008, 0.008], "Undecided: too few seeds."),
        ([0.0160], [0.008], "One seed cannot tell."),
        ([0.0001], [0.008], "One seed cannot tell."),
    ],
)
def test_a_run_of_the_reports_length_answers(conv, dense, short):
    found = answer_of(*reference(conv, dense))
    assert found.short == short
    ratio = np.exp(np.mean(np.log(conv)) - np.mean(np.log(dense)))
    assert (
        f"After 50 epochs conv has {ratio:#.2g} times dense-512's test MSE ("
        in (found.sentences[0])
    )
    assert f"n = {len(conv)} seed" in found.sentences[0]
    assert ("95 % interval" in found.sentences[0]) == (len(conv) > 1)
    assert "batch size 256" in found.sure
    assert found.figure == curves.TEST


def test_a_short_run_says_so_and_what_it_shows_so_far():
    found = answer_of(*reference([0.02], [0.04], n_epochs=3))
    assert found.short == "Too short to test it."
    assert "trained for 3 epochs, the report's claim is about 50" in found.sentences[0]
    assert (
        "What it shows so far: conv is ahead. After 3 epochs conv has 0.50 times"
        in (found.sentences[1])
    )
    assert "may be chance" in found.sure
    assert [fact.value for fact in found.facts] == ["0.0200", "0.0400", "0.500 ×"]


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "no completed reference trial of conv or of dense-512"),
        (
            [trial("conv", 8), trial("dense", 512, state=schema.FAILED)],
            "no completed reference trial of dense-512",
        ),
        ([trial("conv", 8, 0), trial("dense", 512, 1)], "the two models share no seed"),
        (
            [*quick_trials()[2:], *failed_references()],
            "What its search found is below.",
        ),
    ],
)
def test_a_run_that_cannot_say_says_why(pairs, words):
    found = answer_of(*pairs)
    assert found.short == "This run cannot say."
    assert words in found.sentences[0]
    assert found.facts == []


def test_an_unfinished_run_says_so():
    found = answer_of(*reference([0.01], [0.005]), status="running")
    assert found.sentences[-1] == "The study is not finished (running): numbers may change."


def test_winners_are_told_of_beside_a_whole_training_alone():
    winners = [
        trial(model, size, 0, mse=[0.05, last], group=schema.WINNER, batch_size=64)
        for model, size, last in (("conv", 8, 0.01), ("dense", 512, 0.005))
    ]
    said = "Tuned, conv's winner has 2.0 times the dense one's test MSE (n = 1 seed)"
    assert any(said in one for one in answer_of(*reference([0.01], [0.005]), *winners).sentences)
    short = answer_of(*reference([0.01], [0.005], n_epochs=3), *winners).sentences
    assert not any(said in one for one in short)


def test_an_audit_says_on_what_it_depends():
    factors = {schema.CONV: {}, schema.DENSE: {"sigmoid": 6.0}}
    found = answer_of(*audit_trials(factors=factors))
    assert found.short == "It depends on what the report leaves open."
    assert "under 6, and not under 6" in found.sentences[0]
    assert (
        "Most of all on the dense hidden activation: sigmoid in place of relu"
        in (found.sentences[1])
    )
    assert "n = 3 seeds" in found.sure
    assert found.figure == likely.FIGURE


def test_an_audit_of_one_seed_decides_nothing():
    pairs = audit_trials(n_seeds=1)
    assert outcome(run_of_trials(*pairs)).kind == "one seed"
    assert answer_of(*pairs).short == "One seed cannot tell."


ASKED = "Is a learning rate of 1 the best?"


def asked(*pairs: Any) -> Answer:
    return answer_of(*pairs, spec={"preset": "mine", "epochs": 3, "question": ASKED})


def custom(ends: dict[float, list[float | None]]) -> list:
    return custom_trials("conv", "learning_rate", ends)


@pytest.mark.parametrize(
    ("half", "double", "short"),
    [
        ([0.03, 0.03, 0.03], [0.010, 0.0101, 0.0099], "Conv, learning rate 2: 0.50 times the"),
        ([0.03, 0.03, 0.03], [0.010, 0.0300, 0.0150], "Undecided: conv, learning rate 2 has 0.8"),
        (
            [0.05, 0.05, 0.05],
            [0.040, 0.0401, 0.0402],
            "The reference setting (learning rate 1) is ahead, beyond ch",
        ),
        (
            [0.05, 0.05, 0.05],
            [0.015, 0.0200, 0.0402],
            "The reference setting (learning rate 1) is ahead, though no",
        ),
        (
            [0.03],
            [0.010],
            "Conv, learning rate 2: 0.50 times the reference setting's error, ",
        ),
    ],
)
def test_custom_trials_answer_their_authors_question(half, double, short):
    references = [trial(seed=seed, mse=[0.06, 0.03, 0.02]) for seed in range(len(half))]
    found = asked(*references, *custom({0.5: half, 2.0: double}))
    assert found.question == ASKED
    assert found.short.startswith(short)
    assert found.sentences[0].startswith("Of 2 own settings the best is conv, learning rate 2")
    assert found.asked_by == "This study trained conv on MNIST: " + (
        f"{len(half)} reference trial{'s' * (len(half) > 1)} and {2 * len(half)} own trials."
    )


def winner(model: str, size: int, ends: list[float]) -> list:
    return [
        trial(model, size, seed, mse=[0.06, 0.03, end], group=schema.WINNER)
        for seed, end in enumerate(ends)
    ]


def test_tuned_models_answer_their_authors_question():
    found = asked(*winner("conv", 8, [0.01, 0.0101]), *winner("dense", 512, [0.02, 0.0202]))
    assert found.short == "Tuned, conv: 0.50 times dense's error."
    assert found.sentences[0].startswith("Tuned, conv's winner has 0.50 times the dense one's")
    assert [fact.name for fact in found.facts] == [
        "conv's winner, test MSE",
        "dense's winner, test MSE",
    ]


def test_one_tuned_model_is_measured_by_the_reference_setting():
    settings = {
        "003": ({"learning_rate": 2.0}, [0.010, 0.0101, 0.0099]),
        "reference": ({}, [0.020, 0.0202, 0.0198]),
    }
    found = asked(*finalist_trials("conv", settings))
    assert found.short == "Tuned to learning rate 2: 0.50 times the reference setting's error."
    assert "± is the standard deviation." in found.sure
    searched = trial(group=schema.SEARCH, mse=[0.02])
    found = asked(*finalist_trials("conv", settings), searched)
    assert found.sure.endswith("One search of 1 trial a model, of 1 epoch: another may differ.")


def test_a_question_without_trials_has_no_answer_yet():
    found = asked(trial(state=schema.RUNNING, mse=[0.06]))
    assert found.question == ASKED
    assert found.short == "Nothing to compare yet."


def test_custom_settings_without_a_reference_are_the_answer():
    rates = {0.1: [0.030, 0.031, 0.029], 2.0: [0.008, 0.0082, 0.0081]}
    pairs = [*failed_references(), *custom_trials("conv", "learning_rate", rates)]
    found = answer_of(*pairs, data={"name": "Fashion-MNIST", "source": "fashion.npz"})
    assert found.short == "Conv, learning rate 2."
    assert found.sure.startswith("3 seeds; ")
    assert found.sure.endswith(
        "No reference trial completed: what an own setting gains over it is not known."
    )
    spec = {"preset": "mine", "epochs": 3, "question": "Which rate?"}
    asked = answer_of(*pairs, spec=spec)
    assert asked.short == "Conv, learning rate 2 is the best."


def test_a_best_model_that_shares_no_seed_with_the_next_is_only_named():
    pairs = [trial("unet", 2, seed, 50, mse=[0.05, 0.003]) for seed in (0, 1)]
    pairs += [trial("conv", 8, seed, 50, mse=[0.05, 0.009]) for seed in (2, 3)]
    found = answer_of(*pairs)
    assert "unet has the least test MSE, 0.00300 (n = 2 seeds); conv is next." in " ".join(
        found.sentences
    )
    assert found.short == "Undecided: too few seeds."
