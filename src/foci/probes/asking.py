"""Asks a model probes: one `Answer` per probe, whatever its kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.models.forward import answering, pad_id
from foci.probes.encode import encode
from foci.probes.forced import Forced, teacher_forced
from foci.probes.probe import Probe, Role, kind_of


@dataclass(frozen=True)
class Answer:
    """A model's answer to one probe; the fields are the columns of a probe table, in order.

    `predicted`: the model's first choices in place of the answer (cloze, span), or its generated answer (qa).
    `accuracy`: share of the answer's tokens that are the model's first choice, given the true words before.
    `correct`: all of them are (cloze, span), or the generated answer is an exact match (qa): the whole answer is right.
    `exact_match` and `f1`, 0 to 1, for generated answers only, by the rule of `foci.probes.scoring`; by SQuAD's rule
    `squad_exact_match` and `squad_f1`. `nll`: mean nats per answer token. `counted`: the probe counts in `summarise`:
    always to learn, and to retain where the untouched model was correct (`foci.probes.table.counted_by`).
    `held_out`: as the probe's, so that it has no part in learned and retained.
    """

    probe_id: str
    role: Role
    kind: str
    group: str
    prompt: str
    answer: str
    predicted: str
    correct: bool
    accuracy: float
    exact_match: float | None
    f1: float | None
    nll: float
    counted: bool
    held_out: bool = False
    squad_exact_match: float | None = None
    squad_f1: float | None = None


def answer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    probes: Sequence[Probe],
    *,
    batch_size: int = 32,
    max_new_tokens: int | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> list[Answer]:
    """Returns the model's answers, in the order of `probes`; model, random state and settings are not changed.

    `batch_size` does not change an answer. That holds in float32, the default; `dtype=torch.bfloat16` runs under
    autocast and None under the autocast that is open outside, where a first choice can hang on the shape of a batch.
    `max_new_tokens`: tokens generated for an answer; None = two more than the longest answer or alias of the probe.
    Each answer's `counted` takes this very model as the baseline. Raises `ValueError` for a probe that
    cannot be asked (nothing before the answer, too long, a foreign token) or logits that are NaN.
    """
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    rows = encode(probes, tokenizer)
    said: dict[int, str | None] = {}
    with answering(model, dtype):
        forced = teacher_forced(model, rows, pad_id(tokenizer), batch_size)
        for name in dict.fromkeys(probe.kind for probe in probes):
            where = [index for index, probe in enumerate(probes) if probe.kind == name]
            some = [probes[index] for index in where]
            words = kind_of(name).ask(model, tokenizer, some, batch_size, max_new_tokens)
            said |= zip(where, words, strict=True)
    return [_answer(probe, forced[index], said[index], tokenizer) for index, probe in enumerate(probes)]


def _answer(probe: Probe, forced: Forced, said: str | None, tokenizer: PreTrainedTokenizerBase) -> Answer:
    verdict = kind_of(probe.kind).judge(probe, forced, said, tokenizer)
    return Answer(
        probe_id=probe.id,
        role=probe.role,
        kind=probe.kind,
        group=probe.group,
        prompt=probe.prompt,
        answer=probe.answer,
        predicted=verdict.predicted,
        correct=verdict.correct,
        accuracy=forced.accuracy,
        exact_match=verdict.exact_match,
        f1=verdict.f1,
        nll=forced.mean_nll,
        counted=probe.role == "learn" or verdict.correct,
        held_out=probe.held_out,
        squad_exact_match=verdict.squad_exact_match,
        squad_f1=verdict.squad_f1,
    )
