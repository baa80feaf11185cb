"""The questions of a run: probes, and the texts whose bits per byte are measured."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.corpus.sentences import one_line, sentences
from foci.focus import Row
from foci.models.forward import answering, buckets, device_of, pad_id, padded
from foci.models.losses import token_nll
from foci.models.sharding import is_sharded, without_gradients
from foci.probes import Answer, Probe, answer, binding, bits_per_byte, summarise
from foci.probes.making.wording import FRONT
from foci.rows import lengths_of
from foci.seeds import generator
from foci.system import processes

UNASKED = (
    "what the model learns is measured by how well it predicts your text; probes.learn=FILE.jsonl asks questions too"
)
"""Says how a run without probes to learn is measured, and how to ask questions."""

CORPUS_TOKENS = 2048
"""Tokens of the corpus, at most, on which bits per byte are measured."""


@dataclass(frozen=True)
class Questions:
    """The questions of a run, the same before, during and after training."""

    probes: tuple[Probe, ...]
    text: str | None
    rows: tuple[Row, ...]
    batch_size: int = 32
    held_out_rows: Sequence[Row] = ()
    earlier: tuple[Probe, ...] = ()
    """Probes to learn of earlier batches of pages, in a run that goes on; `ask` leaves them out."""

    def prompts(self) -> frozenset[str]:
        """Returns the prompts that are asked; no method's offline stage may learn from them.

        Prompts that were cut from the corpus are not among them: every method reads them there.
        """
        return frozenset(prompt for probe in self._all() if (prompt := probe.prompt.strip()) and probe.made != FRONT)

    def held_out(self) -> frozenset[str]:
        """Returns the sentences, each on one line, about which held-out probes ask; no row may be made of them."""
        held = [probe.evidence for probe in self._all() if probe.held_out]
        return frozenset(one_line(text[a:b]) for text in held for a, b in sentences(text) if text[a:b].strip())

    def _all(self) -> tuple[Probe, ...]:
        return (*self.probes, *self.earlier)

    def ask(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Answer], dict[str, float | None]]:
        """Returns the answers to all probes, and further measures by name, None where not asked.

        These are bits per byte of the text to retain and of the corpus, and `binding` of the probes to learn; where
        rows are held out, also their bits per byte. Processes share the probes, and every one must call it.
        """
        return answered(model, tokenizer, self.probes, self.batch_size), self.measures(model, tokenizer)

    def measures(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> dict[str, float | None]:
        """Returns bits per byte of the text to retain and of the corpus, and `binding`; None where not asked.

        Processes share the measures, and every one must call it; of a sharded model each takes all of them.
        """
        text, held = self.text, self.held_out_rows
        learn = [probe for probe in self.probes if is_to_learn(probe)]
        wanted: dict[str, Callable[[], float | None]] = {
            "bits_per_byte": lambda: bits_per_byte(model, tokenizer, text) if text else None,
            "corpus_bits_per_byte": lambda: rows_bits_per_byte(model, tokenizer, self.rows) if self.rows else None,
            "binding": lambda: binding(model, tokenizer, learn),
        }
        if held:
            wanted["held_out_bits_per_byte"] = lambda: rows_bits_per_byte(model, tokenizer, held)
        with without_gradients(model):
            found = processes.shared_out(
                lambda names: [wanted[name]() for name in names], list(wanted), alike=is_sharded(model)
            )
        return dict(zip(wanted, found, strict=True))


def answered(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, probes: Sequence[Probe], batch_size: int
) -> list[Answer]:
    """Returns the answers to all probes, in their order. Every process must call it.

    Processes share the probes. Of a sharded model each asks all of them, since none can read a row alone.
    """
    with without_gradients(model):
        return processes.shared_out(
            lambda some: answer(model, tokenizer, some, batch_size=batch_size), probes, alike=is_sharded(model)
        )


def is_to_learn(probe: Probe) -> bool:
    """Returns whether a probe is reported, and to learn."""
    return probe.role == "learn" and not probe.held_out


def without_held_out(answers: Sequence[Answer]) -> list[Answer]:
    """Returns the answers that count as learned and retained: all but the held-out ones."""
    return [answer for answer in answers if not answer.held_out]


def held_out_learned(before: Sequence[Answer], after: Sequence[Answer]) -> dict[str, object] | None:
    """Returns what was learned of the held-out probes to learn, and their number; None where there are none."""
    some = [[a for a in answers if a.held_out and a.role == "learn"] for answers in (before, after)]
    if not some[0]:
        return None
    found = summarise(*some)
    return {name: found[name] for name in ("learned_whole", "learned", "learn_probes")}


def random_rows(rows: Sequence[Row], seed: int, tokens: int = CORPUS_TOKENS) -> tuple[Row, ...]:
    """Returns random rows with at most `tokens` tokens together, but at least one row."""
    kept: list[Row] = []
    for index in generator(seed, "corpus text").permutation(len(rows)):
        row = rows[index]
        if kept and len(row) > tokens:
            break
        kept.append(row)
        tokens -= len(row)
    return tuple(kept)


def rows_bits_per_byte(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> float:
    """Returns bits per UTF-8 byte of the rows' text, without each row's first token. Lower is better."""
    nats, size = 0.0, 0
    with answering(model, torch.float32):
        for bucket in buckets(lengths_of(rows).tolist(), 32):
            some = [rows[i] for i in bucket]
            batch = padded(some, pad_id(tokenizer), "right", device_of(model))
            text = torch.zeros_like(batch.input_ids, dtype=torch.bool)
            for n, row in enumerate(some):
                spans = torch.tensor(row.offsets)
                text[n, : len(row)] = (spans[:, 1] > spans[:, 0]).to(text.device)
                size += len(row.text.encode()) - len(row.text[: row.offsets[0][1]].encode())
            nats += float(token_nll(model, batch, text).double().sum())
    return nats / math.log(2) / max(size, 1)
