"""Greedy generation of answers, one batch at a time."""

from collections.abc import Sequence
from itertools import chain

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from foci.corpus.tokens import tokens
from foci.focus import Batch, Row
from foci.models import head_of
from foci.models.decoding import end_tokens, reading
from foci.models.forward import buckets, check_fits, device_of, pad_id, padded
from foci.probes.probe import Probe
from foci.probes.scoring import first_line


def token_limits(probes: Sequence[Probe], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns how many tokens to generate for each probe: two more than its longest answer or alias.

    It is a function of the probe alone, so that its answer does not depend on what else is asked.
    """
    answers = [[" " + answer.strip() for answer in (p.answer, *p.aliases)] for p in probes]
    counts = iter([len(ids) for ids, _ in tokens(list(chain(*answers)), tokenizer, special=False)])
    return [max(next(counts) for _ in group) + 2 for group in answers]


def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Row],
    limits: Sequence[int],
    batch_size: int = 32,
) -> list[str]:
    """Returns greedy continuations of `prompts`, in order: the first line with text, without white space around it.

    A row stops at an end-of-text token, at a newline after some text, or after its `limits` tokens. The
    model's own generation settings are not used, and no random number is drawn. Run it under `answering`.
    """
    check_fits(model, prompts, limits)
    texts: dict[int, str] = {}
    for indices in buckets([len(row) for row in prompts], batch_size):
        batch = padded([prompts[i] for i in indices], pad_id(tokenizer), "left", device_of(model))
        made = _greedy(model, tokenizer, batch, [limits[i] for i in indices])
        texts.update(zip(indices, made, strict=True))
    return [texts[index] for index in range(len(prompts))]


def _greedy(model: nn.Module, tokenizer: PreTrainedTokenizerBase, batch: Batch, limits: Sequence[int]) -> list[str]:
    """Continues a left-padded batch token by token."""
    stop, head = end_tokens(model, tokenizer), head_of(model)
    read = reading(model, batch, max(limits))
    said: list[list[int]] = [[] for _ in limits]
    running = set(range(len(limits)))
    ids: Tensor | None = None
    while running:
        ids = head.logits(read.last_hidden(ids)).float().argmax(-1, keepdim=True)
        for row, token in enumerate(ids[:, 0].tolist()):
            if row not in running:
                continue
            if token not in stop:
                said[row].append(token)
            ended = token in stop or len(said[row]) == limits[row]
            if ended or "\n" in tokenizer.decode(said[row], skip_special_tokens=True).lstrip():
                running.discard(row)
    return [first_line(tokenizer.decode(line, skip_special_tokens=True)) for line in said]
