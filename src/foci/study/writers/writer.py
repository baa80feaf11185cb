"""The promise of a writer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from foci.study.prompts import Request
from foci.study.store import Reply

Answered = Callable[[Request, Reply], None]
"""Called once for each reply, as soon as it is there; it returns when the reply is on the disk."""
Left = Callable[[Request, str], None]
"""Called for a request that got no reply, with the reason; it is left for the next run."""


class Writer(ABC):
    """Answers requests, in any order."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name by which replies are kept: other writers have other names."""

    @property
    def size(self) -> int | None:
        """The number of parameters; None where nobody says it."""
        return None

    @abstractmethod
    def ask(self, requests: Sequence[Request], answered: Answered, left: Left) -> None:
        """Asks all requests; each is answered or left. Raises ValueError or ConnectionError where nothing works."""
