"""The alignments and steps of many documents at the same time: every row of a batch takes a step of its own.

`foci.gradients.influence` takes one step for a whole batch, and moves the weights. Here every row has its own change of
the weights (`own_weights`), kept as factors of its gradient. One pass forward and backward gives the gradients of all
rows, and one tangent pass their alignments, exactly:

    j_i = d nll_i / d eps at theta + eps v,   v = du/dg * grad later loss(theta - lr u(g))

A model for which that cannot be done (`OwnWeights`) is asked row by row, by `gradient_alignment`.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from foci.focus import Batch
from foci.gradients.changes import Change, Changes, NoOwnWeightsError, added, dense, products, scaled, taken
from foci.gradients.influence import (
    LATER,
    check_mode,
    checked_weights,
    deterministic,
    gradient_alignment,
    later_loss,
    stepped,
)
from foci.gradients.inner_step import InnerStep
from foci.gradients.own_weights import OwnWeights
from foci.models import fsdp
from foci.models.forward import buckets
from foci.models.losses import check_readable

TOKENS = {"cpu": 512}
"""Tokens of the documents in a pass by device, at most (or one document); elsewhere `WIDE`."""
WIDE = 4096
COPIED = 4096
"""Tokens of documents, counted once for each of their tasks, in a pass at most (or one direction)."""
CLOSE = 5e-3
"""Most that a row's inner loss along its direction may differ from what its gradient says, relative to both."""

PROOF = 1e-2
"""Most that tangents may differ from differences (which are up to 3e-3 off in SmolLM2), relative to the largest."""
_PROVEN: WeakKeyDictionary[nn.Module, tuple[frozenset[str], bool]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Later:
    """The later tasks of some documents: row n belongs to direction `to[n]`, direction k to document `of[k]`.

    A direction's later loss is the mean over its rows of the mean NLL of their labels; with a column `LATER` it is
    sum(column * NLL).
    """

    batch: Batch
    to: Int[Tensor, " row"]
    of: Int[Tensor, " direction"]

    def factors(self) -> Float[Tensor, "row seq"]:
        """Returns what every token's NLL counts in the later loss of its direction."""
        if LATER in self.batch.columns:
            return self.batch.columns[LATER]
        rows = torch.bincount(self.to, minlength=len(self.of)).to(self.batch.input_ids.device)
        return factors(self.batch) * len(self.to) / rows[self.to][:, None]

    def part(self, directions: Int[Tensor, " part"]) -> Batch:
        """Returns the rows of some directions; the column `LATER` says what they count."""
        rows = torch.isin(self.to, directions).nonzero().flatten()
        some = replace(self.batch, columns={LATER: self.factors()}).take(rows)
        wide = int(some.attention_mask.any(0).nonzero().max()) + 1
        cut = (some.input_ids[:, :wide], some.attention_mask[:, :wide], some.labels[:, :wide])
        return Batch(*cut, columns={LATER: some.columns[LATER][:, :wide]})


def factors(batch: Batch) -> Float[Tensor, "row seq"]:
    """Returns what every token's NLL counts in `influence.later_loss` of a batch."""
    if LATER in batch.columns:
        return batch.columns[LATER]
    asked = batch.predicted().float()
    return asked / asked.sum(1, keepdim=True).clamp(min=1) / len(asked)


def alignments(
    model: nn.Module, batch: Batch, later: Batch | Later, weights: Float[Tensor, "batch seq"], step: InnerStep
) -> Float[Tensor, "direction seq"]:
    """Returns `gradient_alignment` of every row by itself, in nats squared; of a `Later`, of every direction.

    Without a `Later`, row b of `batch` has row b of `later`. Relative error 1e-4 (float32). Padding stands on the
    right. Raises ValueError as `gradient_alignment` does, or where a document has no task with an answer.
    """
    later = _checked(model, batch, later, weights)
    found = torch.zeros(len(later.of), batch.input_ids.shape[1], device=batch.input_ids.device)
    found = found.to(next(p.dtype for p in model.parameters() if p.is_floating_point()))
    for rows in _parts(batch):
        some, own = _cut(batch, rows), weights[rows]
        wide = some.input_ids.shape[1]
        for chosen in _directions(later, torch.isin(later.of, rows).nonzero().flatten(), wide):
            of = torch.searchsorted(rows, later.of[chosen])
            to = torch.searchsorted(chosen, later.to[torch.isin(later.to, chosen)])
            asked = Later(later.part(chosen), to, of)
            found[chosen, :wide] = _alignments(model, some, asked, own[:, :wide], step)
    return found


def _directions(later: Later, chosen: Tensor, wide: int) -> Iterator[Tensor]:
    """Yields so many directions at a time that copies of their documents' factors, one a task, have a bound."""
    most, counts = max(1, COPIED // wide), torch.bincount(later.to, minlength=len(later.of))
    part, rows = list[int](), 0
    for direction, count in zip(chosen.tolist(), counts[chosen], strict=True):
        if part and rows + int(count) > most:
            yield torch.tensor(part)
            part, rows = [], 0
        part.append(direction)
        rows += int(count)
    if part:
        yield torch.tensor(part)


def later_losses(
    model: nn.Module, batch: Batch, later: Batch | Later, weights: Float[Tensor, "batch seq"], step: InnerStep
) -> Float[Tensor, " batch"]:
    """Returns each row's later loss in nats after a step on that row of `batch` alone; the model stays as it was.

    Raises ValueError as `alignments` does.
    """
    asked, parts = _checked(model, batch, later, weights), list(_parts(batch))
    if not torch.equal(asked.of, torch.arange(len(batch.input_ids))):
        raise ValueError(f"row n has the later loss n, got losses of the rows {asked.of.tolist()[:8]}")
    made = []
    for rows in parts:
        to = torch.searchsorted(rows, asked.to[torch.isin(asked.to, rows)])
        made.append(_later_losses(model, _cut(batch, rows), Later(asked.part(rows), to, rows), weights[rows], step))
    found = torch.cat(made)
    return found[torch.cat(parts).argsort().to(found.device)]


def _later_losses(model: nn.Module, batch: Batch, later: Later, weights: Tensor, step: InnerStep) -> Tensor:
    weights = weights[:, : batch.input_ids.shape[1]]
    try:
        with deterministic(model):
            passes = _own_weights(model, step)
            _, moved = _step(passes, batch, weights, step)
            after = {p: taken(change, later.to) for p, change in moved.items()}
            losses = (passes.losses(later.batch, after) * later.batch.columns[LATER]).sum(1)
            return losses.new_zeros(len(weights)).index_add_(0, later.to.to(losses.device), losses)
    except NoOwnWeightsError:
        found = []
        for n in range(len(weights)):
            one = batch.take([n])
            own = weights[n : n + 1] * one.predicted()
            there = stepped(model, one, own, step) if own.any() else nullcontext()  # nothing to learn: no step
            with there, torch.no_grad():
                found.append(later_loss(model, later.part(torch.tensor([n]))))
        return torch.stack(found)


def _alignments(model: nn.Module, batch: Batch, later: Later, weights: Tensor, step: InnerStep) -> Tensor:
    """Returns the alignments of a few documents; those that cannot be computed at once one after another."""
    found, alone = torch.zeros(len(later.of), batch.input_ids.shape[1], device=batch.input_ids.device), None

    def by_itself(n: int) -> Tensor:
        one, row = _cut(batch, later.of[n : n + 1]), int(later.of[n])
        wide = one.input_ids.shape[1]
        own = weights[row : row + 1, :wide]
        aligned = gradient_alignment(model, one, later.part(torch.tensor([n])), own, step)[0]
        return F.pad(aligned, (0, found.shape[1] - wide))

    try:
        with deterministic(model):
            found, close = _together(model, batch, later, weights, step)
        shown = [n for n in close.nonzero().flatten().tolist() if found[n].any()]  # zeros prove nothing
        if shown and _proven(model, found[shown[0]], partial(by_itself, shown[0])):
            alone = (~close).nonzero().flatten().tolist()
    except NoOwnWeightsError:
        pass
    for n in range(len(later.of)) if alone is None else alone:
        aligned = by_itself(n)
        found = found.to(aligned.dtype)
        found[n] = aligned
    return found


def _proven(model: nn.Module, found: Tensor, by_itself: Callable[[], Tensor]) -> bool:
    """Returns whether tangents are the derivatives of the model's losses, which differences tell, once for a model.

    They are not where a layer detaches a part of what it computes; `gradient_alignment` refuses most such models.
    """
    trained = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
    if _PROVEN.get(model, (frozenset(), False))[0] != trained:
        truth = by_itself()
        _PROVEN[model] = trained, bool((found - truth).abs().max() <= PROOF * truth.abs().max())
    return _PROVEN[model][1]


def _together(model: nn.Module, batch: Batch, later: Later, weights: Tensor, step: InnerStep) -> tuple[Tensor, Tensor]:
    """Returns the alignments of every direction, and which agree with the gradient of the inner loss."""
    passes = _own_weights(model, step)
    slopes, moved = _step(passes, batch, weights, step)
    of_task = later.of[later.to]
    after = {p: taken(change, of_task) for p, change in moved.items()}
    kept = passes.kept
    _, found = passes.backward(later.batch, later.batch.columns[LATER], after)
    passes.kept = kept
    direction = {p: added(change, later.to, len(later.of)) for p, change in found.items()}
    own = {p: taken(slope, later.of) for p, slope in slopes.items()}
    if step.kind == "adam":
        direction = {p: dense(change, p) * step.slope(own[p]) for p, change in direction.items() if p in own}  # type: ignore[arg-type]
    alone = len(later.of) == len(batch.input_ids) and bool((later.of == torch.arange(len(later.of))).all())
    aligned = passes.tangents(batch, direction, None if alone else later.of)
    said = products(own, direction)
    expected = (_factors(batch, weights, step)[later.of] * aligned).sum(1)
    return aligned, (said - expected).abs() <= CLOSE * (said.abs() + aligned.abs().amax(1))


def _own_weights(model: nn.Module, step: InnerStep) -> OwnWeights:
    """Raises NoOwnWeightsError for a model, or a step, that cannot differ between rows."""
    if fsdp.root(model) is not None:
        raise NoOwnWeightsError("sharded")
    passes = OwnWeights(model)
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.weight in passes.parameters]
    if step.kind == "adam" and tables:
        raise NoOwnWeightsError("Adam's step needs whole gradients, too large for each row of an embedding")
    return passes


def _step(passes: OwnWeights, batch: Batch, weights: Tensor, step: InnerStep) -> tuple[Changes, Changes]:
    """Returns the gradients of each row's weighted loss, and what one step changes."""
    _, slopes = passes.backward(batch, _factors(batch, weights, step), keep=True)
    if step.kind == "adam":
        slopes = {p: dense(slope, p) for p, slope in slopes.items()}
    updates: dict[Tensor, Change] = {p: step.update(g) if isinstance(g, Tensor) else g for p, g in slopes.items()}
    rates = torch.full((len(weights),), step.lr, device=batch.input_ids.device)
    if step.length is not None:
        rates = step.length / products(updates, updates).clamp(min=0).sqrt().clamp(min=1e-30)
    return slopes, {p: scaled(update, -rates) for p, update in updates.items()}


def _factors(batch: Batch, weights: Tensor, step: InnerStep) -> Float[Tensor, "batch seq"]:
    """Returns what every token's NLL counts in the loss of its row's step, as in `InnerStep.loss` of that row alone."""
    counted = batch.predicted()
    weights = weights * counted
    sums = counted.sum(1).to(weights) if step.normalise == "none" else weights.sum(1)
    return weights / torch.where(sums > 0, sums, torch.ones_like(sums))[:, None]


def _checked(model: nn.Module, batch: Batch, later: Batch | Later, weights: Tensor) -> Later:
    """Returns the later tasks, with the column `LATER`, which every part of them needs.

    Raises ValueError where a document has none with an answer, or nothing has weight.
    """
    check_mode(model, "difference")
    checked_weights(batch, weights)
    if isinstance(later, Batch):
        rows = torch.arange(len(later.input_ids))
        later = Later(later, rows, rows)
    for some in (batch, later.batch):
        check_readable(model, some)  # the first call runs the model on a row of its own
    asked = later.batch.predicted().any(1)
    if not torch.equal(later.of.unique(), torch.arange(len(batch.input_ids))) or not bool(asked.all()):
        raise ValueError(
            f"each document needs one later task with an answer, got {len(batch.input_ids)} documents and "
            f"{int(asked.sum())} tasks that have one"
        )
    return replace(later, batch=replace(later.batch, columns={LATER: later.factors()}))


def _parts(batch: Batch) -> Iterator[Int[Tensor, " row"]]:
    """Yields the rows that go through the model together: of similar length, a limited number of tokens."""
    lengths = batch.attention_mask.sum(1).tolist()
    most = TOKENS.get(batch.input_ids.device.type, WIDE)
    yield from (torch.tensor(sorted(some)) for some in buckets(lengths, len(lengths), most))


def _cut(batch: Batch, rows: Int[Tensor, " part"]) -> Batch:
    """Returns some rows of a batch without what is padding in all of them."""
    some = batch.take(rows)
    wide = int(some.attention_mask.any(0).nonzero().max()) + 1
    return Batch(some.input_ids[:, :wide], some.attention_mask[:, :wide], some.labels[:, :wide])
