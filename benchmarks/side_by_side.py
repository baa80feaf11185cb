"""Two ways to do one thing, measured in turns in one process, so that what disturbs one disturbs the other too."""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from foci.system import machine

Tick = Callable[[], None]


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of several measurements."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Result:
    """One number: ours over the rival's (lower is better), and whether it reaches the goal.

    `ours` and `theirs` are in `unit`. `ratio` spreads over the turns, each of ours against the rival's turn beside it.
    """

    what: str
    rival: str
    unit: str
    ours: Spread
    theirs: Spread
    ratio: Spread
    goal: float | None = None
    note: str = ""

    @classmethod
    def of(
        cls, what: str, unit: str, ours: Sequence[float], theirs: Sequence[float], *, rival: str,
        goal: float | None = None, note: str = "",
    ) -> "Result":  # fmt: skip
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        return cls(what, rival, unit, Spread.of(ours), Spread.of(theirs), Spread.of(ratios), goal, note)

    @property
    def met(self) -> bool | None:
        """Whether the median ratio reaches the goal; None without one."""
        return None if self.goal is None else self.ratio.median <= self.goal

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def in_turns(sides: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of every call, A B A B; the first `warmup` calls of each are not counted."""

    def times(call: Callable[[], object]) -> Callable[[Tick], None]:
        def run(tick: Tick) -> None:
            for _ in range(warmup + repeats):
                call()
                tick()

        return run

    return alternated({name: times(call) for name, call in sides.items()}, warmup)


def alternated(sides: Mapping[str, Callable[[Tick], None]], warmup: int = 1) -> dict[str, list[float]]:
    """Runs functions that call `tick` after each piece of work, one piece of A, one of B, and so on.

    Returns the seconds of every piece, without the first `warmup` of each (the first holds the setting up). Only one
    side runs at any time: each has a thread, and a baton goes round. An error on one side ends all and is raised.
    """
    baton = _Baton(list(sides))
    made: dict[str, list[float]] = {name: [] for name in sides}

    def run(name: str, work: Callable[[Tick], None]) -> None:
        begun = baton.wait(name)

        def tick() -> None:
            nonlocal begun
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            made[name].append(time.perf_counter() - begun)
            baton.give()
            begun = baton.wait(name)

        try:
            work(tick)
        except BaseException:
            baton.broken = True
            raise
        finally:
            baton.leave(name)

    with ThreadPoolExecutor(len(sides)) as pool:
        futures = [pool.submit(run, name, work) for name, work in sides.items()]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return {name: seconds[warmup:] for name, seconds in made.items()}


class _Baton:
    """Says whose turn it is."""

    def __init__(self, names: list[str]):
        self.names, self.broken, self.changed = names, False, threading.Condition()

    def wait(self, name: str) -> float:
        with self.changed:
            self.changed.wait_for(lambda: self.broken or self.names[0] == name)
        if self.broken:
            raise threading.BrokenBarrierError("the other side failed")
        return time.perf_counter()

    def give(self) -> None:
        with self.changed:
            self.names.append(self.names.pop(0))
            self.changed.notify_all()

    def leave(self, name: str) -> None:
        with self.changed:
            self.names.remove(name)
            self.changed.notify_all()


def extra_peak_mib(work: Callable[[], object]) -> float:
    """MiB that `work` needs at its peak beyond what is held when it begins."""
    machine.reset_peak()
    before = machine.peak_mib()
    work()
    after = machine.peak_mib()
    if before is None or after is None:
        raise RuntimeError("peak memory is read from /proc/self/status or from CUDA; here is neither, so use Linux")
    return after - before


def allocated_peak_mib(work: Callable[[], object]) -> float:
    """MiB of tensors on the CPU that `work` holds at its peak beyond what is held when it begins.

    Counted allocation by allocation, so that small differences are not lost in what the allocator keeps.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20
