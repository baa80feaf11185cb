"""Which commands several processes can run together; the others are refused under a launcher such as torchrun."""

from collections.abc import Sequence

from foci.system import launch

SHARED = frozenset({"learn", "score", "probe", "bench", "slide", "study", "meta"})
"""Commands whose work processes share."""
INSTEAD = {
    "advise": "start it without the launcher: it tries small trainings, one after another",
    "pretrain": "start it without the launcher, or one process for each seed, each with an output of its own",
    "check": "start it without the launcher: --processes says what each of several takes",
}
"""How to run a command that one process runs alone."""


def check_processes(words: Sequence[str]) -> None:
    """Raises ValueError where a launcher started several processes of a command that one process runs alone.

    And where its variables are no numbers.

    `words` are those behind `foci`.
    """
    launch.check()
    command = next((word for word in words if not word.startswith("-")), None)
    if launch.count() > 1 and command is not None and command not in SHARED:
        cure = INSTEAD.get(command, "start it without the launcher")
        raise ValueError(
            f"foci {command} runs in one process, got {launch.count()} (WORLD_SIZE, as torchrun and accelerate launch "
            f"set it); {cure}. Processes share the work of: {', '.join(sorted(SHARED))}"
        )
