"""Two ways to do one thing, measured in turns in one process, so that what disturbs one disturbs the other too."""

import contextlib
import ctypes
import gc
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
class Spent:
    """What a piece of work took: seconds on the clock, and seconds of the process' processors, all threads added."""

    clock: float
    processor: float

    def __truediv__(self, pieces: float) -> "Spent":
        return Spent(self.clock / pieces, self.processor / pieces)


@dataclass(frozen=True)
class Beside:
    """Two sides' measurements of the same turns, and their ratios: ours over the rival's (lower is better)."""

    ours: Spread
    theirs: Spread
    ratio: Spread
    turns: int

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> "Beside":
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        return cls(Spread.of(ours), Spread.of(theirs), Spread.of(ratios), len(ratios))


@dataclass(frozen=True)
class Result:
    """One row: ours beside the rival's, in `unit`, and whether the ratio reaches the goal.

    Of times, `found` is in seconds on the clock and `processor` in processor seconds. On a CPU the goal is about
    processor seconds, because other work on the machine changes them less; on a GPU it is about the clock. `missing`
    says why a rival was not measured; then there is no number. `curve` holds measurements at growing sizes.
    """

    what: str
    rival: str
    unit: str
    found: Beside | None = None
    goal: float | None = None
    note: str = ""
    processor: Beside | None = None
    missing: str = ""
    curve: dict[str, Any] | None = None

    @classmethod
    def of(
        cls, what: str, unit: str, ours: Sequence[float], theirs: Sequence[float], *, rival: str,
        goal: float | None = None, note: str = "", curve: dict[str, Any] | None = None,
    ) -> "Result":  # fmt: skip
        return cls(what, rival, unit, Beside.of(ours, theirs), goal, note, curve=curve)

    @classmethod
    def timed(
        cls, what: str, ours: Sequence[Spent], theirs: Sequence[Spent], *, rival: str,
        goal: float | None = None, note: str = "", curve: dict[str, Any] | None = None,
    ) -> "Result":  # fmt: skip
        clock, processor = (
            [[getattr(s, kind) for s in side] for side in (ours, theirs)] for kind in ("clock", "processor")
        )
        return cls(what, rival, "s", Beside.of(*clock), goal, note, Beside.of(*processor), curve=curve)

    @classmethod
    def absent(cls, what: str, *, rival: str, extra: str = "bench", goal: float | None = None) -> "Result":
        """A row whose rival is not there."""
        return cls(what, rival, "", goal=goal, missing=f"not installed: pip install 'foci[{extra}]'")

    @property
    def judged(self) -> Beside | None:
        """The measurements that the goal is about."""
        on_gpu = torch.cuda.is_available()
        return self.found if self.processor is None or on_gpu else self.processor

    @property
    def met(self) -> bool | None:
        """Whether the median ratio reaches the goal; None without a goal or without a number."""
        return None if self.goal is None or self.judged is None else self.judged.ratio.median <= self.goal

    def as_json(self) -> dict[str, Any]:
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return {**found, "judged": "processor" if self.judged is self.processor else "found", "met": self.met}


@dataclass(frozen=True)
class Allowance:
    """The seconds that a benchmark may take; with `quick`, small sizes and one turn, not for publishing.

    Turns are made while there is time, at least one.
    """

    seconds: float
    quick: bool = False

    def part(self, share: float) -> "Allowance":
        """A share of the seconds, for one of several measurements."""
        return Allowance(self.seconds * share, self.quick)

    def turns(self, most: int, warmup: int = 1) -> "Turns":
        """Turns from now on, `most` at most beyond the first `warmup`, which are not counted."""
        return Turns(1 if self.quick else most, warmup, self.seconds)


class Turns:
    """Says whether another turn is made. The side that asks first decides for all, so that all have the same turns."""

    def __init__(self, most: int, warmup: int, seconds: float):
        self.most, self.warmup, self.seconds = most, warmup, seconds
        self.begun = self.last = time.perf_counter()
        self.decided: dict[int, bool] = {}

    def another(self, done: int) -> bool:
        """Whether there is a turn after `done` turns; the next one is taken to last as long as the one before."""
        if done not in self.decided:
            now = time.perf_counter()
            last, self.last = now - self.last, now
            fits = now - self.begun + last <= self.seconds
            self.decided[done] = done <= self.warmup or (done < self.warmup + self.most and fits)
        return self.decided[done]


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def in_turns(
    sides: Mapping[str, Callable[[], object]], most: int, allowed: Allowance, warmup: int = 1
) -> dict[str, list[Spent]]:
    """What every call took, A B A B, while there is time; the first `warmup` calls of each are not counted."""
    turns, done = allowed.turns(most, warmup), 0
    made: dict[str, list[Spent]] = {name: [] for name in sides}
    while turns.another(done):
        for name, call in sides.items():
            begun = now()
            call()
            made[name].append(since(begun))
        done += 1
    return {name: pieces[warmup:] for name, pieces in made.items()}


def now() -> tuple[float, float]:
    """The clock and the processor seconds of this process."""
    return time.perf_counter(), time.process_time()


def since(begun: tuple[float, float]) -> Spent:
    """What was spent since then, with what a GPU was still to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Spent(time.perf_counter() - begun[0], time.process_time() - begun[1])


def alternated(sides: Mapping[str, Callable[[Tick], None]], warmup: int = 1) -> dict[str, list[Spent]]:
    """Runs functions that call `tick` after each piece of work, one piece of A, one of B, and so on.

    Returns what every piece took, without the first `warmup` of each (the first holds the setting up). Only one side
    runs at any time: each has a thread, and a baton goes round. An error on one side ends all and is raised.
    """
    baton = _Baton(list(sides))
    made: dict[str, list[Spent]] = {name: [] for name in sides}

    def run(name: str, work: Callable[[Tick], None]) -> None:
        begun = baton.wait(name)

        def tick() -> None:
            nonlocal begun
            made[name].append(since(begun))
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
    give_memory_back()
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return {name: pieces[warmup:] for name, pieces in made.items()}


def give_memory_back() -> None:
    """Lets glibc return what its allocator keeps of ended threads, which can be several GB; elsewhere does nothing."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class _Baton:
    """Says whose turn it is."""

    def __init__(self, names: list[str]):
        self.names, self.broken, self.changed = names, False, threading.Condition()

    def wait(self, name: str) -> tuple[float, float]:
        """The clock and the processor seconds when the turn begins."""
        with self.changed:
            self.changed.wait_for(lambda: self.broken or self.names[0] == name)
        if self.broken:
            raise threading.BrokenBarrierError("the other side failed")
        return now()

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
    """MiB of tensors that `work` holds at its peak beyond what is held when it begins.

    Counted allocation by allocation on a CPU, so that small differences are not lost in what the allocator keeps.
    """
    if torch.cuda.is_available():
        return extra_peak_mib(work)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20
