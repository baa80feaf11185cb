"""A local writer in each of several processes: they answer the batches of the first, each some of them.

The first process runs the study; the others wait for batches until it is done. A batch holds what it holds in one
process, so the replies are the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from foci.study.prompts import Request
from foci.study.store import Reply
from foci.study.writers.local import LocalWriter, Prompt
from foci.study.writers.writer import Answered, Left, Writer
from foci.system import processes

T = TypeVar("T")


@dataclass(frozen=True)
class SharedWriter(Writer):
    """This process' writer, loaded by `load` when it is first asked."""

    load: Callable[[], LocalWriter]

    @cached_property
    def own(self) -> LocalWriter:
        """The writer of this process."""
        return self.load()

    @property
    def name(self) -> str:
        """The name of the model, as in one process."""
        return self.own.name

    @property
    def size(self) -> int:
        """The number of the model's parameters."""
        return self.own.size

    def ask(self, requests: Sequence[Request], answered: Answered, left: Left) -> None:
        """Answers a batch in each process at a time; only the first process calls it."""
        batches = self.own.batches(requests, left)
        for begin in range(0, len(batches), processes.size()):
            some = batches[begin : begin + processes.size()]
            for batch, replies in zip(some, self.replies(some), strict=False):
                for (request, _), reply in zip(batch, replies, strict=True):
                    answered(request, reply)

    def replies(self, batches: Sequence[Sequence[Prompt]] | None) -> list[list[Reply]]:
        """Returns the replies to at most one batch for each process; `batches` is the first's. Every one must call it.

        An empty list where the first has no batches any more (None).
        """
        some = processes.from_first(lambda: batches)
        if some is None:
            return []
        mine = some[processes.number() : processes.number() + 1]
        return processes.gathered([reply for batch in mine for reply in self.own.replies(batch)])


def with_others(work: Callable[[SharedWriter], T], load: Callable[[], LocalWriter]) -> T | None:
    """Returns what `work` returns in the first process, where the others answer batches meanwhile; there None."""
    writer = SharedWriter(load)
    with processes.together():
        if processes.is_first():
            found = work(writer)
            writer.replies(None)
            return found
        while writer.replies(None):
            continue
        return None
