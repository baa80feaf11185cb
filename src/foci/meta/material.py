"""The material of a meta-training: the learner, the pairs, and the batches that its objectives ask for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from foci import models
from foci.focus import IGNORED, Batch, Row
from foci.gradients.by_row import Later, factors
from foci.gradients.influence import LATER
from foci.meta.config import MetaRun
from foci.meta.locality import Locality, locality
from foci.methods.train_attention.pairs import Pair, read_pairs
from foci.methods.train_attention.pairs import documents as documents_of
from foci.methods.train_attention.pairs import tasks as tasks_of
from foci.models.forward import device_of, pad_id, padded
from foci.probes import read_probes
from foci.probes.encode import encode
from foci.seeds import drawn, generator


@dataclass(frozen=True)
class Material:
    """The learner, pairs to learn from and pairs to validate on (of other documents).

    `known` are facts that the learner should keep, `strength` how much their loss counts, `locality` the term on
    unrelated text; all three are optional. The influence of `steps_at_a_time` documents, 16 at
    least, is computed and kept together (`by_row`).
    """

    learner: nn.Module
    tokenizer: PreTrainedTokenizerFast
    fingerprint: str
    train: Sequence[Pair]
    held_out: Sequence[Pair]
    known: Sequence[Row] = ()
    strength: float = 0.0
    known_at_a_time: int = 4
    locality: Locality | None = None
    steps_at_a_time: int = 1

    def documents(self, pairs: Sequence[Pair]) -> Batch:
        """Returns the pairs' documents on the learner's device."""
        return documents_of(pairs, pad_id(self.tokenizer), device_of(self.learner))

    def later(self, pairs: Sequence[Pair], *key: object) -> Batch:
        """Returns the pairs' tasks and known facts drawn by `key`, as loss of tasks + strength * loss of facts."""
        asked = tasks_of(pairs, pad_id(self.tokenizer), device_of(self.learner))
        if not self.known:
            return asked
        order = generator("known", *key).permutation(len(self.known))[: self.known_at_a_time]
        facts = [self.known[i] for i in order]
        rows = [pair.task for pair in pairs] + facts
        batch = padded(rows, pad_id(self.tokenizer), "right", device_of(self.learner))
        answer = batch.columns["answer"]
        shares = torch.cat(
            [torch.full((len(pairs),), 1 / len(pairs)), torch.full((len(facts),), self.strength / len(facts))]
        )
        counts = answer * (shares.to(answer)[:, None] / answer.sum(1, keepdim=True))
        return replace(batch, labels=batch.labels.masked_fill(answer == 0, IGNORED), columns={LATER: counts})

    def unique(self, pairs: Sequence[Pair]) -> tuple[Batch, list[int]]:
        """Returns the pairs' documents, each once, and the row of each pair's document."""
        rows: dict[str, int] = {}
        of = [rows.setdefault(pair.document.text, len(rows)) for pair in pairs]
        return self.documents([pairs[of.index(n)] for n in range(len(rows))]), of

    def later_of(self, asked: Sequence[tuple[Pair, Sequence[object]]], to: Sequence[int], of: Sequence[int]) -> Later:
        """Returns the later tasks of pairs, each with known facts drawn by its key; pair n is of direction `to[n]`.

        A direction's loss is the mean over its pairs. `of` has the document's row of every direction.
        """
        made = [self.later([pair], *key) for pair, key in asked]
        counts = torch.bincount(torch.tensor(to))
        wide = max(batch.input_ids.shape[1] for batch in made)

        def joined(parts: Sequence[Tensor], fill: int) -> Tensor:
            return torch.cat([F.pad(part, (0, wide - part.shape[1]), value=fill) for part in parts])

        counted = joined([factors(batch) / counts[n] for batch, n in zip(made, to, strict=True)], 0)
        rows = [n for batch, n in zip(made, to, strict=True) for _ in range(len(batch.input_ids))]
        batch = Batch(
            joined([batch.input_ids for batch in made], pad_id(self.tokenizer)),
            joined([batch.attention_mask for batch in made], 0),
            joined([batch.labels for batch in made], IGNORED),
            columns={LATER: counted},
        )
        return Later(batch, torch.tensor(rows), torch.tensor(of))


def material(run: MetaRun) -> Material:
    """Loads the learner and the pairs. Raises ValueError where too few pairs are left to learn from."""
    loaded = models.load(run.model.name, dtype="float32", trust_remote_code=run.model.trust_remote_code)
    train, held_out = split(read_pairs(run.pairs.path, loaded.tokenizer, max_length=run.pairs.max_length), run)
    known: list[Row] = []
    if run.retain is not None:
        known = encode(read_probes(Path(run.retain.path), "retain"), loaded.tokenizer)
    learner: nn.Module = loaded.model
    if run.learner is not None:
        torch.manual_seed(run.seed)
        learner = models.add_adapter(loaded.model, run.learner)
    strength, at_a_time = (run.retain.strength, run.retain.batch_size) if run.retain else (0.0, 0)
    at_large = locality(run.locality, learner, loaded.tokenizer)
    given = (tuple(known), strength, at_a_time, at_large, run.step.batch_size)
    return Material(learner, loaded.tokenizer, loaded.fingerprint, train, held_out, *given)


def split(pairs: Sequence[Pair], run: MetaRun) -> tuple[list[Pair], list[Pair]]:
    """Draws the pairs to learn from and the held-out pairs by the seed; no document is on both sides.

    With `pairs.held_out_kinds` the held-out pairs are of these kinds, and none of the pairs to learn from is. Where the
    questions of a document are joined (`pairs.several`), documents are drawn, each with all its pairs.
    """
    whole = run.pairs.several != "each"
    order = drawn(pairs, run.seed, lambda pair: pair.document.text if whole else pair.id)
    kinds = set(run.pairs.held_out_kinds)
    if unknown := sorted(kinds - {pair.kind for pair in pairs}):
        raise ValueError(
            f"pairs.held_out_kinds names {', '.join(unknown)}, of which there is no pair; got the kinds "
            f"{', '.join(sorted({pair.kind or '(none)' for pair in pairs}))}"
        )
    order = [*(p for p in order if p.kind in kinds)][: run.pairs.held_out] + [p for p in order if p.kind not in kinds]
    count = sum(pair.kind in kinds for pair in order) if kinds else run.pairs.held_out
    if run.pairs.limit is not None:
        order = order[: run.pairs.limit + count]
    held = order[:count]
    texts = {pair.document.text for pair in held}
    train = [pair for pair in order[count:] if pair.document.text not in texts]
    if len(train) < run.train.batch_size:
        raise ValueError(
            f"{len(train)} pairs are left to learn from after {len(held)} were held out, expected at least a batch of "
            f"{run.train.batch_size}; give more pairs, or lower pairs.held_out or train.batch_size"
        )
    return train, held


def answers_in_top(weights: Tensor, batch: Batch, share: float = 0.05) -> Tensor:
    """Returns 1 for each row whose marked answer has a token in the `share` (rounded up) of largest weight, else 0."""
    found = []
    for line, counted, answer in zip(weights, batch.predicted(), batch.columns["answer"], strict=True):
        if bool((answer * counted).any()):
            count = math.ceil(int(counted.sum()) * share)
            top = line.masked_fill(~counted, -1.0).topk(count).indices
            found.append(bool(answer[top].any()))
    return torch.tensor(found, dtype=torch.float32)
