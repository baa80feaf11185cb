"""The losses of a weigher: the error of the influence it predicts, or the later loss after a step by its weights."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from foci.config.values import Several
from foci.corpus import read_rows, write_rows
from foci.focus import Batch, Row
from foci.gradients import by_row
from foci.gradients.influence import Later, later_loss, stepped, targets, token_influence
from foci.gradients.inner_step import InnerStep
from foci.meta.material import Material
from foci.methods.train_attention.pairs import Pair
from foci.methods.train_attention.weigher import Weigher
from foci.system import processes
from foci.system.cache import kept
from foci.system.words import counted

NUDGE = InnerStep(length=0.3)
"""The step at which influence is computed once: plain gradient descent of L2 length 0.3."""
PAIRS_A_FILE = 16
SIDE_BY_SIDE = 4
"""Documents that the weigher reads at a time, at most."""


class Objective(ABC):
    """A loss of the weigher on pairs. `bias` is its head's first bias; None starts with weights near 1."""

    bias: float | None = None

    @abstractmethod
    def backward(self, weigher: Weigher, pairs: Sequence[Pair], key: int) -> float | None:
        """Adds the gradient of the loss, a mean over `pairs`, to the weigher's gradient. `key` seeds all that is drawn.

        Of several processes each adds the part of its pairs: the gradient is the sum of theirs. Returns the loss in
        nats; None where the loss would cost a pass of its own.
        """

    @abstractmethod
    def validate(self, weigher: Weigher, pairs: Sequence[Pair]) -> float:
        """Returns the loss on held-out pairs; lower is better."""

    def examples(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Returns the pairs that an epoch goes through; by default all."""
        return list(pairs)

    def targets_of(self, pair: Pair) -> list[float] | None:
        """Returns the target weights of the pair's document; None where the objective has no targets."""
        return None

    def warmed(self, batch: Batch) -> AbstractContextManager[object]:
        """Moves the learner, inside the `with`, to where the judged steps begin; by default it stays where it is."""
        return nullcontext()


class Amortised(Objective):
    """Predicts each token's target, computed once at weight 1, by binary cross-entropy, the mean over tokens.

    A token's target is a share of its document's largest influence: on one question ("each"), on the mean loss of all
    of the document's questions ("mean"), or on the question for which that share is largest ("max"). With the last two
    an epoch has each document once (`several`).
    """

    def __init__(
        self,
        material: Material,
        folder: Path,
        step: InnerStep,
        tell: Callable[[str], None],
        seed: int = 0,
        several: Several = "each",
    ) -> None:
        self.material, self.step, self.seed, self.several = material, step, seed, several
        pairs, size = [*material.held_out, *material.train], max(PAIRS_A_FILE, material.steps_at_a_time)
        if material.steps_at_a_time > 1:
            pairs.sort(key=lambda pair: len(pair.document))  # little padding
        joined = several == "mean"  # the influence on a mean is one direction for all questions of a document
        groups = _by_document(pairs) if joined else [[pair] for pair in pairs]
        parts = [groups[start : start + size] for start in range(0, len(groups), size)]
        names = [f"influence-{'documents-' * joined}{number:05d}.parquet" for number in range(len(parts))]
        self.found: dict[str, tuple[float, ...]] = {}
        if processes.size() > 1:
            for number in range(processes.number(), len(parts), processes.size()):
                self._kept(folder / names[number], parts[number])
                done = min(len(parts), number + processes.size())
                tell(f"influence of about {done} of {counted(len(parts), 'part')}, by {processes.size()} processes")
            processes.wait()
        for name, part in zip(names, parts, strict=True):
            self.found |= {row.row_id: tuple(row.columns["alignment"]) for row in self._kept(folder / name, part)}
            if processes.size() == 1:
                tell(f"influence of {len(self.found)} of {counted(len(pairs), 'pair')}")
        self.wanted = self._targets(pairs)
        batch, wanted = self._wanted(material.train)
        mean = float((wanted * batch.predicted()).sum() / batch.predicted().sum())
        self.bias = float(torch.logit(torch.tensor(min(max(mean, 1e-3), 1 - 1e-3))))

    def backward(self, weigher: Weigher, pairs: Sequence[Pair], key: int) -> float:
        whole = 0.0
        for loss in self._losses(weigher, pairs):
            loss.backward()
            whole += float(loss.detach())
        return sum(processes.gathered(whole))

    def validate(self, weigher: Weigher, pairs: Sequence[Pair]) -> float:
        with torch.no_grad():
            return sum(processes.gathered(sum(map(float, self._losses(weigher, self.examples(pairs))))))

    def examples(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Returns the first pair of each document where its questions are joined, else all."""
        if self.several == "each":
            return list(pairs)
        return list({pair.document.text: pair for pair in reversed(pairs)}.values())[::-1]

    def targets_of(self, pair: Pair) -> list[float]:
        found: list[float] = self._wanted([pair])[1][0].tolist()
        return found

    def _losses(self, weigher: Weigher, pairs: Sequence[Pair]) -> Iterator[Tensor]:
        """Yields parts of the mean loss over the tokens of all pairs, whose sum it is; of this process' pairs alone.

        A part has documents of like length, so that little padding is read.
        """
        total = self.material.documents(pairs).predicted().sum()
        own = sorted(pairs[processes.number() :: processes.size()], key=lambda pair: len(pair.document))
        for start in range(0, len(own), SIDE_BY_SIDE):
            batch, wanted = self._wanted(own[start : start + SIDE_BY_SIDE])
            tokens = batch.predicted()
            found = weigher.logits(batch).float()[tokens]
            yield F.binary_cross_entropy_with_logits(found, wanted[tokens], reduction="sum") / total

    def _kept(self, path: Path, groups: Sequence[Sequence[Pair]]) -> Sequence[Row]:
        """Returns what `_scored` does, read from `path` where it was computed before."""
        key: dict[str, str | int | float] = {
            "model": self.material.fingerprint,
            "step": repr(self.step),
            "retain": self.material.strength,
            "seed": self.seed,
            "pairs": " ".join(pair.id for group in groups for pair in group),
            "known": " ".join(row.row_id for row in self.material.known),
        }
        return kept(path, key, lambda: self._scored(groups), write_rows, read_rows)

    def _wanted(self, pairs: Sequence[Pair]) -> tuple[Batch, Tensor]:
        batch = self.material.documents(pairs)
        found = torch.zeros(batch.input_ids.shape)
        for line, pair in zip(found, pairs, strict=True):
            line[: len(pair.document)] = self.wanted[pair.id]
        return batch, found.to(batch.input_ids.device)

    def _targets(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """Returns the targets of each pair's document, by pair."""
        of_document = defaultdict[str, list[Tensor]](list)
        for pair in pairs:
            name = pair.id if self.several == "each" else pair.document.text
            of_document[name].append(torch.tensor(self.found[pair.id]))
        joined = {}
        for name, some in of_document.items():
            alignments = torch.stack(some)
            mean = alignments.mean(0, keepdim=True)
            joined[name] = targets(alignments).amax(0) if self.several == "max" else targets(mean)[0]
        return {pair.id: joined[pair.id if self.several == "each" else pair.document.text] for pair in pairs}

    def _scored(self, groups: Sequence[Sequence[Pair]]) -> list[Row]:
        """Returns the documents' rows with the column `alignment`: the influence on the mean loss of each group."""
        batch, of = self.material.unique([group[0] for group in groups])
        to = [n for n, group in enumerate(groups) for _ in group]
        pairs = [pair for group in groups for pair in group]
        later = self.material.later_of([(pair, (self.seed, pair.id)) for pair in pairs], to, of)
        found = by_row.alignments(self.material.learner, batch, later, batch.predicted().float(), self.step).tolist()
        return [
            Row(pair.id, pair.document.input_ids, columns={"alignment": tuple(found[n][: len(pair.document)])})
            for n, pair in zip(to, pairs, strict=True)
        ]


def _by_document(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Returns the pairs of each document, in the order of its first."""
    found = defaultdict[str, list[Pair]](list)
    for pair in pairs:
        found[pair.document.text].append(pair)
    return list(found.values())


class Loop(Objective):
    """The task's loss after the learner's step under the weigher's weights (arXiv 2407.16920, algorithm 1).

    With `material.locality`, plus strength * the divergence on unrelated text (arXiv 2305.15076).
    """

    def __init__(self, material: Material, step: InnerStep, *, warm: bool = False, seed: int = 0) -> None:
        if step.length is not None:
            raise ValueError(
                f"the loop's step has a rate (its influence is in proportion to it), got {step}; set step.lr"
            )
        self.material, self.step, self.warm, self.seed = material, step, warm, seed

    def backward(self, weigher: Weigher, pairs: Sequence[Pair], key: int) -> None:
        batch = self.material.documents(pairs)
        later = self._later(pairs, key)
        with torch.no_grad():
            weights = weigher(batch)
        step = {"lr": self.step.lr, "inner": self.step.kind, "normalise": self.step.normalise}
        with self.warmed(batch):
            influence = token_influence(self.material.learner, batch, later, weights, **step)  # type: ignore[arg-type]
        weigher(batch).backward(influence.to(weights.dtype))  # once more: its activations and the learner's never meet

    def validate(self, weigher: Weigher, pairs: Sequence[Pair]) -> float:
        batch = self.material.documents(pairs)
        with torch.no_grad():
            weights = weigher(batch) * batch.predicted()
        with self.warmed(batch):
            found = after(self.material, pairs, weights, self.step, seed=self.seed)
        at_large = self.material.locality
        return found.nll if at_large is None else found.nll + at_large.strength * found.divergence

    def _later(self, pairs: Sequence[Pair], key: int) -> Later:
        """Returns the loss of tasks and known facts, plus the divergence from the learner, which must be unmoved."""
        asked, at_large = self.material.later(pairs, self.seed, key), self.material.locality
        if at_large is None:
            return asked
        text, strength = at_large.drawn(self.material.learner, self.seed, key), at_large.strength
        return lambda model: later_loss(model, asked) + strength * text.divergence(model)

    def warmed(self, batch: Batch) -> AbstractContextManager[object]:
        """Takes one plain step without a gradient through it, as the published code does."""
        if not self.warm:
            return nullcontext()
        return stepped(self.material.learner, batch, batch.predicted().float(), self.step)


@dataclass(frozen=True)
class After:
    """After a step, in nats: the later loss, and the divergence on held-out unrelated text (0 without locality)."""

    nll: float
    divergence: float = 0.0


def after(
    material: Material, pairs: Sequence[Pair], weights: Float[Tensor, "batch seq"], step: InnerStep, *, seed: int = 0
) -> After:
    """Computes means over pairs after one step on each pair's document under its row of `weights`."""
    if material.locality is None:
        batch, to = material.documents(pairs), list(range(len(pairs)))
        later = material.later_of([(pair, (seed, "validation", pair.id)) for pair in pairs], to, to)
        return After(float(by_row.later_losses(material.learner, batch, later, weights, step).mean()))
    nll, divergence = 0.0, 0.0
    for pair, line in zip(pairs, weights, strict=True):
        batch = material.documents([pair])
        own = line[None, : batch.input_ids.shape[1]]
        with stepped(material.learner, batch, own, step), torch.no_grad():
            nll += float(later_loss(material.learner, material.later([pair], seed, "validation", pair.id)))
            divergence += float(material.locality.held_out.divergence(material.learner))
    return After(nll / len(pairs), divergence / len(pairs))
