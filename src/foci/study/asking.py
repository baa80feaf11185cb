"""Asks a writer whatever is not answered yet, keeps each reply at once, and says how far it is."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from foci.study.cost import Cost
from foci.study.prompts import Request
from foci.study.store import Reply, Store
from foci.study.writers.writer import Writer

Tell = Callable[[str], object]
"""Is given lines for people."""
NAMED = 3
"""Reasons that are named, at most."""


def _left(seconds: float) -> str:
    """Says how long something will still take, where that is half a minute or more."""
    return f", about {seconds / 60:.0f} min left" if seconds >= 30 else ""


class Asking:
    """A writer and the file of its replies. `cost` counts what was asked in this run, `left` what got no reply."""

    def __init__(self, writer: Writer, store: Store, tell: Tell) -> None:
        self.writer, self.store, self.tell = writer, store, tell
        self.cost, self.left = Cost(), Counter[str]()

    def waiting(self, requests: Sequence[Request]) -> list[Request]:
        """Returns the requests that are not answered yet, each once."""
        by_key = {self.key(request): request for request in requests}
        return [request for key, request in by_key.items() if key not in self.store.replies]

    def key(self, request: Request) -> str:
        """Returns the key of a request's reply."""
        return request.key(self.writer.name)

    def ask(self, requests: Sequence[Request], noun: str) -> Mapping[str, Reply]:
        """Asks what is not answered yet, and returns the replies to the requests that have one, by key."""
        waiting = self.waiting(requests)
        done, step, begin = 0, -(-len(waiting) // 10), time.monotonic()

        def answered(request: Request, reply: Reply) -> None:
            nonlocal done
            self.store.add(
                self.key(request), reply, kind=request.kind, passage=request.passage.id, source=request.passage.source,
                question=request.question, evidence=request.evidence,
                writer=self.writer.name,
            )  # fmt: skip
            self.cost.add(reply)
            done += 1
            if done % step == 0 or done == len(waiting):
                rest = (time.monotonic() - begin) / done * (len(waiting) - done)
                self.tell(f"{noun}: {done:,} of {len(waiting):,} requests answered{_left(rest)}")

        def left(_request: Request, reason: str) -> None:
            self.left[reason] += 1

        if waiting:
            self.writer.ask(waiting, answered, left)
        keys = [self.key(request) for request in requests]
        return {key: self.store.replies[key] for key in keys if key in self.store.replies}

    def left_words(self) -> str:
        """Says how many requests got no reply, and why; "" where each has one."""
        if not self.left:
            return ""
        why = "; ".join(f"{reason} ({count:,})" for reason, count in self.left.most_common(NAMED))
        more = f"; and {len(self.left) - NAMED} other reasons" if len(self.left) > NAMED else ""
        return (
            f"{self.left.total():,} requests got no reply and are left for the next run: {why}{more}; the same command "
            "asks them again"
        )
