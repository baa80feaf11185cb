"""Attention guidance: heads, patterns, strength and scale by hand, and what it refuses."""

from dataclasses import replace

import pytest
import torch

import contracts
import runs
import small
import tiny
from foci.attention import attention_maps, head_distances, logits, pattern_targets
from foci.attention.heads import GuidedHeads
from foci.focus import DELIMITER, Context, Plan, Row
from foci.methods import build
from foci.methods.guidance import Guidance, GuidanceHeads, dealt, fading, marked
from foci.pretrain.config import ScratchConfig
from foci.pretrain.models import scratch
from foci.pretrain.text import trained_tokenizer
from foci.report.guided import figures
from foci.system.files import read_lines
from training import trained, weights


def prepared(method, tmp_path, net=None, rows=None):
    net = tiny.build("llama") if net is None else net
    return method.prepare(Context(net, tiny.tokenizer(), small.rows() if rows is None else rows, tmp_path, 0))


def masked_model(heads=4):
    size = ScratchConfig(type="bert", layers=2, width=32, heads=heads)
    return scratch(size, trained_tokenizer(["a text"], 300, "masked"), 32, seed=0)


# ---- which heads, how strongly ----


def test_heads_of_the_published_settings():
    """Patterns of 12 heads as 0, 1, 1, 4 (same, next, previous, first), and of 8 heads as 0, 2, 2, 2."""
    assert list(dealt(("next", "previous", *["first"] * 4), 6).values()) == ["next", "previous", *["first"] * 4]
    twos = dealt(("next", "previous", "first"), 6)
    assert twos == {0: "next", 1: "next", 2: "previous", 3: "previous", 4: "first", 5: "first"}


def test_defaults_follow_the_direction_of_attention(tmp_path):
    causal, _ = prepared(Guidance(), tmp_path)
    assert causal.targets(0) == causal.targets(1) == {0: "previous", 1: "previous-2"}  # half of 4 heads
    assert causal.targets(2) == {}
    both, _ = prepared(Guidance(share=1.0), tmp_path, masked_model())
    assert both.targets(1) == {0: "next", 1: "next", 2: "previous", 3: "first"}


def test_layers_are_all_the_lower_half_or_named(tmp_path):
    net = tiny.build("llama", layers=3)
    guided = {
        layers: [n for n in range(3) if prepared(Guidance(layers=layers), tmp_path, net)[0].targets(n)]
        for layers in ("all", "lower", (2,))
    }
    assert guided == {"all": [0, 1, 2], "lower": [0, 1], (2,): [2]}


def test_strength_is_held_and_fades():
    method = GuidanceHeads(Guidance(alpha=2.0, hold=0.2, until=0.6), {})
    assert [method.strength(step, 10) for step in range(8)] == pytest.approx([2, 2, 2, 1.5, 1, 0.5, 0, 0])
    assert [GuidanceHeads(Guidance(hold=1.0), {}).strength(step, 3) for step in range(3)] == [1.0, 1.0, 1.0]
    assert fading(0, 1) == 1.0


# ---- delimiters ----


def test_delimiters_are_marked(tmp_path):
    tokenizer = tiny.tokenizer()
    ids = tokenizer("Rome, the town.")["input_ids"] + [tiny.EOS]
    (row,) = marked([Row("a", tuple(ids))], tokenizer, (".", ","))
    words = [tokenizer.decode([token]) for token in ids]
    assert [words[t] for t, one in enumerate(row.columns["delimiter"]) if one] == [",", ".", "<eos>"]
    with pytest.raises(ValueError, match=r"delimiters \['§'\] and separators, which none of 1 rows holds"):
        marked([Row("a", tuple(ids[:-1]))], tokenizer, ("§",))


def test_a_delimiter_pattern_trains(tmp_path):
    tokenizer = tiny.tokenizer()
    texts = ["The town, the town. The.", "She was born, he. And", "a, b. c, d. e"]
    rows = [Row(f"{n}", tuple(tokenizer(text)["input_ids"])) for n, text in enumerate(texts)]
    net = tiny.build("llama", vocab=tiny.VOCAB)
    method, with_column = prepared(Guidance(patterns=("delimiter",)), tmp_path, net, rows)
    assert all("delimiter" in row.columns for row in with_column)
    led, _ = trained(tmp_path / "led", with_column, [method], start=net)
    free, _ = trained(tmp_path / "free", rows, start=tiny.build("llama", vocab=tiny.VOCAB))
    a, b = weights(led), weights(free)
    assert any(not torch.equal(a[name], b[name]) for name in a)


# ---- in training ----


def test_heads_are_measured_where_a_pattern_has_a_key(tmp_path):
    """The first eight rows held no delimiter, and the run ended although later ones did."""
    net, none = tiny.build("llama"), [Row(f"r{n}", (10, 11, 12, 13)) for n in range(9)]
    none = [replace(row, columns={DELIMITER: (0.0,) * 4}) for row in none]
    last = Row("last", (10, 5, 12, 13), columns={DELIMITER: (0.0, 1.0, 0.0, 0.0)})
    plan = Plan([GuidanceHeads(Guidance(), {0: {0: "delimiter", 1: "previous"}})])
    heads = GuidedHeads.of(plan, net, [*none, last], tiny.tokenizer())
    assert [row.row_id for row in heads.rows] == [*(f"r{n}" for n in range(7)), "last"]
    assert [one["pattern"] for one in heads.distances(net)] == ["delimiter", "previous"]
    assert len(GuidedHeads.of(plan, net, [last, *none], tiny.tokenizer()).rows) == 8


def test_guided_heads_learn_their_pattern_and_the_model_is_left_as_it_was(tmp_path):
    rows = small.rows(24)
    method, rows = prepared(Guidance(patterns=("previous",), hold=1.0, alpha=4.0), tmp_path, rows=rows)
    net, ids = tiny.build("llama"), torch.tensor([rows[0].input_ids])
    before = attention_maps(net, ids, torch.ones_like(ids), [(0, 0)])
    contracts.assert_model_is_left_as_it_was(method, tmp_path / "left", rows, net)
    trained(tmp_path / "more", rows, [method], start=net, num_train_epochs=5)
    after = attention_maps(net, ids, torch.ones_like(ids), [(0, 0)])
    there = [float(maps[0, 0].diagonal(-1).mean()) for maps in (before, after)]
    assert there[1] > there[0] + 0.2


@pytest.mark.parametrize("side", ["right", "left"])
def test_distances_are_those_of_whole_maps(side, monkeypatch):
    """By head, over queries that have a key, in several blocks; 0 for a head that is the pattern itself."""
    monkeypatch.setattr(logits, "QUERIES_AT_A_TIME", 4)
    net, batch = tiny.build("llama"), small.batch(3)
    ids, mask = batch.input_ids, batch.attention_mask
    if side == "left":
        ids, mask = ids.flip(1), mask.flip(1)
    heads = {0: {1: "previous", 3: "first"}, 1: {2: "same"}}
    found = head_distances(net, ids, mask, heads)
    for (layer, head), distance in found.items():
        maps = attention_maps(net, ids, mask, [(layer, head)])[:, 0]
        key, has = pattern_targets(heads[layer][head], mask.bool())
        wanted = torch.nn.functional.one_hot(key, ids.shape[1])
        slow = ((maps - wanted).square().sum(-1) * has).sum() / has.sum()
        assert distance == pytest.approx(float(slow), rel=1e-5)
    assert set(found) == {(0, 1), (0, 3), (1, 2)}
    with pytest.raises(ValueError, match="layer 0 has heads 0 to 3, got head 9"):
        head_distances(net, ids, mask, {0: {9: "same"}})
    with pytest.raises(ValueError, match=r"layers \[5\] are asked for, which have no attention"):
        head_distances(net, ids, mask, {5: {0: "same"}})
    with pytest.raises(ValueError, match=r"has a key in the patterns \['delimiter'\]"):
        head_distances(net, ids, mask, {0: {0: "delimiter"}}, torch.zeros_like(mask).bool())


def test_a_run_with_a_guided_arm_and_its_report(tmp_path, capsys):
    """LoRA on an existing model; both figures in the page, and a resumed arm keeps its lines."""
    things = runs.material(tmp_path / "things")
    arms = {"plain": [], "guided": [{"guidance": {"patterns": ["previous"], "share": 0.25}}]}
    file = runs.run_file(tmp_path, things, arms=arms)
    runs.told(["learn", file], capsys)
    folder = tmp_path / "out" / "arms" / "guided"
    lines = read_lines(folder / "guided.jsonl")
    assert [line["step"] for line in lines] == [0, 3, 6, 9]
    assert all(0 < head["distance"] < 2 for line in lines for head in line["heads"])
    assert lines[0] != lines[-1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Distance of guided heads, guided" in page
    assert "layer 1, head 0: previous" in page
    assert "data:image/png;base64," in page
    assert "Distance of guided heads, plain" not in page
    wrong = ["check", file, "arms.guided=[{guidance: {patterns: [next]}}]"]
    assert "ask for 'previous-2' in place of 'next'" in runs.refused(wrong, capsys, 2)


def test_the_reports_figures_need_what_they_draw():
    head = {"layer": 0, "head": 0, "pattern": "first", "distance": 0.5}
    assert figures("a", 0, [], None) == []
    assert figures("a", 0, [{"step": 0, "heads": [head]}], {"before": {"maps": []}}) == []
    drawn = figures("a", 0, [{"step": n, "heads": [head]} for n in (0, 5)], None)
    assert [figure["title"] for figure in drawn] == ["Distance of guided heads, a"]
    assert "step 5 · 0.500 distance" in drawn[0]["svg"]


# ---- what is refused ----


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patterns": ["next"]}, "ask for 'previous-2' in place of 'next'"),
        ({"patterns": ["same", "first", "previous"]}, "3 patterns for 2 guided heads a layer; raise share"),
        ({"layers": [0, 7]}, r"names layers \[7\], the model has attention in layers \[0, 1\]"),
        ({"share": 0.0}, "got share 0.0"),
        ({"alpha": -1.0}, "alpha -1.0"),
        ({"patterns": []}, r"patterns \(\)"),
        ({"hold": 0.5, "until": 0.1}, "hold 0.5 and until 0.1"),
    ],
)
def test_what_cannot_work_is_refused(settings, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        prepared(build({"guidance": settings}), tmp_path)
    with pytest.raises(ValueError, match=words):
        build({"guidance": settings}).check_model(tiny.build("llama"))
