"""`foci study` with a local writer whose replies are chosen, in the process that calls."""

from pathlib import Path

import runs
import writers
from foci.study.store import Reply
from foci.study.writers.local import LocalWriter
from foci.system import launch


def study(words: list[str], counts: Path) -> None:
    """Runs `foci study` with `words`; a line in counts-N.txt for each batch that process N answers."""

    def replies(writer: LocalWriter, some) -> list[Reply]:
        with counts.with_name(f"counts-{launch.number()}.txt").open("a") as file:
            file.write(f"{len(some)}\n")
        return [Reply(writers.honest(request.messages()[-1]["content"]), len(ids), 1, "stop") for request, ids in some]

    LocalWriter.replies = replies
    runs.command(words)
