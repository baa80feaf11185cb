"""Turns written conversations, completions and token ids into tokens with weights, and the text that is learned."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from transformers import PreTrainedTokenizerBase

from foci.corpus.conversations.samples import Completion, Conversation, TokenIds, Unusable
from foci.corpus.conversations.template import BREAK, Messages, Template, Written
from foci.corpus.plain import Encoded, encoded, with_control_words
from foci.corpus.split import Span, tighten
from foci.corpus.tokens import overlap

BYTES = 4
"""Bytes of a character in UTF-8, and so its tokens, at most."""
GAP = "\n\n"
"""Stands between the answers of one row in its text."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of a row: their ids, weights, and characters [start, end) in `text`, which holds what is learned alone."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    text: str
    offsets: tuple[Span, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def learned(self) -> list[int]:
        """Returns the places of the tokens with weight."""
        return [n for n, weight in enumerate(self.weights) if weight]

    def part(self, head: int, start: int, end: int) -> "Tokens":
        """Returns the first `head` tokens, and behind them those from `start` to before `end`."""
        keep = [*range(head), *range(start, end)]
        spans = [self.offsets[n] for n in range(start, end) if self.offsets[n][1] > self.offsets[n][0]]
        a, b = (min(s for s, _ in spans), max(e for _, e in spans)) if spans else (0, 0)
        offsets = [(s - a, e - a) if n >= head and e > s else (0, 0) for n in keep for s, e in [self.offsets[n]]]
        return Tokens(
            tuple(self.ids[n] for n in keep), tuple(self.weights[n] for n in keep), self.text[a:b], tuple(offsets)
        )


def of_written(written: Written, sample: Conversation, template: Template, *, everything: bool) -> Tokens:
    """Returns the tokens of a rendered conversation; `everything` gives weight 1 to all that is no weighed answer."""
    whole, breaks = written.text.replace(BREAK, ""), _places(written.text, BREAK)
    words = _words(written.text, breaks, template)
    made = _encoded(whole, words, template)
    spans = [((a - bisect_left(breaks, a), b - bisect_left(breaks, b)), n) for (a, b), n in written.spans]
    weights = [float(everything)] * len(made.ids)
    if everything:
        spans = [((0, len(whole)), n) for n in range(len(sample.messages))]
    else:
        for token, span in _inside(made.offsets, [place for place, _ in spans]):
            weights[token] = sample.weights[spans[span][1]]
    return _with_text(made.ids, weights, whole, made.offsets, list(_contents(whole, spans, sample, words)))


def length(written: Written, template: Template) -> int:
    """Returns the number of tokens of a rendered conversation."""
    words = _words(written.text, _places(written.text, BREAK), template)
    return len(_encoded(written.text.replace(BREAK, ""), words, template).ids)


def prompt_ids(messages: Messages, template: Template) -> tuple[int, ...]:
    """Returns the tokens of messages with the beginning of an answer; no message becomes a control token.

    Raises Unusable where the template refuses them.
    """
    written = Written(template.render([template.safe(message) for message in messages], prompt=True), ())
    words = _words(written.text, _places(written.text, BREAK), template)
    return _encoded(written.text.replace(BREAK, ""), words, template).ids


def _words(text: str, breaks: Sequence[int], template: Template) -> list[Span]:
    """Returns the control words of a rendering that are whole, as characters of the text without breaks."""
    found = ((match.start(), match.end()) for match in template.pattern.finditer(text))
    return [(start - bisect_left(breaks, start), end - bisect_left(breaks, end)) for start, end in found]


def _encoded(text: str, words: Sequence[Span], template: Template) -> Encoded:
    try:
        return with_control_words(text, words, template.tokenizer)
    except ValueError as error:
        raise Unusable(str(error)) from None


def _inside(places: Sequence[Span], spans: Sequence[Span]) -> Iterator[tuple[int, int]]:
    """Yields the number of each token that shares a character with a span, and the span's; both ascending."""
    first = 0
    for number, span in enumerate(spans):
        while first < len(places) and places[first][1] <= span[0]:
            first += 1
        for token in range(first, len(places)):
            if places[token][0] >= span[1]:
                break
            if overlap(places[token], span):
                yield token, number


def _contents(
    whole: str, regions: Sequence[tuple[Span, int]], sample: Conversation, words: Sequence[Span]
) -> Iterator[Span]:
    """Yields the characters of each message's content in its region; what stands there where the template changed it.

    `words` are the control words.
    """
    reached = 0
    for (start, end), number in regions:
        content = str(sample.messages[number].get("content", "")).strip()
        found = whole.find(content, max(start, reached), end) if content else -1
        if found >= 0:
            reached = found + len(content)
            yield found, reached
        elif end - start < len(whole):
            inside = [place for place in words if start <= place[0] and place[1] <= end]
            edges = [start, *(edge for place in inside for edge in place), end]
            tight = (tighten(whole, (a, b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)
            yield from (part for part in tight if part)


def _with_text(
    ids: Sequence[int], weights: Sequence[float], whole: str, places: Sequence[Span], texts: Sequence[Span]
) -> Tokens:
    """Returns tokens whose text is the parts `texts` of `whole`, ascending; tokens outside of them stand for none."""
    offsets = [(0, 0)] * len(ids)
    bases = list(accumulate((end - start + len(GAP) for start, end in texts), initial=0))
    for n, number in _inside(places, texts):
        (a, b), (start, end), base = places[n], texts[number], bases[number]
        offsets[n] = (max(a, start) - start + base, min(b, end) - start + base)
    return Tokens(tuple(ids), tuple(weights), GAP.join(whole[a:b] for a, b in texts), tuple(offsets))


def of_completion(
    sample: Completion, tokenizer: PreTrainedTokenizerBase, eos: int | None, *, everything: bool
) -> Tokens:
    """Returns the tokens of a prompt and its completion, read as one plain text, with the EOS token behind it."""
    (made,) = encoded([sample.words()], tokenizer)
    span = (0 if everything else len(sample.prompt), len(sample.words()))
    ids, places = list(made.ids), list(made.offsets)
    weights = [float(everything or overlap(place, span)) for place in places]
    if eos is not None and ids[-1:] != [eos]:
        ids, places, weights = [*ids, eos], [*places, (0, 0)], [*weights, 1.0]
    elif made.tail:
        weights[-made.tail :] = [1.0] * made.tail  # the tokenizer's own end of a text
    return _with_text(ids, weights, sample.words(), places, [span])


def of_ids(sample: TokenIds, tokenizer: PreTrainedTokenizerBase, *, everything: bool) -> Tokens:
    """Returns given ids with their weights, and the text of those that are learned."""
    size = len(tokenizer)
    if wrong := [token for token in sample.ids if not 0 <= token < size]:
        raise Unusable(f"'input_ids' has {wrong[0]}, and this tokenizer has ids from 0 to {size - 1}")
    weights = [1.0] * len(sample.ids) if everything else list(sample.weights)
    parts, offsets, at = list[str](), list[Span](), 0
    special = set(tokenizer.all_special_ids)
    for start, end, piece in _pieces(sample.ids, tokenizer):
        learned = any(weights[n] and sample.ids[n] not in special for n in range(start, end))
        said = piece if learned else ""
        parts.append(said)
        offsets += [(at, at + len(said)) if said else (0, 0)] * (end - start)
        at += len(said)
    return Tokens(sample.ids, tuple(weights), "".join(parts), tuple(offsets))


def _pieces(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, int, str]]:
    """Yields tokens [start, end) with the text that decoding adds: one by one, or all tokens of one character."""

    def added(start: int, end: int) -> str:
        begun = max(0, start - BYTES)
        before: Any = tokenizer.decode(list(ids[begun:start]), clean_up_tokenization_spaces=False)
        both: Any = tokenizer.decode(list(ids[begun:end]), clean_up_tokenization_spaces=False)
        alone: Any = both[len(before) :] if both.startswith(before) else tokenizer.decode(list(ids[start:end]))
        return str(alone)

    start = 0
    while start < len(ids):
        longest = min(len(ids), start + BYTES)
        ends = (end for end in range(start + 1, longest + 1) if not added(start, end).endswith("\ufffd"))
        end = next(ends, start + 1)  # bytes that are no character stay alone
        yield start, end, added(start, end)
        start = end


def _places(text: str, letter: str) -> list[int]:
    return [n for n, one in enumerate(text) if one == letter]
