"""The gradient profile as a method: what it measures, what it keeps apart, and what a frozen block no longer costs."""

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.nn import functional as F

import runs
import small
import tiny
from foci import FocusTrainer, Plan, models
from foci.config.run import Run, load_run
from foci.focus import Context, Row
from foci.learn.arguments import learner
from foci.methods.grad_profile import method
from foci.methods.grad_profile.method import GradProfile
from foci.models import block_of, blocks
from foci.training.plan import block_scales
from training import arguments, trained

TEXTS = [text for text, _, _ in runs.FACTS]


def corpus(*, marked: bool = True) -> list[Row]:
    """The ten facts as rows; the town is marked."""
    tokenizer, rows = tiny.tokenizer(), []
    for n, (text, town, _) in enumerate(runs.FACTS):
        made = tokenizer(text, return_offsets_mapping=True)
        a, b = text.index(town), text.index(town) + len(town)
        answer = tuple(float(start < b and end > a) for start, end in made["offset_mapping"])
        offsets = tuple(tuple(pair) for pair in made["offset_mapping"])
        rows.append(Row(f"r{n}", tuple(made["input_ids"]), text, offsets, {"answer": answer} if marked else {}))
    return rows


def net(layers: int = 6, name: str = "llama", seed: int = 0) -> torch.nn.Module:
    return tiny.build(name, vocab=tiny.VOCAB, layers=layers, seed=seed)


def context(folder: Path, rows: list[Row] | None = None, **changes) -> Context:
    settings = {"model": net(), "tokenizer": tiny.tokenizer(), "rows": rows or corpus(), "folder": folder}
    folder.mkdir(parents=True, exist_ok=True)
    return Context(**(settings | changes))


def told(folder: Path) -> dict:
    return json.loads((folder / method.FILE).read_text())


def by_block(folder: Path, name: str) -> dict[str, float]:
    return {line["block"]: line[name] for line in told(folder)["blocks"]}


def probe_file(folder: Path) -> Path:
    lines = [
        {"role": "learn", "kind": "cloze", "prompt": text[: text.index(" as a ") + 5], "answer": job, "id": f"p{n}"}
        for n, (text, _, job) in enumerate(runs.FACTS)
    ]
    return runs.write_lines(folder / "trace.jsonl", lines)


# ---- what is measured


def test_the_profile_is_that_of_a_loop_over_single_examples(tmp_path):
    """R and the rates of every mode from the model's own logits, one example after another."""
    where, reference = tmp_path / "method", tmp_path / "old.txt"
    reference.write_text(" ".join(f"The town {n} in the north of France is old." for n in range(40)))
    profiled = GradProfile(mode="adaptive", reference=str(reference), length=16, references=5)
    given = context(where)
    online, rows = profiled.prepare(given)
    assert rows is given.rows

    def norms(model, ids, start):
        model.zero_grad()
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")[start - 1 :].mean().backward()
        squares = dict.fromkeys(blocks(model), 0.0)
        for name, p in model.named_parameters():
            squares[block_of(name)] += float(p.grad.square().sum())
        return {block: math.sqrt(square) for block, square in squares.items()}

    slow = net()
    spans = []
    for row in rows:
        marks = row.columns["answer"]
        first, last = marks.index(1.0), len(marks) - marks[::-1].index(1.0)
        spans.append(norms(slow, row.input_ids[:last], first))
    old = profiled._reference(given)
    assert len(old) == 5
    below = [norms(slow, row.input_ids, 1) for row in old]
    expected = {
        b: sum(s[b] for s in spans) / len(spans) / (sum(r[b] for r in below) / len(below)) for b in blocks(slow)
    }
    assert by_block(where, "relative") == pytest.approx(expected, rel=1e-4)
    layers = {b: v for b, v in expected.items() if b.startswith("layers.")}
    mean, top = sum(layers.values()) / 6, max(layers.values())
    assert {b: online.scale(b) for b in expected} == pytest.approx(
        {b: layers.get(b, mean) / top for b in expected}, rel=1e-4
    )
    frozen, _ = GradProfile(reference=str(reference), length=16, references=5).prepare(given)
    assert {b: frozen.scale(b) for b in expected} == {b: float(layers.get(b, 0.0) > mean) for b in expected}


def test_the_file_says_where_the_numbers_are_from(tmp_path):
    online, _ = GradProfile().prepare(context(tmp_path))
    record = told(tmp_path)
    spans = method.marked_spans(corpus())
    assert record["spans"] == {"from": "answer spans of the corpus", "count": 10, "tokens": sum(map(len, spans))}
    assert set(record["shape"]) == {"early", "middle", "late"}
    assert [line["block"] for line in record["blocks"]] == blocks(net())
    for line in record["blocks"]:
        assert line["relative_low"] < line["relative"] < line["relative_high"]
        assert line["control_low"] < line["control"] < line["control_high"]
        assert line["rate"] == online.scale(line["block"])
    assert record["method"] == repr(GradProfile())
    assert online.summary() == record["told"]
    assert online.summary().startswith(f"profile: early {record['shape']['early']:.2f}, middle ")
    assert " of 6 layers move" in online.summary()


def test_spans_come_from_probes_the_corpus_or_nothing_but_text(tmp_path):
    sources = {
        "answer spans of the corpus": ({}, True),
        "rare words and numbers of the corpus: a guess, nobody marked them": ({"spans": "rare"}, True),
        f"probes of {probe_file(tmp_path)}": ({"spans": str(probe_file(tmp_path))}, False),
    }
    found = {}
    for n, (words, (settings, marked)) in enumerate(sources.items()):
        where = tmp_path / str(n)
        GradProfile(**settings).prepare(context(where, corpus(marked=marked)))
        assert told(where)["spans"]["from"] == words
        found[words] = tuple(by_block(where, "relative").values())
    assert len(set(found.values())) == 3
    where = tmp_path / "unmarked"
    GradProfile().prepare(context(where, corpus(marked=False)))
    assert tuple(by_block(where, "relative").values()) == list(found.values())[1]


@pytest.mark.parametrize("mode", ["frozen", "adaptive", "auto_rgn"])
@pytest.mark.parametrize("order", ["reversed", "random"])
def test_controls_have_the_same_rates_on_other_layers(tmp_path, mode, order):
    given = context(tmp_path)
    measured, _ = GradProfile(mode=mode).prepare(given)
    control, _ = GradProfile(mode=mode, order=order).prepare(given)
    layers = [b for b in blocks(given.model) if b.startswith("layers.")]
    rates, others = ([method.scale(b) for b in layers] for method in (measured, control))
    assert rates != others
    assert sorted(rates) == sorted(others)
    if order == "reversed":
        assert [1 if rate > min(rates) else 0 for rate in rates] != [1 if rate > min(others) else 0 for rate in others]
        assert others[rates.index(max(rates))] == min(rates)


def test_auto_rgn_divides_by_the_weights(tmp_path):
    """Twice the weights at the same gradient is half the value; its rates are by the relative gradient, not by R."""
    online, _ = GradProfile(mode="auto_rgn").prepare(context(tmp_path))
    values = by_block(tmp_path, "relative_gradient")
    layers = [b for b in values if b.startswith("layers.")]
    top = max(values[b] for b in layers)
    assert [online.scale(b) for b in layers] == pytest.approx([values[b] / top for b in layers])
    assert by_block(tmp_path, "relative") != values


# ---- what is kept


def test_norms_are_measured_once(tmp_path, monkeypatch):
    """By every arm that shares a folder, for the same model, spans and text; then by nobody."""
    shared = str(tmp_path / "shared")
    first, _ = GradProfile(shared=shared).prepare(context(tmp_path / "a"))
    GradProfile(shared=shared).prepare(context(tmp_path / "other", model=net(seed=1)))
    assert len(list((tmp_path / "shared").glob("*.safetensors"))) == 2
    monkeypatch.setattr(method.profile, "span_norms", None)
    again, _ = GradProfile(shared=shared, mode="adaptive").prepare(context(tmp_path / "b"))
    assert by_block(tmp_path / "a", "relative") == by_block(tmp_path / "b", "relative")
    assert first.rates != again.rates
    with pytest.raises(TypeError):
        GradProfile(shared=shared).prepare(context(tmp_path / "c", seed=1))


def test_norms_of_another_model_are_refused(tmp_path):
    GradProfile().prepare(context(tmp_path))
    with pytest.raises(ValueError, match=r"norms.safetensors is stale.*model: "):
        GradProfile().prepare(context(tmp_path, model=net(seed=1)))


def test_a_profile_that_freezes_all_layers_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"leaves none of \d blocks to train .*; set mode: adaptive"):
        GradProfile(count=4, references=4, length=8).prepare(context(tmp_path, model=net(layers=1)))
    prepared, _ = GradProfile("adaptive", count=4, references=4, length=8).prepare(
        context(tmp_path, model=net(layers=1))
    )
    assert any(block_scales(Plan([prepared]), net(layers=1)).values())


def test_the_model_is_left_as_it_was(tmp_path):
    given = context(tmp_path)
    before = models.fingerprint(given.model)
    GradProfile(mode="auto_rgn").prepare(given)
    assert models.fingerprint(given.model) == before
    assert all(p.grad is None and p.requires_grad for p in given.model.parameters())


# ---- what is kept apart


def test_probes_that_the_run_asks_are_not_traced(tmp_path):
    first = TEXTS[0][: TEXTS[0].index(" as a ") + 5]
    with pytest.raises(ValueError, match="1 of 10 probes to trace are asked by the run as well, such as 'p0'"):
        GradProfile(spans=str(probe_file(tmp_path))).prepare(context(tmp_path / "m", asked=frozenset({first})))


@pytest.mark.parametrize("spans", ["answers", "rare"])
def test_rows_that_hold_a_question_are_not_traced(tmp_path, spans):
    """As if they were not there."""
    asked = frozenset(text[: text.index(" was born in") + 12] for text in TEXTS[:6])
    GradProfile(spans=spans).prepare(context(tmp_path / "a", asked=asked))
    GradProfile(spans=spans).prepare(context(tmp_path / "b", corpus()[6:]))
    assert by_block(tmp_path / "a", "relative") == by_block(tmp_path / "b", "relative")


def test_nothing_left_to_trace_is_told(tmp_path):
    asked = frozenset(text[:20] for text in TEXTS)
    with pytest.raises(
        ValueError, match=r"found 0 spans \(answer spans.*10 of 10 rows were left out because they hold"
    ):
        GradProfile(spans="answers").prepare(context(tmp_path, asked=asked))


def test_reference_text_without_questions(tmp_path):
    reference = tmp_path / "old.jsonl"
    runs.write_lines(reference, [{"text": f"The town {n} is in the north."} for n in range(3)])
    given = context(tmp_path / "m", asked=frozenset({"The town 1", "The town 2"}))
    with pytest.raises(ValueError, match=r"found 1 reference rows in .*old.jsonl and needs 2; name more text"):
        GradProfile(reference=str(reference)).prepare(given)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": 1}, "at least 2, got 1, 64 and 128"),
        ({"length": 1}, "at least 2, got 64, 64 and 1"),
    ],
)
def test_wrong_settings_are_refused_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        GradProfile(**settings)


def test_a_method_without_its_profile_is_refused(tmp_path):
    with pytest.raises(
        TypeError, match=r"GradProfile\(mode='frozen'.*must look at the model or the corpus before training"
    ):
        trained(tmp_path, small.rows(), [GradProfile()])


# ---- what a frozen block no longer costs


def halved(model: torch.nn.Module, lowest: int = 3) -> small.Scaled:
    """Everything rests but the layers from `lowest` on."""
    still = {b: 0.0 for b in blocks(model) if not b.startswith("layers.") or int(b.split(".")[1]) < lowest}
    return small.Scaled(still)


@pytest.mark.parametrize("weighed", [False, True], ids=["trainers-loss", "own-loss"])
@pytest.mark.parametrize("lora", [False, True], ids=["weights", "lora"])
def test_the_backward_pass_stops_below_the_lowest_moving_block(tmp_path, lora, weighed):
    """What a frozen layer below hands on needs no gradient, and its backward is never run."""
    bare = tiny.build("llama-tied", layers=6)
    model = tiny.lora(bare) if lora else bare
    asked, went = {}, set()

    def seen(number: int, output: torch.Tensor) -> None:
        asked[number] = output.requires_grad
        if output.requires_grad:
            output.register_hook(lambda _: went.add(number))

    for n, layer in enumerate(bare.model.layers):
        layer.register_forward_hook(lambda _m, _i, out, n=n: seen(n, out))
    methods = [halved(model), *([small.ByPosition()] if weighed else [])]
    trained(tmp_path, small.rows(4), methods, start=model, num_train_epochs=1)
    assert asked == {0: False, 1: False, 2: False, 3: True, 4: True, 5: True}
    assert went == {3, 4, 5}


def run_of(tmp_path: Path, adapter: dict | None) -> Run:
    return Run(corpus={"path": ("x",)}, adapter=adapter, output=tmp_path / "out", name="x")


@pytest.mark.parametrize("kind", ["lora", "dora", "osf"])
def test_a_frozen_block_has_no_adapter(tmp_path, kind):
    """The others have the one they would have had; the saved adapter loads without a word and answers alike."""
    adapter = {"type": kind} if kind == "osf" else {"type": kind, "r": 2, "alpha": 4}
    run, still = run_of(tmp_path, adapter), {"layers.0": 0.0, "layers.2": 0.0, "layers.10": 0.5}
    whole = learner(run, net(12))
    part = learner(run, net(12), Plan([small.Scaled(still)]))
    names = {name: p for name, p in whole.named_parameters() if p.requires_grad}
    kept = {name: p for name, p in part.named_parameters() if p.requires_grad}
    assert {block_of(name) for name in names} - {block_of(name) for name in kept} == {"layers.0", "layers.2"}
    for name, p in kept.items():
        torch.testing.assert_close(p, names[name], rtol=0, atol=0)
    with torch.no_grad():
        for p in kept.values():
            p.add_(0.1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(is_gradient_checkpointing|base model|config).*")
        part.save_pretrained(tmp_path / "adapter")
        loaded = PeftModel.from_pretrained(net(12), tmp_path / "adapter")
    ids = torch.arange(2, 12)[None]
    torch.testing.assert_close(loaded(input_ids=ids).logits, part.eval()(input_ids=ids).logits)
    merged = part.merge_and_unload()
    torch.testing.assert_close(merged(input_ids=ids).logits, loaded(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_an_adapter_that_was_left_out_counts_as_frozen_and_trains(tmp_path):
    """Frozen layers without adapters, the others at rate 1: not refused as doing nothing, and only they move."""
    plan = Plan([small.Scaled({"layers.0": 0.0, "embeddings": 0.0})])
    model = learner(run_of(tmp_path, {"type": "lora", "r": 2, "alpha": 4}), net(3), plan)
    assert models.unadapted_blocks(model) == {"layers.0"}
    assert block_scales(plan, model)["layers.0"] == 0
    trainer = FocusTrainer(model, arguments(tmp_path), plan=plan, train_dataset=small.rows())
    trainer.train()
    names = {p: name for name, p in model.named_parameters()}
    held = {block_of(names[p]) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert held == {"layers.1", "layers.2"}
    with pytest.raises(ValueError, match=r"scales blocks embeddings, none of which trains"):
        block_scales(Plan([small.Scaled({"embeddings": 0.5})]), model)


def test_a_plan_that_leaves_no_adapter_is_refused(tmp_path):
    every = small.Scaled({f"layers.{n}": 0.0 for n in range(3)})
    model = learner(run_of(tmp_path, {"type": "lora", "r": 2, "alpha": 4}), net(3), Plan([every]))
    assert models.unadapted_blocks(model) == set()
    with pytest.raises(
        ValueError,
        match=r"Scaled\(.*\) freeze every block .* \(layers.0, layers.1, layers.2\): their",
    ):
        trained(tmp_path, small.rows(), [every], start=model)


def test_a_run_from_its_file_to_its_model(tmp_path, capsys):
    """Its profile is told and kept; under LoRA and with all weights frozen layers stay as they were."""
    things = runs.material(tmp_path)
    source = {"spans": "rare", "reference": str(things.text), "length": 8}
    methods = {mode: [{"grad_profile": {"mode": mode, **source}}] for mode in ("frozen", "adaptive")}
    file = runs.run_file(tmp_path, things, arms=methods, train={"epochs": 1})
    words = runs.told(["learn", str(file)], capsys)
    assert "frozen  profile: 1 of 2 layers move, rates 0.00 to 1.00" in words
    assert "adaptive  profile: 2 of 2 layers move" in words
    out = load_run(file).output / "arms"
    profiled = out / "frozen" / "scores" / "0-gradprofile"
    assert told(profiled)["spans"]["from"].startswith("rare words and numbers")
    moving = {block for block, rate in by_block(profiled, "rate").items() if rate}
    assert len(moving) == 1
    before = models.load(str(things.model)).model.state_dict()
    after = models.load(str(out / "frozen" / "model")).model.state_dict()
    changed = {block_of(name) for name in before if not torch.equal(before[name], after[name])}
    assert changed == moving
    adapter = json.loads((out / "frozen" / "adapter" / "adapter_config.json").read_text())
    assert {block_of(f"{name}.") for name in adapter["target_modules"]} == moving


def test_a_run_refuses_to_trace_what_it_asks(tmp_path, capsys):
    things = runs.material(tmp_path)
    methods = {"frozen": [{"grad_profile": {"spans": str(things.learn), "reference": str(things.text), "length": 8}}]}
    file = runs.run_file(tmp_path, things, arms=methods)
    runs.told(["check", str(file)], capsys)  # which says so, and goes on
    words = runs.refused(["learn", str(file)], capsys)
    assert "8 of 8 probes to trace are asked by the run as well" in words


def test_on_top_of_replay_and_recadam_frozen_layers_stay(tmp_path, capsys):
    """With all weights free: what rests is not pulled, paced or rehearsed away either."""
    things = runs.material(tmp_path)
    others = {"held": {"rec_adam": {"t0": 1, "gamma": 10.0}}, "old": {"replay": {"path": str(things.text)}}}
    methods = {
        arm: [other, {"grad_profile": {"spans": "rare", "reference": str(things.text), "length": 8}}]
        for arm, other in others.items()
    }
    file = runs.run_file(tmp_path, things, arms=methods, adapter=None, train={"epochs": 1})
    runs.told(["learn", str(file)], capsys)
    before = models.load(str(things.model)).model.state_dict()
    for arm in methods:
        folder = load_run(file).output / "arms" / arm
        after = models.load(str(folder / "model")).model.state_dict()
        (moving,) = (b for b, rate in by_block(folder / "scores" / "1-gradprofile", "rate").items() if rate)
        assert {block_of(name) for name in before if not torch.equal(before[name], after[name])} == {moving}
