"""Makes rows of conversations, completions and token ids; cuts conversations that are too long between turns."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from foci.corpus.conversations.encode import Tokens, length, of_completion, of_ids, of_written
from foci.corpus.conversations.samples import Completion, Conversation, TokenIds, Unusable
from foci.corpus.conversations.template import Template, template_of
from foci.corpus.documents import BadLine, LeftOut, Sample, excerpt, where
from foci.corpus.reading import Loss
from foci.corpus.seen import Seen
from foci.corpus.split import Room, cuts
from foci.corpus.stored import RowWriter
from foci.corpus.tokens import leading, row_id, tokenizer_fingerprint
from foci.focus import LOSS_WEIGHT, UNWEIGHTED, Row

LEAST = 16
"""Tokens of an answer that a row has room for, at least: a row that holds hardly more than its question is no use."""


@dataclass
class MadeOfSamples:
    """Counts of samples that gave rows, and what was left out.

    `used` counts samples that gave a row, `duplicates` those whose rows are all there already, `split` those that were
    cut into several (`split_rows`), `again` those that the template writes in several rows, `repeated` rows that
    another one equals.
    """

    bad: list[BadLine] = field(default_factory=list)
    used: int = 0
    duplicates: int = 0
    split: int = 0
    split_rows: int = 0
    again: int = 0
    repeated: int = 0
    by_file: Counter[str] = field(default_factory=Counter)


def rows_of_samples(
    writer: RowWriter,
    samples: Iterable[Sample],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    loss: Loss = "answers",
    add_eos: bool = True,
) -> MadeOfSamples:
    """Adds rows of at most `max_length` tokens to those of a writer; their ids are unique.

    What is not learned has 1 in the column `UNWEIGHTED`.
    `loss` says what is learned: the answers, or all tokens. Raises ValueError where there is a conversation and the
    model has no chat template.
    """
    made, maker = MadeOfSamples(), _Maker(tokenizer, max_length, loss == "all", add_eos)
    prints, seen = "", Seen()
    for sample in samples:
        prints = prints or tokenizer_fingerprint(tokenizer)
        try:
            parts = maker.parts(sample)
        except Unusable as error:
            made.bad.append(BadLine(sample.file, sample.line, str(error), excerpt(sample.words())))
            continue
        names = [row_id(f"{tokens.ids} {tokens.weights}", prints) for tokens in parts.tokens]
        firsts = [is_first for _, is_first in seen.numbered([int(name, 16) for name in names])]
        new = any(firsts)
        made.used += new
        made.duplicates += not new
        made.split += parts.cut
        made.split_rows += len(parts.tokens) * parts.cut
        made.again += parts.again
        made.bad += [parts.lost(reason, sample) for reason in parts.missing]
        for name, tokens, is_first in zip(names, parts.tokens, firsts, strict=True):
            made.repeated += not is_first
            made.by_file[sample.file] += is_first
            if is_first:
                writer.add(_row(name, tokens, where(sample.file, sample.line), writer))
    return made


def _row(name: str, tokens: Tokens, source: str, writer: RowWriter) -> Row:
    columns: dict[str, tuple[float, ...]] = {}
    if not all(tokens.weights):
        columns[UNWEIGHTED] = tuple(float(not weight) for weight in tokens.weights)
    if not {*tokens.weights} <= {0.0, 1.0}:
        columns[LOSS_WEIGHT] = tokens.weights
    ids, offsets = writer.shared(tokens.ids, tokens.offsets)
    return Row(name, ids, tokens.text, offsets, columns, source)


@dataclass(frozen=True)
class _Parts:
    """The rows of one sample, the reasons why parts of it gave none, and whether it was cut or written again."""

    tokens: tuple[Tokens, ...]
    missing: tuple[str, ...] = ()
    cut: bool = False
    again: bool = False

    def lost(self, reason: str, sample: Sample) -> BadLine:
        kind = LeftOut if self.tokens else BadLine
        return kind(sample.file, sample.line, reason, excerpt(sample.words()))


@dataclass
class _Maker:
    """Makes the tokens of samples for one model; the chat template is looked for when a conversation needs it."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    everything: bool
    add_eos: bool
    template: Template | None = None

    def parts(self, sample: Sample) -> _Parts:
        """Returns the rows of a sample, as tokens, at least one. Raises Unusable where there is none."""
        found = self._made(sample)
        if not found.tokens:
            raise Unusable(found.missing[0])
        return found

    def _made(self, sample: Sample) -> _Parts:
        if isinstance(sample, Conversation):
            return self._conversation(sample)
        if isinstance(sample, TokenIds):
            whole = of_ids(sample, self.tokenizer, everything=self.everything)
            if len(whole) > self.max_length:
                raise Unusable(
                    f"it has {len(whole):,} tokens, and corpus.max_length is {self.max_length}: rows that are tokens "
                    f"already are not cut; raise corpus.max_length"
                )
            return _Parts((whole,))
        assert isinstance(sample, Completion)
        eos: Any = self.tokenizer.eos_token_id if self.add_eos else None
        return self._cut([of_completion(sample, self.tokenizer, eos, everything=self.everything)])

    def _conversation(self, sample: Conversation) -> _Parts:
        template = self.template or template_of(self.tokenizer, where(sample.file, sample.line))
        self.template = template
        self._check(sample, template)
        safe = replace(sample, messages=tuple(map(template.safe, sample.messages)))
        if self._may_fit(safe, template):
            whole = self._written(sample, safe, template)
            if self._fit(whole):
                return _Parts(tuple(whole), again=len(whole) > 1)
        groups = self._groups(sample, safe, template)
        if len(groups) == 1:
            return self._cut(groups[0])
        found = [self._cut(group) if not self._fit(group) else _Parts(tuple(group)) for group in groups]
        tokens = tuple(one for part in found for one in part.tokens)
        return _Parts(tokens, tuple(reason for part in found for reason in part.missing), cut=True)

    def _check(self, sample: Conversation, template: Template) -> None:
        """Raises Unusable where the template would leave out a part of the conversation without a word."""
        for key, used in {
            "tools": bool(sample.tools),
            "tool_calls": any("tool_calls" in message for message in sample.messages),
        }.items():
            if used and key not in template.source:
                raise Unusable(f"it has {key!r}, which this model's chat template does not write; write them as text")

    def _may_fit(self, safe: Conversation, template: Template) -> bool:
        """Returns whether all messages up to the last answer fit into a row; this is known from one rendering."""
        last = len(safe.messages) if self.everything else max(n for n, w in enumerate(safe.weights) if w) + 1
        text = template.whole(safe.messages[:last], safe.tools)
        return length(text, template) <= self.max_length

    def _written(self, sample: Conversation, safe: Conversation, template: Template) -> list[Tokens]:
        """Returns the rows of messages, however long they are."""
        if self.everything:
            made = [template.whole(safe.messages, safe.tools)]
        else:
            made = template.answers(safe.messages, safe.weights, safe.tools)
        return [of_written(one, sample, template, everything=self.everything) for one in made]

    def _fit(self, rows: Sequence[Tokens]) -> bool:
        return all(len(row) <= self.max_length for row in rows)

    def _groups(self, sample: Conversation, safe: Conversation, template: Template) -> list[list[Tokens]]:
        """Returns the rows of as many exchanges together as fit, each behind the conversation's first system message.

        An exchange is a question and what follows until the next one.
        """
        roles = [message["role"] for message in safe.messages]
        lead = next((n for n, role in enumerate(roles) if role not in ("system", "developer")), 0)
        starts = [n for n, role in enumerate(roles) if role == "user" and n > lead]
        groups: list[list[Tokens]] = []
        begin, last = lead, list[Tokens]()
        for end in [*starts, len(roles)]:
            made = self._slice(sample, safe, template, (lead, begin, end))
            newest = max((start for start in starts if start < end), default=lead)
            if not self._fit(made) and begin < newest:
                groups += [last] if last else []
                begin = newest
                made = self._slice(sample, safe, template, (lead, begin, end))
            last = made
        return [*groups, last] if last else groups

    def _slice(
        self, sample: Conversation, safe: Conversation, template: Template, bounds: tuple[int, int, int]
    ) -> list[Tokens]:
        """Returns the rows of the first `lead` messages and those from `begin` to before `end`; none without answer."""
        lead, begin, end = bounds
        keep = [*range(lead), *range(begin, end)]
        some = [
            replace(
                one,
                messages=tuple(one.messages[n] for n in keep),
                weights=tuple(one.weights[n] for n in keep),
            )
            for one in (sample, safe)
        ]
        if not any(some[0].weights) and not self.everything:
            return []
        return self._written(some[0], some[1], template)

    def _cut(self, rows: Sequence[Tokens]) -> _Parts:
        """Cuts what is too long within an answer, at the ends of sentences; each part repeats what stands before it."""
        made, missing = list[Tokens](), list[str]()
        for row in rows:
            if len(row) <= self.max_length:
                made.append(row)
                continue
            learned, lead = row.learned(), leading(self.tokenizer)
            head, end = learned[0], learned[-1] + 1
            apart = end - head != len(learned)
            if not head and row.ids[: len(lead)] == lead:
                head = len(lead)
            room = self.max_length - head
            if room < min(LEAST, end - head) or apart:
                missing.append(
                    f"{len(row):,} tokens with several answers that are not one piece, and corpus.max_length is "
                    f"{self.max_length}; raise corpus.max_length"
                    if apart
                    else f"what stands before the answer has {head:,} tokens of {len(row):,}, and corpus.max_length is "
                    f"{self.max_length}: there is no room for the answer; raise corpus.max_length"
                )
                continue
            edges = [head, *self._edges(row, head, room), end]
            made += [row.part(head, a, b) for a, b in pairwise(edges) if b > a]
        return _Parts(tuple(made), tuple(missing), cut=len(made) > 1)

    def _edges(self, row: Tokens, head: int, room: int) -> list[int]:
        """Returns the tokens at which an answer is cut, so that each part has at most `room` tokens."""
        places, reached = list[int](), 0
        for start, end in row.offsets[head:]:
            reached = max(reached, start) if end > start else reached
            places.append(reached)
        at = cuts(row.text, places, Room(room, room))
        found = [head + next((n for n, place in enumerate(places) if place >= cut), len(places)) for cut in at]
        edges = [head, *found, len(row)]
        if all(b - a <= room for a, b in pairwise(edges)):
            return found
        return list(range(head + room, len(row), room))
