"""Lets several processes work on one run, as torchrun or `accelerate launch` start them.

    with processes.together():
        if processes.is_first(): ...                              # reads input, writes files
        rows = processes.from_first(read)                         # what the first process read, on every one
        answers = processes.shared_out(ask, questions)            # every process asks some of them

Outside of `together`, and without a launcher, there is one process, and each function does the plain thing. Processes
talk over gloo, also where gradients go over NCCL: a process that waits keeps no GPU busy.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from foci.system import launch

T = TypeVar("T")
LONGEST = timedelta(days=7)
"""How long a process waits for the others, at most; the first may read a large corpus, or save a large model, alone."""
GONE = (
    "another process of this run ended without a word: it was killed, perhaps because the memory was full. What was "
    "written before is intact; go on with "
)
SAME, RESUME = "the same command", "the same command and --resume"
"""How commands are gone on with."""


@contextmanager
def together(go_on: str = SAME) -> Iterator[None]:
    """Connects the processes of a launcher while open; does nothing without one, or where they are connected already.

    `go_on`: how to go on where another process was killed, for people.

    Raises ValueError where there are fewer GPUs than processes on this machine, or where the launcher's configuration
    asks for FSDP or DeepSpeed.
    """
    if launch.count() == 1 or distributed.is_initialized():
        yield
        return
    _check_backend()
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(_own_gpu())
    distributed.init_process_group(backend, timeout=LONGEST)
    try:
        yield
    except RuntimeError as error:
        if speaks() and _is_lost(error):
            raise ChildProcessError(GONE + go_on) from error
        raise
    except BaseException:
        speaks()  # before the connection is lost, so that no other process tells of a lost connection
        raise
    distributed.destroy_process_group()


def _check_backend() -> None:
    for name, told in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(name, "false").lower() == "true":
            raise ValueError(
                f"accelerate's configuration asks for {told} ({name}={os.environ[name]}), which foci does not read; "
                "start with torchrun, or with: accelerate launch --multi_gpu, and set train.fsdp=true where each "
                "process should hold a part of the model (FSDP2)"
            )


def _own_gpu() -> int:
    """Returns the number of this process' GPU on its machine."""
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= gpus:
        raise ValueError(
            f"process {local + 1} of this machine has no GPU of its own: there are {gpus}; start as many processes as "
            "there are GPUs (torchrun --nproc-per-node), or set CUDA_VISIBLE_DEVICES='' to compute on the CPU"
        )
    return local


def _is_lost(error: RuntimeError) -> bool:
    """Returns whether an error says that the connection to another process is lost."""
    words = str(error).lower()
    return isinstance(error, distributed.DistError) or "gloo" in words or "nccl" in words


@cache
def speaks() -> bool:
    """Returns whether this process tells people how the run ended: that is the first one to ask.

    An error of one process makes the others fail, too, and many errors are the same on all. It is asked of the store
    that torchrun and `accelerate launch` keep, also before the processes are connected. Another launcher has none that
    outlives the processes; there the first process speaks.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return launch.is_first()
    try:
        place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        store = TCPStore(*place, timeout=timedelta(seconds=5), wait_for_workers=False)
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store outlives a restart
        return bool(store.add(f"foci/ended/{again}", 1) == 1)
    except (KeyError, ValueError, OSError, RuntimeError):
        return launch.is_first()


def size() -> int:
    """Returns how many processes are connected; 1 where none are."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def number() -> int:
    """Returns the number of this process among those that are connected, from 0."""
    return distributed.get_rank() if size() > 1 else 0


def is_first() -> bool:
    """Returns whether this process is the one that reads input and writes files."""
    return number() == 0


def gathered(value: T) -> list[T]:
    """Returns the values that the processes give, in their order; every process must call it."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    distributed.all_gather_object(found, value)
    return found


def wait() -> None:
    """Returns when every process has called it: what the first has written can be read then."""
    gathered(None)


def largest(value: int) -> int:
    """Returns the largest of the processes' values; every process must call it."""
    if size() == 1:
        return value
    found = torch.tensor([value])
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gives each parameter the sum of the processes' gradients (none counts as 0); every process must call it."""
    if size() == 1:
        return
    own = list(parameters)
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in own])
    distributed.all_reduce(flat)
    for p, part in zip(own, flat.split([p.numel() for p in own]), strict=True):
        p.grad = part.view_as(p)


def from_first(make: Callable[[], T]) -> T:
    """Returns what `make` returns in the first process, to all of them; the others do not call it, and wait."""
    if size() == 1:
        return make()
    box: list[Any] = [make() if is_first() else None]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]  # type: ignore[no-any-return]


def first_then_others(make: Callable[[], T]) -> T:
    """Returns what `make` returns in this process; the others begin when the first is done, and find what it wrote."""
    if size() == 1:
        return make()
    if is_first():
        made = make()
        wait()
        return made
    wait()
    return make()


@contextmanager
def opened_by_first(open_it: Callable[[], AbstractContextManager[Any]], marker: Path) -> Iterator[None]:
    """Opens a folder in the first process alone; the others go on when it is open there.

    Raises FileNotFoundError where another process does not see `marker`, a file in it.
    """
    with open_it() if is_first() else nullcontext():
        wait()
        if not marker.is_file():
            raise FileNotFoundError(
                f"process {number() + 1} of {size()} does not see {marker}, which the first one wrote; give an output "
                "folder that all machines share"
            )
        yield


def shared_out(work: Callable[[Sequence[Any]], Sequence[T]], items: Sequence[Any], *, alike: bool = False) -> list[T]:
    """Returns `work(items)`, one result for each item in their order; every process works on some of the items.

    `alike`: every process works on all of them, since it needs the others for each (a sharded model).
    """
    if alike:
        return list(work(items)) if items else []
    some = items[number() :: size()]
    parts = gathered(list(work(some)) if some else [])
    return [parts[at % size()][at // size()] for at in range(len(items))]
