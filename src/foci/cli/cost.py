"""Prints what a run will take, as `foci check` says it: memory, speed, time, disk."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from foci.bench.config import Suite
from foci.config.run import Run
from foci.learn.disk import Disk
from foci.learn.estimate import ArmCost, Estimate
from foci.report.tables import Table as Figures
from foci.report.tables import terminal
from foci.system.words import counted

ARMS = 3
"""Arms, at most, whose memory is shown side by side; of more, that of the arm that takes most."""
MIB = 2**20


def print_cost(run: Run, cost: Estimate, processes: int, console: Console) -> None:
    """Prints the lines of a run or a suite, then the table of its memory."""
    table = Table(box=None, show_header=False)
    for name, value in _lines(run, cost).items():
        table.add_row(name, value)
    console.print(table, highlight=False)
    for name, arm in cost.arms.items():
        if arm.untried:
            words = f"the methods of arm {name} were not tried, so their own cost is missing here: {arm.untried}"
            console.print(words, highlight=False, markup=False, soft_wrap=True)
    console.print()
    console.print(_memory(cost, processes), highlight=False)
    if processes > 1:
        shares = "share the model (FSDP2)" if run.train.fsdp else "each hold the whole model (DDP)"
        words = f"of each of {processes} processes, which {shares}; time is that of one process"
        console.print(words, highlight=False, style="dim")


def _lines(run: Run, cost: Estimate) -> dict[str, str]:
    seeds, points = 1, 0
    if isinstance(run, Suite):
        seeds, points = len(run.seeds), 0 if run.slide is None else len(run.slide.shares) - 1
    asked = seeds * (1 + len(cost.arms) * (cost.probings + points))
    seconds = seeds * (cost.seconds + points * len(cost.arms) * cost.probe_seconds)
    most = "at most " if run.train.patience else ""
    first = next(iter(cost.arms.values()))
    return {
        "parameters": f"{cost.parameters:,}, {_trained(cost.arms)} of them trained",
        **({"adapter": left_out} if (left_out := _left_out(cost.arms)) else {}),
        "tokens": f"{cost.tokens_per_epoch:,} in {counted(cost.rows, 'row')}, read {first.tokens:,} in all",
        "updates": most + _updates({name: arm.updates for name, arm in cost.arms.items()})
        + (f", {seeds} seeds" if seeds > 1 else ""),
        "peak memory": f"about {cost.peak / MIB:,.0f} MiB{_in_files(cost.largest.memory.files)}",
        "speed": ", ".join(f"{name} {arm.tokens_per_second:,.0f}" for name, arm in cost.arms.items())
        + " tokens a second",
        "time": f"{most or 'about '}{_duration(seconds)}: {_training(cost.arms)} of training, "
        f"{_duration(cost.probe_seconds)} for each of {asked} times that questions are asked",
        "disk": _disk(run, cost, seeds),
    }  # fmt: skip


def _trained(arms: Mapping[str, ArmCost]) -> str:
    """Writes how many weights train: "4,884,480", or of arms that differ "4,884,480 (plain), 134,515,008 (full)"."""
    if len({arm.trained for arm in arms.values()}) == 1:
        return f"{next(iter(arms.values())).trained:,}"
    return ", ".join(f"{arm.trained:,} ({name})" for name, arm in arms.items())


def _left_out(arms: Mapping[str, ArmCost]) -> str:
    """Says which weights adapters do not reach; "" where they reach all. Arms are named where they differ."""
    found = {name: arm.left_out for name, arm in arms.items() if arm.left_out}
    if len(found) == len(arms) and len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{name}: {words}" for name, words in found.items())


def _in_files(size: int) -> str:
    """Says what of the memory the system can take back."""
    return f"; {size / MIB:,.0f} MiB of this are mapped files, which the system can drop from memory" if size else ""


def _training(arms: Mapping[str, ArmCost]) -> str:
    return ", ".join(f"{_duration(arm.seconds)} ({name})" for name, arm in arms.items())


def _disk(run: Run, cost: Estimate, seeds: int) -> str:
    """Says what the folder takes; a suite deletes models and checkpoints of its cells unless it keeps them."""
    keeps = not isinstance(run, Suite) or run.keep_models
    disks = [arm.disk for arm in cost.arms.values()]
    shared = cost.shared_disk * (len(disks) if isinstance(run, Suite) else 1)
    weights = sum((d.model if keeps else 0) + d.adapter for d in disks)
    checkpoints = sum(d.checkpoint * d.checkpoints for d in disks) if keeps else 0
    rest = shared + sum(d.rest + d.scores for d in disks)
    parts = (("models and adapters", weights), ("checkpoints", checkpoints), ("rows, answers, report", rest))
    said = ", ".join(f"{name} {seeds * size / 1e6:,.1f}" for name, size in parts if size)
    return f"about {seeds * (weights + checkpoints + rest) / 1e6:,.1f} MB: {said}{_while(disks, keeps)}"


def _while(disks: list[Disk], keeps: bool) -> str:
    """Says how much more it takes for a while: a checkpoint is written before an old one is deleted."""
    largest = max(d.checkpoint for d in disks)
    return f"; {largest / 1e6:,.1f} more while a checkpoint is written" if keeps else ""


def _memory(cost: Estimate, processes: int) -> Table:
    """Returns the table of memory, in MiB, of one process: the parts while it trains, and other times."""
    arms = dict(cost.arms)
    if len(arms) > ARMS:
        arms = {name: arm for name, arm in arms.items() if arm is cost.largest}
    parts = {
        "parameters": [arm.memory.parameters for arm in arms.values()],
        "copies of frozen weights": [arm.memory.copies for arm in arms.values()],
        "gradients": [arm.memory.gradients for arm in arms.values()],
        "optimizer state": [arm.memory.optimizer for arm in arms.values()],
        "gathered for a pass": [arm.memory.gathered for arm in arms.values()],
        "activations, room to work": [arm.memory.activations or 0 for arm in arms.values()],
        "Python and libraries": [arm.memory.program for arm in arms.values()],
        "all, while it trains": [arm.memory.total for arm in arms.values()],
        "offline stages": [arm.offline_peak for arm in arms.values()],
        "while questions are asked": [cost.probe_peak for _ in arms],
    }
    heads = ["memory, MiB" if processes == 1 else "memory of each, MiB", *arms]
    rows = [[name, *(f"{size / MIB:,.1f}" for size in sizes)] for name, sizes in parts.items() if any(sizes)]
    return terminal(Figures(heads, rows), ruled=False)


def _updates(by_arm: Mapping[str, int]) -> str:
    """Writes the updates of each arm: "8 per arm, 2 arms", or "8 plain, 20 focused"."""
    if len(set(by_arm.values())) > 1:
        return ", ".join(f"{updates:,} {arm}" for arm, updates in by_arm.items())
    return f"{next(iter(by_arm.values())):,} per arm, {len(by_arm)} arm{'s' * (len(by_arm) > 1)}"


def _duration(seconds: float) -> str:
    """Writes a time in seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
