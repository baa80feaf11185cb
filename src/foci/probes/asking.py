"""Asking a model probes: one `Answer` per probe, whatever its kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.models.forward import answering, pad_id
from foci.probes.cloze import Forced, teacher_forced
from foci.probes.encode import encode, encode_prompts
from foci.probes.probe import Kind, Probe, Role
from foci.probes.qa import generate, token_limits
from foci.probes.scoring import exact_match, f1


@dataclass(frozen=True)
class Answer:
    """What a model said to one probe; the columns of a probe table, in order.

    `predicted`: the model's first choices in place of the answer (cloze, span) or what it generated (qa).
    `accuracy`: share of the answer's tokens that are the model's first choice, given the true words before.
    `correct`: all of them are (cloze, span), or exact match (qa). `exact_match` and `f1`, 0 to 1, only for qa.
    `nll`: mean nats per answer token. `counted`: the probe has a say: always for learn, and for retain where
    the untouched model was correct (`foci.probes.table.counted_by` puts the frozen baseline's word here).
    """

    probe_id: str
    role: Role
    kind: Kind
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


def answer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    probes: Sequence[Probe],
    *,
    batch_size: int = 32,
    max_new_tokens: int | None = None,
    dtype: torch.dtype | None = torch.float32,
    padding_side: Literal["right", "left"] = "right",
) -> list[Answer]:
    """The model's answers, in the order of `probes`; model, random state and settings are left as they were.

    Neither `batch_size` nor `padding_side` (of the teacher-forced pass; generation pads on the left) changes
    an answer. That holds in float32, the default; `dtype=torch.bfloat16` runs under autocast and None under
    the autocast that is open outside, where a first choice can hang on the shape of a batch.
    `max_new_tokens`: tokens generated for a qa probe; None = its longest answer or alias and two more.
    Each answer's `counted` takes this very model as the baseline. Raises `ValueError` for a probe that
    cannot be asked (nothing before the answer, too long, a foreign token) or logits that are NaN.
    """
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    rows = encode(probes, tokenizer)
    questions = [index for index, probe in enumerate(probes) if probe.kind == "qa"]
    asked = [probes[index] for index in questions]
    prompts = encode_prompts(asked, tokenizer)
    limits = token_limits(asked, tokenizer) if max_new_tokens is None else [max_new_tokens] * len(asked)
    with answering(model, dtype):
        forced = teacher_forced(model, rows, pad_id(tokenizer), batch_size, padding_side)
        said = generate(model, tokenizer, prompts, limits, batch_size)
    generated = dict(zip(questions, said, strict=True))
    return [_answer(probe, forced[index], generated.get(index), tokenizer) for index, probe in enumerate(probes)]


def _answer(probe: Probe, forced: Forced, said: str | None, tokenizer: PreTrainedTokenizerBase) -> Answer:
    right = (probe.answer, *probe.aliases)
    em = None if said is None else exact_match(said, right)
    correct = forced.truth == forced.chosen if em is None else em == 1.0
    return Answer(
        probe_id=probe.id,
        role=probe.role,
        kind=probe.kind,
        group=probe.group,
        prompt=probe.prompt,
        answer=probe.answer,
        predicted=tokenizer.decode(forced.chosen).strip() if said is None else said,
        correct=correct,
        accuracy=forced.accuracy,
        exact_match=em,
        f1=None if said is None else f1(said, right),
        nll=forced.mean_nll,
        counted=probe.role == "learn" or correct,
    )
