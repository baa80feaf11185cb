"""Turns probes into rows of tokens, with the tokens of the answer marked."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from foci.corpus.tokens import tokens
from foci.focus import Row
from foci.probes import scoring
from foci.probes.probe import Probe


def encode(probes: Sequence[Probe], tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """Returns one row per probe, in order, with a column `answer` that is 1 on the answer's tokens.

    These are the tokens whose characters overlap the answer's in something that is not white space. A row
    ends at its last answer token: nothing after it can change a causal model's answer. The tokenizer adds
    what it always adds (a first token, say). Raises `ValueError` where no token stands before the answer.
    """
    rows = []
    for probe, (ids, offsets) in zip(probes, tokens([p.text for p in probes], tokenizer), strict=True):
        marks = scoring.marks(probe.text, probe.span, offsets)
        if not any(marks):
            raise ValueError(
                f"probe {probe.id!r}: the tokenizer gives no token for the answer {probe.answer!r}; "
                "choose an answer that its vocabulary can spell"
            )
        if marks[0]:
            raise ValueError(
                f"probe {probe.id!r}: the answer {probe.answer!r} begins at the first token of {probe.text[:60]!r}, "
                "and a first token is never predicted; put words before the answer"
            )
        length = len(marks) - marks[::-1].index(True)
        rows.append(
            Row(
                row_id=probe.id,
                input_ids=ids[:length],
                text=probe.text,
                offsets=offsets[:length],
                columns={"answer": tuple(map(float, marks[:length]))},
            )
        )
    return rows


def encode_prompts(probes: Sequence[Probe], tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """Returns the prompts alone, for generation; spaces and tabs at their end are dropped.

    (A space there would be a token of its own, which models have hardly seen before a word.) Tokens that the
    tokenizer adds at the end of a text, such as an end-of-text token, are dropped too.
    """
    texts = [probe.prompt.rstrip(" \t") for probe in probes]
    rows = []
    for probe, text, (ids, offsets) in zip(probes, texts, tokens(texts, tokenizer), strict=True):
        length = len(ids)
        while length and offsets[length - 1] == (0, 0) and text:
            length -= 1
        if not length:
            raise ValueError(f"probe {probe.id!r}: a question needs a prompt, got {probe.prompt!r}; write one")
        rows.append(Row(row_id=probe.id, input_ids=ids[:length], text=text, offsets=offsets[:length]))
    return rows
