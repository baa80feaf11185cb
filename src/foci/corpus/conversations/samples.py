"""Conversations, completions and token ids, as they stand in a record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foci.corpus.documents import Sample

NO_CHARACTERS = ("\U0010fffe", "\U0010ffff")
"""Code points that no text has; with them foci tells a template's control words from those in messages."""


class Unusable(ValueError):
    """Raised for a record that cannot be learned from; its words are the reason and the cure, for quarantine.jsonl."""


@dataclass(frozen=True)
class Conversation(Sample):
    """Messages, as a chat template reads them, and a weight for each: above 0 on the answers that are learned.

    `tools` are JSON schemas of functions that the model may call.
    """

    messages: tuple[Mapping[str, Any], ...]
    weights: tuple[float, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    def words(self) -> str:
        """Returns the words of all messages."""
        return "\n".join(str(message.get("content", "")) for message in self.messages)


@dataclass(frozen=True)
class Completion(Sample):
    """A text to learn and the text before it; both are plain text."""

    prompt: str
    completion: str

    def words(self) -> str:
        """Returns both texts."""
        return self.prompt + self.completion


@dataclass(frozen=True)
class TokenIds(Sample):
    """Token ids, and the weight of each."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    def words(self) -> str:
        """Returns the ids as they are written."""
        return " ".join(map(str, self.ids))


def as_number(value: object, name: str) -> float:
    """Returns a weight. Raises Unusable for what is no finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise Unusable(f"{name} is {value!r:.60}; expected a finite number of at least 0")
    return float(value)


def as_truth(value: object, name: str) -> float:
    """Returns 1 for true and 0 for false. Raises Unusable for anything else."""
    if value not in (True, False):
        raise Unusable(f"{name} is {value!r:.60}; expected true or false")
    return float(bool(value))


def listed(names: Sequence[str]) -> str:
    """Returns names in quotes, as in a sentence: 'a', 'b' and 'c'."""
    quoted = [repr(name) for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
