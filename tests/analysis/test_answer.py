"""The first screen: the answer is one that the run at hand can give, with n and an interval."""

import pytest
from golden import agrees
from pages import run_of_trials, screen, text_of
from rows import Trial, trial
from synthetic_runs import (
    MANIFEST,
    audit_trials,
    custom_trials,
    ending_at,
    finalist_trials,
    quick_trials,
    search_trials,
    winner,
)

from analysis.page.text import blocks, lines
from study.folder import schema


def plain(*models: tuple[str, int], n: int = 2) -> list[Trial]:
    return [trial(model, size, seed, 50) for model, size in models for seed in range(n)]


def winners(model: str, ends: list[float]) -> list[Trial]:
    return [winner(model, seed, end) for seed, end in enumerate(ends)]


def short(html: str) -> str:
    """The answer in a few words: what follows who asked."""
    return [block.text for block in blocks(html) if block.tag in ("h1", "p")][2]


UNET, UNET3 = ("unet", 2), ("unet", 3)
RATES = {0.1: [0.030, 0.031, 0.029], 2.0: [0.008, 0.0082, 0.0081]}
FINALISTS = {
    "003": ({"learning_rate": 2.0}, [0.010, 0.0101, 0.0099]),
    "reference": ({}, [0.020, 0.0202, 0.0198]),
}
FAILED = [trial(model, state=schema.FAILED, test_mse=None) for model in schema.MODELS]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (ending_at([0.0040, 0.0041, 0.0039], [0.008, 0.0082, 0.0079]), "Yes, at this setting."),
        (ending_at([0.0060, 0.0061, 0.0059], [0.008, 0.0082, 0.0079]), "Not at this setting."),
        (
            ending_at([0.016, 0.0161, 0.0162], [0.008, 0.0082, 0.0079]),
            "No: at this setting it has more.",
        ),
        (ending_at([0.0020, 0.0080], [0.008, 0.008]), "Undecided: too few seeds."),
        (ending_at([0.0160], [0.008]), "One seed cannot tell."),
        (ending_at([0.02], [0.04], n_epochs=3), "Too short to test it."),
        ([], "This run cannot say."),
        ([trial(), trial("dense", state=schema.FAILED, test_mse=None)], "This run cannot say."),
        ([trial(seed=0), trial("dense", seed=1)], "This run cannot say."),
        (audit_trials(n_seeds=1), "One seed cannot tell."),
        (audit_trials(), "No, under none of 12 readings."),
        (plain(UNET, UNET3), "Unet depth=3, at the reference setting."),
        (plain(UNET), "Unet: test MSE 0.00362."),
        (plain(("conv", 8), UNET), "Unet, at the reference setting."),
        (plain(("conv", 8), UNET, n=1), "One seed cannot tell."),
        (search_trials("unet", 4), "A search alone."),
        (winners("unet", [0.002]), "No reference to compare with."),
        (finalist_trials("unet", FINALISTS), "No reference to compare with."),
        ([trial("unet", state=schema.FAILED, test_mse=None)], "Nothing to compare yet."),
    ],
)
def test_the_answer_in_a_few_words(pairs: list[Trial], said: str):
    assert short(screen(*pairs)) == said


@pytest.mark.parametrize(
    ("half", "double", "said"),
    [
        ([0.03] * 3, [0.010, 0.0101, 0.0099], "Conv, learning rate 2: 0.50 times the reference"),
        ([0.03] * 3, [0.010, 0.0300, 0.0150], "Undecided: conv, learning rate 2 has 0.8"),
        ([0.05] * 3, [0.040, 0.0401, 0.0402], "The reference setting (learning rate 1) is ahead:"),
        ([0.03], [0.010], "Conv, learning rate 2: 0.50 times the reference setting's error, with"),
    ],
)
def test_custom_trials_answer_their_authors_question(half: list, double: list, said: str):
    references = [trial(seed=seed, mse=[0.06, 0.03, 0.02]) for seed in range(len(half))]
    rates = custom_trials("conv", "learning_rate", {0.5: half, 2.0: double})
    html = screen(*references, *rates, question="Is a learning rate of 1 the best?")
    assert lines(html)[0] == "Is a learning rate of 1 the best?"
    assert short(html).startswith(said)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (
            [*winners("conv", [0.01, 0.0101]), *winners("dense", [0.02, 0.0202])],
            "Tuned, conv: 0.50",
        ),
        (finalist_trials("conv", FINALISTS), "Tuned to learning rate 2: 0.50 times the reference"),
        ([trial(state=schema.RUNNING, mse=[0.06])], "Nothing to compare yet."),
        (custom_trials("conv", "learning_rate", RATES), "Conv learning_rate=2.0."),
    ],
)
def test_the_nearest_that_speaks_to_a_question_answers_it(pairs: list[Trial], said: str):
    assert short(screen(*pairs, question="Which?")).startswith(said)


def test_what_is_said_on_first_screens():
    """Each kind whole, so that a change of any word is seen."""
    depends = audit_trials(factors={schema.CONV: {}, schema.DENSE: {"sigmoid": 6.0}})
    long, brief = ending_at([0.016, 0.0161], [0.008, 0.0081]), ending_at([0.02], [0.04], 3)
    tuned = [*winners("conv", [0.01]), *winners("dense", [0.005])]
    searched = [*finalist_trials("conv", FINALISTS), trial(group=schema.SEARCH, mse=[0.02])]
    fashion = {"data": MANIFEST["data"] | {"name": "Fashion-MNIST"}}
    screens = {
        "measured, with winners, unfinished": screen(*long, *tuned, status="running"),
        "one seed, with finalists": screen(
            *ending_at([0.016], [0.008]),
            *finalist_trials("conv", FINALISTS),
            *finalist_trials("dense", {"reference": ({}, [0.010, 0.0102, 0.0098])}),
        ),
        "short, of which winners say as little": screen(*brief, *tuned),
        "a search alone": screen(*quick_trials()[2:], *FAILED),
        "audit": screen(*depends),
        "beside another model": screen(*long, *plain(UNET)),
        "other images": screen(*FAILED, *custom_trials("conv", "learning_rate", RATES), **fashion),
        "question, custom": screen(
            *long, *custom_trials("conv", "learning_rate", RATES), question="Q?"
        ),
        "question, winners": screen(*tuned, question="Q?"),
        "question, finalists": screen(*searched, question="Q?"),
    }
    text = "\n\n".join("\n".join([f"# {kind}", *lines(html)]) for kind, html in screens.items())
    agrees("answers", f"{text}\n")


def test_what_became_of_the_comparisons_that_seeds_were_added_to():
    one = {"group": schema.REFERENCE, "setting": "conv", "base": "dense-512", "n": 10}
    known = [one | {"p": 0.00031, "decided": True}]
    known.append(one | {"setting": "dense-64", "n": 0, "p": None, "decided": False})
    noted = {"rule": "After 5 seeds and every 5 more.", "comparisons": known}
    trials = ending_at([0.016] * 2, [0.008] * 2)
    said = "conv beside dense-512: decided after 10 seeds, p = 0.00031"
    assert said in "\n".join(lines(screen(*trials, until_decided=noted)))
    page = text_of(run_of_trials(*trials, until_decided=noted), "claims")
    assert "(--until-decided). After 5 seeds and every 5 more." in page
    assert f"- {said}\n- dense-64 beside dense-512: not decided after 0 seeds\n" in page
    assert "Seeds were added" not in screen(*trials)
