"""A study as a file: what it says, what it refuses and in which words, and that it prints whole."""

import json
import re
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan import Hand, of

from convae.config import TrialConfig, hyperparameters_of
from study import run
from study.folder import schema
from study.folder.records import from_json
from study.plan.space import Space, built_in, space_from
from study.plan.spec import SpecError, StudySpec, hyperparameters, spec_options
from study.plan.study_file import PRESETS, key_of, parse_study, read_study, to_toml
from study.plan.trial_tables import FIXED_GROUPS, KEYS, TrialTable, trial_table_from
from study.plan.trials import first_points, fixed_trials, readings_of, search_config

SPACE = """
[search.conv]
learning_rate = {low = 0.1, high = 10, scale = "log"}
momentum = [0, 0.5, 0.9]
nesterov = false

[search.dense]
hidden_units = {low = 1, high = 64}
batch_size = {low = 32, high = 512, scale = "log"}
max_parameters = 4385
"""


def parse(text, folder="."):
    return parse_study(text, "my.toml", "my", Path(folder)).spec


HUNDRED = list(range(1, 102))
CLAIM = "[[claim]]\nsays = 'It is so.'\n"
MEASURED = CLAIM + "measure = 'test_mse'\nrelation = 'at most'\n"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_study_that_spells_out_a_preset_is_the_preset(preset):
    text = to_toml(PRESETS[preset])
    assert replace(parse(text), preset=preset) == PRESETS[preset]
    given = tomllib.loads(text)
    without = {key_of(o) for o in spec_options() if getattr(PRESETS[preset], o.name) is None}
    tables = {"search", "paper", "claim", "open"} | ({"trial"} if preset == "full" else set())
    tables |= {"question"} if PRESETS[preset].question else set()
    assert given.keys() == {key_of(o) for o in spec_options()} - without | tables


@pytest.mark.parametrize("preset", PRESETS)
def test_the_tables_that_a_study_prints_as_comments_are_its_trials(preset):
    """With them, the options that stand for them are not needed."""
    text = to_toml(replace(PRESETS[preset], n_seeds=2))
    head, _, rest = text.partition("# [[trial]]")
    tables = re.sub(r"^# ", "", "# [[trial]]" + rest, flags=re.MULTILINE)
    spec = parse(head.replace("readings = true", "readings = false") + tables)
    assert len(spec.trial_tables) == tables.count("[[trial]]") > 0
    assert not spec.readings
    assert fixed_trials(spec) == fixed_trials(replace(PRESETS[preset], n_seeds=2))


def test_a_study_with_everything_prints_as_itself():
    text = f"""
    question = "Is it so?"
    models = ["conv"]
    trials = 4
    time_budget = 60.5
    [[trial]]
    model = "conv"
    learning_rate = [0.5, 1]
    nesterov = [true, false]
    [[trial]]
    model = "dense"
    hidden_activation = "sigmoid"
    split = "search"
    [[trial]]
    group = "neighbour"
    model = "dense"
    vary = "each"
    seeds = 2
    dropout = [0.1, 0.2]
    {SPACE}
    """
    spec = parse(text)
    again = parse(to_toml(replace(spec, models=("conv", "dense"))))
    assert again == replace(spec, models=("conv", "dense"))
    assert spec.question == "Is it so?"
    assert StudySpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


# What is wrong by itself, so that the schema refuses it, too (test_study_schema).
MISTAKES = [
    ("epoch = 3", r"the file has the key epoch, which there is not; did you mean epochs\?"),
    ("epochs = 0", r"my\.toml: epochs is 0, but takes a whole number from 1"),
    ("epochs = [3]", r"epochs is \[3\], but takes one value"),
    ('epochs = "3"', "epochs is .3., but takes a whole number .*; leave the quotes out"),
    ('models = "conv"', "models is 'conv', but takes a list"),
    ("hidden = ['64']", "hidden is '64', but takes a whole number .*; leave the quotes out"),
    ("models = [1]", "models is 1, but takes a text"),
    ('sampler = "best"', "sampler is .best., but takes tpe"),
    ("readings = 1", "readings is 1, but takes true or false"),
    ("question = 7", "question is 7, but takes a text"),
    ("data = []", r"data is \[\], but takes a text"),
    ("finalists = -1", "finalists is -1, but takes a whole number from 0"),
    ("[trial]\nmodel = 'conv'", r"trial takes tables: write \[\[trial\]\]"),
    ("trial = [1]", r"trial takes tables: write \[\[trial\]\]"),
    ("[[trial]]\nlearning_rate = 1", r"\[\[trial\]\] 1 has no model; give model = conv or"),
    ("[[trial]]\nmodel = 'conv'\nlearning_rat = 1", "did you mean learning_rate"),
    ("[[trial]]\nmodel = 'conv'\nhidden_units = 1", r"1 has the key hidden_units, .* not"),
    ("[[trial]]\nmodel = 'conv'\nlearning_rate = -1", "learning_rate is -1, but takes a fini"),
    ("[[trial]]\nmodel = 'conv'\nlearning_rate = [1, 1]", "learning_rate names a value twice"),
    ("[[trial]]\nmodel = 'conv'\nlearning_rate = []", "learning_rate names a value twice, or"),
    ("[[trial]]\nmodel = 'conv'\nsplit = 'test'", "split is 'test', but takes full or search"),
    ("[[trial]]\nmodel = 'conv'\ngroup = 'search'", "group is 'search', but takes custom or r"),
    ("[[trial]]\nmodel = 'conv'\nvary = 'all'", "vary is 'all', but takes product or each"),
    ("[[trial]]\nmodel = 'conv'\nseeds = 0", "1 seeds is 0, but takes a whole number from 1"),
    ("[[trial]]\nmodel = 'conv'\nseeds = true", "seeds is True, but takes a whole number"),
    ("search = 1", r"search takes tables by model: write \[search\.NAME\]"),
    ("[search]\nlearning_rate = 1", r"search takes tables by model"),
    ("[search.conv]\nlr = [1, 2]", r"\[search\.conv\] has the key lr, which there is not"),
    ("[search.conv]\nlearning_rate = [1, -2]", "learning_rate is -2, but takes a finite num"),
    ("[search.conv]\nlearning_rate = {low = 1}", "learning_rate is a range without low or h"),
    ("[search.conv]\nmomentum = {low=0, high=0.9, scale='log'}", r"low is 0\.0, but a log"),
    ("[search.conv]\nlearning_rate = {low=1, high=2, scale='x'}", "scale is 'x', but takes li"),
    ("[search.conv]\nlearning_rate = {low=1, high=2, step=1}", "has the key step"),
    ("[search.conv]\nnesterov = {low=0, high=1}", "nesterov is a range, but takes a list"),
    ("[search.conv]\none_minus_momentum = [0, 1]", "is 0, but takes 1 − momentum, which tak"),
    ("[search.dense]\nhidden_units=[2,3]\nmax_parameters='9'", "max_parameters is '9', but"),
    ("paper = 1", r"paper is 1, but takes a name or a table"),
    ("[paper]\nepochs = 0", r"\[paper\] epochs is 0, but takes a whole number from 1"),
    ("[paper]\ncalled = ''", r"\[paper\] called is '', but takes a text"),
    ("[paper]\ntitle = 'x'", r"\[paper\] has the key title, which there is not"),
    ("[[paper.assumption]]\nwhat = 'x'", r"assumption\]\] 1 has no read_as; give it"),
    ("[paper]\nassumption = 1", r"takes tables: write \[\[paper\.assumption\]\]"),
    ("open = 1", r"open takes tables by model: write \[open\.NAME\]"),
    ("[open.conv]\ndropout = 0.1", r"\[open\.conv\] has the key dropout, which there is not"),
    ("[open.conv]\nbatch_size = [0]", "batch_size is 0, but takes a whole number from 1"),
    ("[claim]\nsays = 'x'", r"claim takes tables: write \[\[claim\]\]"),
    ("[[claim]]\nof = 'conv'", r"\[\[claim\]\] 1 has no says; give it"),
    (CLAIM + "sayz = 'x'", "has the key sayz, which there is not; did you mean says"),
    (CLAIM + "measure = 'mse'", "measure is 'mse', but takes train_mse or val_mse or test_mse"),
    (MEASURED + "value = -1", "value is -1, but takes a number above 0"),
    (MEASURED + "value = 1\nof = 'conv'\nvalues = [1]", "values is .*, but takes two numbers"),
    ("[model.unet]", r'\[model\.unet\] has no build; give build = "file\.py:function"'),
    ("[model.unet]\nbild = 'a'", "has the key bild, which there is not; did you mean build"),
    ("[model.conv]\nbuild = 'a.py:f'", "a name is a letter, .* and none built in"),
    ("[model.'u-net']\nbuild = 'a.py:f'", r"\[model\.u-net\] .*a name is a letter"),
]
# What depends on other keys or files, or is no TOML.
MISTAKES_TOGETHER = [
    ("epochs =\nseeds = 2", r"my\.toml is no TOML: .*line 1, column"),
    ("seeds = .5", r"Invalid value .*\(a number begins with a digit, as in 0\.5\)"),
    ("epochs = 3\ngrace_epochs = 4", "grace_epochs is 4, but epochs is 3"),
    ('models = ["lstm"]', "models has 'lstm', but takes conv or dense"),
    ("trials = 3", "trials is 3, but must share out equally"),
    ("[[trial]]\nmodel = 'cnn'", r"\[\[trial\]\] 1 has the model 'cnn'; give model = conv"),
    (
        f"[[trial]]\nmodel = 'conv'\nbatch_size = {HUNDRED}\nlearning_rate = {HUNDRED}",
        "makes 10,201 trials, but at most 10,000 are taken",
    ),
    ("[search.cnn]\nlearning_rate = [1, 2]", r"\[search\.cnn\] is of no model that there is"),
    ("[search.conv]", r"\[search\.conv\] searches nothing"),
    ("[search.conv]\nlearning_rate = 1", r"\[search\.conv\] searches nothing"),
    ("[search.conv]\nlearning_rate = {low = 2, high = 1}", r"goes from 2\.0 to 1\.0"),
    ("[search.conv]\nlearning_rate = {low=1, high=2, grid=[3]}", "grid leaves its range"),
    ("[search.conv]\nmomentum=[0,0.5]\none_minus_momentum=[1]", "has both one_minus_moment"),
    ("[search.dense]\nhidden_units=[2,3]\nmax_parameters=9", "smallest setting has 3,922"),
    ("readings = true", "readings needs a paper that leaves something open"),
    ("paper = 'x'", "paper is 'x', but takes report-2021, the path of a file"),
    ("[open.cnn]\nbatch_size = 1", r"\[open\.cnn\] is of no model that there is"),
    (
        "[open.conv]\nbatch_size = [1, 2]\n[open.dense]\nbatch_size = [1, 3]",
        r"\[open\.dense\] batch_size has other values than another model's",
    ),
    (f"[open.conv]\nbatch_size={HUNDRED}\nlatent_filters={HUNDRED}", "makes 10,201 readings"),
    (CLAIM + "relation = 'at most'", r"1 has relation, but no measure"),
    (CLAIM + "measure = 'test_mse'\nrelation = 'at most'", "has no value; give it"),
    (MEASURED + "value = 1", "takes one of: of, a setting, or others"),
    (MEASURED + "value = 1\nof = 'dense'", "of is 'dense', which is the label of no setting"),
    (MEASURED + "value = 1\nof = 'conv learning_rate=2.0'", "or the label of a .*trial"),
    (MEASURED + "value = 1\nothers = 'hidden_units'", "has others, which needs beside"),
    (MEASURED + "value = 1\nof = 'conv'\njudged = 'reaches'", "which needs beside: it is of"),
    (MEASURED + "value = 1\nof = 'conv'\nfirst = 0.2", "takes first, the share of the epochs"),
]


@pytest.mark.parametrize(("text", "told"), MISTAKES + MISTAKES_TOGETHER)
def test_each_mistake_gets_its_sentence(text, told):
    with pytest.raises(SpecError, match=told) as caught:
        parse(text)
    assert str(caught.value).startswith("my.toml")
    assert "--" not in str(caught.value)  # a file has keys, not options
    assert str(caught.value).count("\n") == 0


def test_a_paper_is_named_by_path_and_the_files_own_claims_are_added(tmp_path):
    (tmp_path / "theirs.toml").write_text(
        MEASURED + "of = 'conv'\nvalue = 0.01\n[open.conv]\nbatch_size = [1, 2]"
    )
    own = "[[trial]]\nmodel = 'conv'\nlearning_rate = 2\n" + CLAIM + "of = 'conv learning_rate=2.0'"
    text = "paper = 'theirs.toml'\n" + own + "\n[open.conv]\nlatent_filters = [4, 8]"
    paper = parse(text, tmp_path).paper
    assert [claim.of for claim in paper.claims] == ["conv", "conv learning_rate=2.0"]
    assert paper.factors == {"latent_filters": (4, 8)}
    (tmp_path / "empty.toml").write_text("epochs = 3")
    with pytest.raises(SpecError, match=r"a file that has no \[paper\], \[\[claim\]\]"):
        parse("paper = 'empty.toml'", tmp_path)
    (tmp_path / "circle.toml").write_text("paper = 'circle.toml'")
    with pytest.raises(SpecError, match="names a paper itself"):
        parse("paper = 'circle.toml'", tmp_path)


def test_a_reading_gives_every_setting_its_label():
    text = "hidden = [3]\nbatch_size = 2\n[open.conv]\nbatch_size = [1, 2]\nlatent_filters = [8]"
    found = readings_of(parse(text))
    assert [reading["levels"] for reading in found] == [{"batch_size": 1}, {"batch_size": 2}]
    assert [reading["default"] for reading in found] == [False, True]
    assert found[0]["settings"] == {"conv": "conv batch_size=1", "dense-3": "dense-3"}
    assert readings_of(parse("epochs = 3")) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "not exist"), (b"# \xe9", "no UTF-8; save it as UTF-8"), ("folder", "Is a directory")],
)
def test_a_file_that_cannot_be_read_is_refused(content, why, tmp_path, capsys):
    if content and content != "folder":
        (tmp_path / "theirs.toml").write_bytes(content)
        with pytest.raises(SpecError, match=f"theirs.toml cannot be read as a paper: .*{why}"):
            parse_study("paper = 'theirs.toml'", "my.toml", "my", tmp_path)
    path = tmp_path / "my.toml"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert run.main([str(path)]) == 2
    told = capsys.readouterr().err
    assert str(path) in told
    assert why in told
    assert told.count("\n") == 1


def test_a_file_and_a_preset_are_two_studies(tmp_path, capsys):
    path = tmp_path / "my.toml"
    path.write_text("epochs = 3")
    assert run.main([str(path), "--preset", "quick"]) == 2
    assert "two studies" in capsys.readouterr().err


def test_options_go_over_the_files_values_and_paths_are_the_files(tmp_path, capsys):
    path = tmp_path / "my study.toml"
    path.write_text("epochs = 3\nseeds = 2\ndata = 'images.npz'\n" + SPACE)
    words = [str(path), "--epochs", "7", "--trial", "model=conv learning_rate=0.25,0.5"]
    assert run.main([*words, "--print-study"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert (printed["epochs"], printed["seeds"]) == (7, 2)
    assert printed["data"] == str(tmp_path / "images.npz")
    assert printed["trial"] == [{"model": "conv", "learning_rate": [0.25, 0.5]}]
    assert printed["search"]["dense"]["hidden_units"] == {"low": 1, "high": 2, "scale": "linear"}
    assert read_study(path).spec.preset == "my_study"


TABLES = """
trial = [
    {group = "reference", model = "dense", hidden_units = 77},
    {group = "reading", model = "dense", batch_size = 128},
    {group = "neighbour", model = "conv", vary = "each", nesterov = false},
    {model = "dense"},
]
"""


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("", "reference reading neighbour custom"),
        ("--no-readings", "reference neighbour custom"),
        ("--no-neighbours", "reference reading custom"),
        ("--hidden 64", "neighbour custom"),
        ("--models dense", "reference reading custom"),
        ("--models conv", "neighbour custom"),
        ("--neighbours", "reference reading neighbour custom neighbour"),
    ],
)
def test_options_take_tables_of_the_file_out(words, left, tmp_path, capsys):
    (tmp_path / "my.toml").write_text(TABLES)
    assert run.main([str(tmp_path / "my.toml"), "--print-study", *words.split()]) == 0
    printed = tomllib.loads(capsys.readouterr().out)["trial"]
    assert [table.get("group", "custom") for table in printed] == left.split()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("learning_rate=1", "--trial has no model"),
        ("model=conv learning_rate", "'learning_rate', but takes each name once"),
        ("model=conv nesterov=1", "nesterov is 1, but takes true or false"),
        ("model=conv model=dense", "'model=dense', but takes each name once"),
        ("model='conv", "cannot be read"),
    ],
)
def test_trials_in_words_are_refused_with_a_sentence(words, told, capsys):
    assert run.main(["--print-study", "--trial", words]) == 2
    assert told in capsys.readouterr().err


words = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=4,
)


def read(where, table):
    return trial_table_from(where, table, schema.MODELS, lambda model: hyperparameters(model, ()))


@settings(max_examples=300, deadline=None)
@given(
    table=st.dictionaries(
        st.sampled_from([*KEYS, "learning_rate", "batch_size", "x"]),
        values | st.sampled_from(["conv", *FIXED_GROUPS, "each", "search"]),
    )
)
def test_any_table_of_trials_is_read_or_refused_with_a_sentence(table):
    try:
        trials = read("[[trial]] 1", {"model": "conv", **table})
    except SpecError:
        return
    assert read("x", trials.to_table()) == trials
    assert from_json(TrialTable, json.loads(json.dumps(asdict(trials)))) == trials


names = st.sampled_from(["learning_rate", "momentum", "one_minus_momentum", "batch_size", "y"])
range_ = st.fixed_dictionaries(
    {"low": st.floats(0.01, 0.5) | values, "high": st.floats(0.6, 0.99) | st.integers(2, 9)},
    optional={"scale": st.sampled_from(["log", "linear", "x"])},
)


@settings(max_examples=300, deadline=None)
@given(table=st.dictionaries(names, range_ | st.lists(st.floats(0.1, 0.9), max_size=3) | values))
def test_any_space_is_read_or_refused_with_a_sentence(table):
    try:
        space = space_from("conv", table, hyperparameters_of("conv"))
    except SpecError:
        return
    assert space_from("conv", space.to_table(), hyperparameters_of("conv")) == space
    assert from_json(Space, json.loads(json.dumps(space.to_dict()))) == space
    for point in space.grid[:20]:
        config = search_config("conv", point, StudySpec(preset="t", spaces=(space,)))
        assert space.params_of(config) == pytest.approx(point)


def test_what_a_space_does_not_name_stays_at_the_reference_setting():
    spec = parse("trials = 4\nbatch_size = 64\n[search.conv]\nlearning_rate = [0.5, 1.0]")
    config = search_config("conv", {"learning_rate": 0.5}, spec)
    reference = TrialConfig(model="conv", batch_size=64, split="search")
    assert config == replace(reference, learning_rate=0.5)
    assert spec.space_of("dense") == built_in("dense")


def test_given_points_are_those_that_the_space_holds():
    spec = parse("trials = 8" + SPACE)
    points = first_points("conv", spec, 100)
    assert points == [
        {"learning_rate": 1.0, "momentum": 0.5},
        {"learning_rate": 2.0, "momentum": 0.5},
        {"learning_rate": 1.0, "momentum": 0.9},
        {"learning_rate": 0.5, "momentum": 0.5},
        {"learning_rate": 1.0, "momentum": 0.0},
        {"learning_rate": 4.0, "momentum": 0.5},
        {"learning_rate": 0.25, "momentum": 0.5},
    ]
    assert first_points("dense", spec, 100) == []  # 512 units are too many


def test_a_limit_on_parameters_keeps_large_models_out():
    spec = parse("trials = 40\nepochs = 1\nfinalists = 0" + SPACE)
    searched = [trial.config for trial in of(Hand(spec).run(), schema.SEARCH)]
    sizes = {config.hidden_units for config in searched if config.model == "dense"}
    assert sizes == {1, 2}


def test_a_byte_order_mark_is_no_part_of_the_study(tmp_path):
    (tmp_path / "study.toml").write_bytes(b"\xef\xbb\xbfepochs = 2")
    assert read_study(tmp_path / "study.toml").spec.epochs == 2
