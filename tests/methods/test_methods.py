"""The folder of methods is the registry, and the oracle weighs what it is told to weigh."""

import sys
from dataclasses import FrozenInstanceError

import pytest
import torch

from foci import methods
from foci.focus import Batch, Plan, Row, WeighsTokens
from foci.methods.oracle import Oracle, span_weights
from foci.training.plan import check_prepared
from paths import ROOT

CARDS = ROOT / "docs" / "methods"
HEADER = "from dataclasses import dataclass\nfrom foci.focus import HoldsWeights, ScalesLayers, WeighsTokens\n"
SLOW = f'''{HEADER}
@dataclass(frozen=True)
class Slow(ScalesLayers, HoldsWeights):
    """Every block slowly.

    More about it.
    """
    rate: float
    blocks: tuple[str, ...] = ("*",)
    mode: str | None = None
    count: int = 3

    def scale(self, block):
        return self.rate

    def pull(self, step):
        return {{}}

@dataclass(frozen=True)
class _Helper(ScalesLayers):
    def scale(self, block):
        return 1.0

class Noise:
    """No role, no method."""
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that counts as part of `foci.methods`; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("foci.methods."):
            del sys.modules[name]


@pytest.fixture
def batch():
    """Two rows of 3 and 2 tokens; the answers are tokens 1 and 2 of the first, token 1 of the second."""
    first = Row("a", (5, 6, 7), columns={"answer": (0.0, 1.0, 1.0)})
    return Batch.of([first, Row("b", (8, 9), columns={"answer": (0.0, 1.0)})], pad_id=0)


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_oracle_weighs_answers_one_and_the_rest_floor(batch, floor):
    weights = Oracle(floor=floor).weigh(batch)
    assert weights.tolist() == [[floor, 1.0, 1.0], [floor, 1.0, floor]]
    assert weights.shape == batch.input_ids.shape
    assert weights.dtype == torch.float32
    assert torch.equal(weights, span_weights(batch.columns["answer"], floor))


def test_oracle_leaves_the_batch_as_it_was(batch):
    before = batch.columns["answer"].clone()
    Oracle(floor=0.5).weigh(batch).fill_(9)
    assert torch.equal(batch.columns["answer"], before)


def test_oracle_counts_a_token_that_is_partly_answer_in_full():
    assert span_weights(torch.tensor([[0.0, 0.5, 1.0]]), 0.1).tolist() == [[pytest.approx(0.1), 1.0, 1.0]]


def test_oracle_without_answers_says_how_to_give_them():
    with pytest.raises(ValueError, match=r"the column 'answer', got no columns; give .* `answer_spans`"):
        Oracle().weigh(Batch.of([Row("a", (5, 6))], pad_id=0))
    with pytest.raises(ValueError, match=r"got \['other'\]"):
        Oracle().weigh(Batch.of([Row("a", (5, 6), columns={"other": (0.0, 1.0)})], pad_id=0))


@pytest.mark.parametrize("floor", [-0.1, 1.0, 2.0, float("nan")])
def test_oracle_refuses_a_floor_that_means_nothing(floor):
    with pytest.raises(ValueError, match=r"oracle's floor is a weight of at least 0 and below 1"):
        Oracle(floor=floor)


def test_oracle_is_a_frozen_method_whose_repr_is_its_record():
    oracle = Oracle(floor=0.1)
    assert (repr(oracle), oracle.needs()) == ("Oracle(floor=0.1)", frozenset({"answer"}))
    assert Plan([oracle]).of(WeighsTokens) == [oracle]
    with pytest.raises(FrozenInstanceError):
        oracle.floor = 0.2


def test_the_example_in_the_error_marks_the_answer():
    assert "Ada was born in Rome."[16:20] == "Rome"


@pytest.mark.parametrize(
    "spec", ["oracle", {"oracle": {"floor": 0.0}}, {"oracle": {"floor": 0}}, {"oracle": {}}, {"oracle": None}]
)
def test_a_method_is_built_from_its_name_or_name_and_settings(spec):
    assert methods.build(spec) == Oracle(floor=0.0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("orakel", r"unknown method 'orakel'; did you mean 'oracle'\? known: .*oracle.*`foci methods`"),
        ("zzzz", r"unknown method 'zzzz'; known: .*oracle"),
        ({"oracle": {"flor": 1}}, r"has no setting 'flor'; did you mean 'floor'\? its settings: floor = 0\.0"),
        ({"oracle": {"floor": "high"}}, r"setting 'floor' expected float, got 'high' \(str\)"),
        ({"oracle": {"floor": "0.1"}}, r"expected float, got '0.1' \(str\)"),
        ({"oracle": {"floor": True}}, r"expected float, got true \(bool\)"),
        ({"oracle": {"floor": None}}, r"expected float, got nothing \(null\)"),
        ({"oracle": {"floor": 3}}, r"oracle's floor is a weight"),
        ({"oracle": {}, "rho": {}}, r"a method is its name or"),
    ],
)
def test_wrong_methods_and_settings_are_refused_in_words(spec, message):
    with pytest.raises(ValueError, match=message):
        methods.build(spec)


def test_every_method_is_a_role_with_a_card_a_summary_and_its_own_name():
    found = methods.available()
    assert found["oracle"] is Oracle
    for description in methods.describe():
        assert description.name in found[description.name].__module__.split(".")[-2:]
        assert description.summary
        assert description.experimental or (CARDS / f"{description.name}.md").is_file()
        assert description.roles


def test_a_method_describes_itself():
    (oracle,) = (d for d in methods.describe() if d.name == "oracle")
    assert oracle.roles == (WeighsTokens.__name__,)
    assert oracle.decides == ("Decides how much each token counts.",)
    assert oracle.summary == "Gives weight 1 to the tokens of given answers and weight `floor` to all others."
    assert dict(oracle.settings) == {"floor": "0.0"}
    assert not oracle.experimental


def test_a_new_method_is_one_new_file(folder):
    (folder / "slow.py").write_text(SLOW)
    (folder / "_shared.py").write_text("raise RuntimeError('not a method: never imported')")
    built = methods.build({"slow": {"rate": 1, "blocks": ["a", "b"], "mode": "x"}})
    assert (built.rate, built.blocks, built.mode, built.count) == (1.0, ("a", "b"), "x", 3)
    (told,) = (d for d in methods.describe() if d.name == "slow")
    assert told.roles == ("ScalesLayers", "HoldsWeights")
    assert told.summary == "Every block slowly."
    assert dict(told.settings) == {"rate": "required", "blocks": "('*',)", "mode": "None", "count": "3"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"method 'slow' needs rate; write \{slow: \{rate: ...\}\}"),
        ({"rate": 1.0, "count": 1.5}, r"'count' expected int, got 1.5 \(float\)"),
        ({"rate": 1.0, "blocks": "abc"}, r"'blocks' expected tuple\[str, ...\], got 'abc'"),
        ({"rate": 1.0, "mode": 3}, r"'mode' expected str \| None, got 3 \(int\)"),
    ],
)
def test_settings_are_checked_by_their_annotations(folder, settings, message):
    (folder / "slow.py").write_text(SLOW)
    with pytest.raises(ValueError, match=message):
        methods.build({"slow": settings})


def test_experimental_methods_stand_on_their_own_shelf(folder):
    (folder / "experimental").mkdir()
    (folder / "experimental" / "idea.py").write_text(SLOW.replace("Slow", "Idea"))
    sys.path_importer_cache.clear()
    assert type(methods.build({"idea": {"rate": 2.0}})).__name__ == "Idea"
    assert {"early_late", "idea"} <= {d.name for d in methods.describe() if d.experimental}
    assert not {"oracle", "rho"} & {d.name for d in methods.describe() if d.experimental}


def test_building_imports_only_the_module_it_needs(folder):
    (folder / "broken.py").write_text("raise RuntimeError('imported')")
    assert methods.build("oracle") == Oracle()
    with pytest.raises(RuntimeError, match="imported"):
        methods.available()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", r"odd should define one public class that prepares or plays a role, got \[\]"),
        (SLOW + SLOW.replace("Slow", "Other").replace("_Helper", "_Second"), r"got \['Slow', 'Other'\]"),
        (SLOW.replace("(frozen=True)", ""), r"odd.Slow should be a frozen dataclass"),
        (HEADER + "class Bare(WeighsTokens): ...", r"odd.Bare should be a frozen dataclass"),
    ],
)
def test_a_file_that_is_no_method_is_told_to_its_author(folder, source, message):
    (folder / "odd.py").write_text(source)
    with pytest.raises(TypeError, match=message):
        methods.build("odd")


def test_two_methods_of_one_name_are_refused(folder):
    (folder / "experimental").mkdir()
    (folder / "experimental" / "oracle.py").write_text(SLOW)
    with pytest.raises(TypeError, match="two methods are named 'oracle'"):
        methods.build("oracle")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["oracle"], r"got 'oracle'; names are for run files; .*Plan\(\[foci\.methods\.build\('oracle'\)\]\)"),
        ("oracle", r"a list of methods, got 'oracle'; names are for run files"),
        ([{"oracle": {"floor": 0.1}}], r"build\(\{'oracle': \{'floor': 0\.1\}\}\)"),
        (Oracle(), r"a list of methods, got Oracle\(floor=0\.0\); write Plan\(\[Oracle\(floor=0\.0\)\]\)"),
        ([Oracle], r"make an object of the class: Plan\(\[Oracle\(\.\.\.\)\]\)"),
        ([3], r"a plan takes methods, got 3; derive it from a role"),
        (Oracle, r"a plan takes a list of methods, got .*; make an object of the class: Plan\(\[Oracle\(\.\.\.\)\]\)"),
        (None, r"a plan takes a list of methods, got None; write Plan\(\) for plain fine-tuning"),
    ],
)
def test_what_is_no_method_is_told_how_to_write_one(given, words):
    plan = object.__new__(Plan)  # past the types that tests alone check
    object.__setattr__(plan, "methods", given)
    with pytest.raises(TypeError, match=words):
        plan.__post_init__()
    with pytest.raises(TypeError, match="plan takes a Plan, got"):
        check_prepared(given)
