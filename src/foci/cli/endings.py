"""How a command ends: one paragraph on standard error, and the exit status."""

import sys
import traceback
from contextlib import suppress
from pathlib import Path

from foci.system import launch
from foci.system.harmless import visible


def told(error: Exception) -> int:
    """Prints an error and returns the exit status: 2 for input that cannot work, 1 for a run that could not go on."""
    if not isinstance(error, ValueError | OSError | ArithmeticError | TypeError | ImportError):
        say(_unforeseen(error))
        return 1
    say(_of_system(error) if isinstance(error, OSError) else str(error))
    return 2 if isinstance(error, ValueError | FileNotFoundError | FileExistsError | ImportError) else 1


def _of_system(error: OSError) -> str:
    """Returns the words for an error of the system: where it was, and what can be done."""
    if type(error).__name__ == "DiskFull" or error.filename is None or not str(error).startswith("[Errno"):
        return error.strerror if type(error).__name__ == "DiskFull" and error.strerror else str(error)
    return (
        f"{error.filename} cannot be read or written ({error.strerror}); check that it exists, and its permissions: "
        "what was written before is intact"
    )


def _unforeseen(error: Exception) -> str:
    """Returns the words for an error that no reader of input made: the memory is full, or foci is wrong."""
    said = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            f"the memory is full ({said or 'MemoryError'}); lower train.batch_size or corpus.max_length, or train an "
            "adapter, and look at `foci check` first"
        )
    frames = traceback.extract_tb(error.__traceback__)
    ours = next((frame for frame in reversed(frames) if "foci" in Path(frame.filename).parts), frames[-1])
    return (
        f"an error that foci did not foresee: {type(error).__name__}: {said} ({Path(ours.filename).name}, line "
        f"{ours.lineno}). What was written before is intact. Set FOCI_TRACEBACK=1 to see where it came from, and "
        "please report it"
    )


def speaks() -> bool:
    """Returns whether this process tells how the command ended: of several processes one does, the first to end.

    Where the launcher does not say which process this is, each one tells.
    """
    try:
        launch.check()
    except ValueError:
        return True
    if launch.count() == 1:
        return True
    from foci.system import processes

    return processes.speaks()


def say(words: str | None) -> None:
    """Prints a paragraph for people on standard error, where there is one."""
    with suppress(OSError):
        print(visible(f"foci: {words}"), file=sys.stderr, flush=True)
