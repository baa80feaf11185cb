"""The checks of the sweep: each returns the largest difference from `reference`, relative to the largest value."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments

import reference
import tiny
import tiny_models
from foci import FocusTrainer, Plan, models
from foci.attention import check_watched, received
from foci.focus import Batch, Row
from foci.gradients.influence import token_influence
from foci.gradients.norms import block_norms
from foci.methods.oracle import Oracle
from foci.models.decoding import Cached, reading
from foci.models.losses import token_nll
from foci.models.prefixes import after, shares_prefixes

WITHOUT_SINKS = ("granite_swa", "granitemoe_swa")
"""Types whose eager maps lack the sink's share: Transformers applies it to the output."""
TOLERANCE = {"influence": 1e-2}
"""Largest relative error that counts as right; 1e-3 where nothing is said."""


def rows(lengths: Sequence[int], seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [tuple(torch.randint(2, tiny.VOCAB, (n,), generator=generator).tolist()) for n in lengths]
    return [Row(str(n), ids, columns={"answer": (0.0, 1.0, 1.0) * (len(ids) // 3)}) for n, ids in enumerate(drawn)]


ROWS, LATER = rows((9, 6, 12), 0), rows((6, 9), 1)


@dataclass
class Case:
    """One architecture: `model()` makes it anew, `folder` holds it as `save_pretrained` writes it."""

    name: str
    root: Path
    seed: int = 0
    notes: dict[str, float] = field(default_factory=dict)

    def model(self, **loading: str) -> PreTrainedModel:
        return tiny_models.make(self.name, self.seed, **loading)

    @cached_property
    def shared(self) -> PreTrainedModel:
        """For checks that change nothing."""
        return self.model()

    @cached_property
    def folder(self) -> Path:
        return self.saved(self.model(), "model")

    def saved(self, model: torch.nn.Module, name: str) -> Path:
        model.save_pretrained(self.root / name)
        tiny.tokenizer().save_pretrained(self.root / name)
        return self.root / name


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest reference."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp(min=1e-12))


def real(values: Tensor, batch: Batch) -> Tensor:
    return values[batch.attention_mask.bool()]


def load(case: Case) -> float:
    """A saved model has the logits of the model, and its parameters have blocks."""
    loaded = models.load(str(case.folder), dtype="float32", device="cpu").model
    with torch.no_grad():
        return apart(reference.logits(loaded, ROWS[0].input_ids), reference.logits(case.shared, ROWS[0].input_ids))


def loss(case: Case, side: str = "right") -> float:
    batch = Batch.of(ROWS, tiny.PAD, side)
    return apart(real(token_nll(case.shared, batch).detach(), batch), reference.losses(case.shared, ROWS))


def left(case: Case) -> float:
    """The loss of rows that are padded on the left."""
    return loss(case, "left")


def gradient(case: Case) -> float:
    model, batch = case.shared, Batch.of(ROWS, tiny.PAD)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = token_nll(model, batch).sum() / batch.predicted().sum()
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    pairs = zip(found, reference.gradient(model, ROWS).values(), strict=True)
    ours, theirs = zip(*[(torch.zeros_like(t) if o is None else o, t) for o, t in pairs], strict=True)
    return apart(torch.cat([o.flatten() for o in ours]), torch.cat([t.flatten() for t in theirs]))


def decoding(case: Case) -> float:
    """Prompts of several lengths, continued greedily: the share of tokens that differ."""
    model, batch = case.shared, Batch.of(ROWS, tiny.PAD, "left")
    with torch.no_grad():
        read, ids, said = reading(model, batch, 3), None, []
        case.notes["decodes from its cache"] = float(isinstance(read, Cached))
        for _ in range(3):
            ids = models.head_of(model).logits(read.last_hidden(ids)).argmax(-1, keepdim=True)
            said.append(ids)
        theirs = torch.tensor([reference.greedy(model, row.input_ids, 3) for row in ROWS])
        worst = 0.0 if case.name == "xlnet" else beginnings(case)  # not causal, and refused by `load`
    return max(worst, float((torch.cat(said, 1) != theirs).double().mean()))


def beginnings(case: Case) -> float:
    """The logits after texts that begin alike, some of them longer than a window; part of `decoding`."""
    model, ids = case.shared, ROWS[2].input_ids
    texts = [ids[:4], (*ids[:4], 7, 9), (*ids[:2], 11, 5), ids[:6], ids[3:6], ids, (*ids[:9], 5)]
    worst = 0.0
    for some in (texts[:5], texts):
        theirs = torch.stack([reference.logits(model, text)[-1] for text in some])
        for indices, hidden in after(model, some, tiny.PAD):
            worst = max(worst, apart(models.head_of(model).logits(hidden), theirs[indices]))
    case.notes["shares what texts begin with"] = float(shares_prefixes(model))
    return worst


def attention(case: Case) -> float:
    """What tokens receive, in the layers with attention; right and left padding."""
    model = case.shared
    layers = sorted(check_watched(model))
    theirs = [None if case.name in WITHOUT_SINKS else reference.received(model, row, layers) for row in ROWS]
    if any(one is None for one in theirs):
        case.notes["attention has no reference"] = 1.0
        theirs = [received(model, *alone(row), layers=layers)[0] for row in ROWS]
    worst = 0.0
    for side in ("right", "left"):
        batch = Batch.of(ROWS, tiny.PAD, side)
        ours = real(received(model, batch.input_ids, batch.attention_mask, layers=layers), batch)
        worst = max(worst, apart(ours, torch.cat(theirs)))
    return worst


def alone(row: Row) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([row.input_ids])
    return ids, torch.ones_like(ids)


def norms(case: Case) -> float:
    """Gradient norms by block: three rows, and one row alone."""
    model, worst = case.shared, 0.0
    models.blocks(model)  # refuses a parameter that stands in no block
    theirs = [reference.norms(model, row, models.block_of) for row in ROWS]
    for some in (ROWS, ROWS[:1]):
        batch = Batch.of(some, tiny.PAD)
        found = block_norms(model, batch, batch.predicted())
        for block, values in found.items():
            expected = torch.tensor([one[block] for one in theirs[: len(some)]])
            worst = max(worst, apart(values, expected))
    return worst


def influence(case: Case) -> float:
    """The default mode against a double backward; attention and experts without kernels there."""
    batch, later = Batch.of(ROWS, tiny.PAD), Batch.of(LATER, tiny.PAD)
    ours = token_influence(case.model(), batch, later, torch.ones(batch.input_ids.shape), lr=reference.RATE)
    plain = case.model(attn_implementation="eager")
    if hasattr(plain, "set_experts_implementation"):
        plain.set_experts_implementation("eager")
    return apart(real(ours, batch), reference.influence(plain, ROWS, LATER))


def adapter(case: Case) -> float:
    """LoRA that is not 0: its loss, its merged model, and what its saved files load as."""
    model = models.add_adapter(models.load(str(case.folder), dtype="float32", device="cpu").model, models.Adapter(r=2))
    moving = {name for name, g in reference.gradient(model, ROWS).items() if ".lora_B." in name and bool(g.any())}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    live = {name: p for name, p in trained.items() if name.replace(".lora_A.", ".lora_B.") in moving}
    case.notes["adapter weights that never move"] = float(len(trained) - len(live))
    with torch.no_grad():
        for p in live.values():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    batch, expected = Batch.of(ROWS, tiny.PAD), reference.losses(model, ROWS)
    worst = apart(real(token_nll(model, batch).detach(), batch), expected)
    folder = case.saved(model, "adapter")
    loaded = models.load(str(folder), dtype="float32", device="cpu").model
    worst = max(worst, apart(reference.losses(loaded, ROWS), expected))
    return max(worst, apart(reference.losses(model.merge_and_unload(), ROWS), expected))


def updates(case: Case) -> float:
    """Three updates by SGD under a plan that weighs tokens: how far from the same by hand, and after save and load."""
    model, hand = case.model(), case.model()
    start = {name: p.detach().clone() for name, p in hand.named_parameters()}
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out, max_steps=3, per_device_train_batch_size=len(ROWS), learning_rate=1e-2, optim="sgd", weight_decay=0.0,
            lr_scheduler_type="constant", max_grad_norm=0.0, use_cpu=True, report_to="none", save_strategy="no",
            disable_tqdm=True, logging_strategy="no", seed=0,
        )  # fmt: skip
        FocusTrainer(model, arguments, plan=Plan([Oracle(0.5)]), train_dataset=ROWS).train()
    model.eval()
    weights = [torch.where(torch.tensor(row.columns["answer"][1:]) > 0, 1.0, 0.5) for row in ROWS]
    for _ in range(3):
        found = reference.gradient(hand, ROWS, weights)
        with torch.no_grad():
            for name, p in hand.named_parameters():
                p.sub_(1e-2 * found.get(name, torch.zeros(())))
    ours, theirs = (
        torch.cat([(p.detach() - start[name]).flatten() for name, p in m.named_parameters()]) for m in (model, hand)
    )
    loaded = models.load(str(case.saved(model, "trained")), dtype="float32", device="cpu").model
    return max(apart(ours, theirs), apart(reference.losses(loaded, ROWS), reference.losses(model, ROWS)))


CHECKS: dict[str, Callable[[Case], float]] = {
    check.__name__: check
    for check in (load, loss, left, gradient, decoding, attention, norms, influence, adapter, updates)
}
