"""Shows a run on the terminal until it ends."""

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from foci.report.tables import Table, terminal
from foci.report.words import NONE, count, decimal, duration, percent
from foci.system.harmless import one_line
from foci.system.words import form
from foci.watch.state import ArmState, Pair, State, read_state

Wait = Callable[[int | float], None]
STAGES = {
    "waits": "waits for its turn",
    "begins": "is prepared",
    "ends": "is asked and saved",
    "stopped": "stopped",
    "done": "done",
}
"""Words for an arm that does not train."""


def watch(folder: Path, console: Console, every: int | float, wait: Wait = time.sleep) -> State:
    """Shows the run in a folder, read again every so many seconds, until no process works in it; returns its end.

    On a terminal one picture is refreshed; elsewhere a line is printed for each update that was seen. Raises
    FileNotFoundError and ValueError as `read_state` does.
    """
    state = read_state(folder)
    if not console.is_terminal:
        return _told(state, console, every, wait)
    with Live(picture(state), console=console, auto_refresh=False) as live:
        while state.works:
            wait(every)
            state = read_state(folder)
            live.update(picture(state), refresh=True)
    return state


def _told(state: State, console: Console, every: int | float, wait: Wait) -> State:
    """Prints a line for each arm whose words have changed, until the run ends."""
    said: dict[str, str] = {}
    while True:
        for arm in state.arms:
            words = sentence(arm)
            if said.get(arm.name) != words:
                console.print(f"  {one_line(arm.name)}  {words}", highlight=False, markup=False, soft_wrap=True)
                said[arm.name] = words
        if not state.works:
            return state
        wait(every)
        state = read_state(state.folder)


def picture(state: State) -> Group:
    """Returns the head, a table with a line per arm, and a sentence on what happens now."""
    facts = [
        one_line(state.name),
        one_line(state.model),
        "" if state.rows is None else f"{count(state.rows)} {form(state.rows, 'row')}",
    ]
    head = Text("  ".join(fact for fact in facts if fact), style="bold")
    heads = ("arm", "\nupdate", "loss\nnats", "learned\n%", "retained\n%", "bits per\nbyte", "\ntime")
    rows = [
        [
            one_line(arm.name),
            _of(arm, early=state.early),
            decimal(arm.loss),
            *(_moved(arm.measured[name], percent) for name in ("learned_whole", "retained_whole")),
            _moved(arm.measured["bits_per_byte"], decimal),
            duration(arm.seconds).replace(" ", "") if arm.seconds is not None else NONE,
        ]
        for arm in state.arms
    ]
    table = terminal(Table(heads, rows), fold=6)
    table.columns[0].style = "bold"
    return Group(head, Text(), table, Text(), Text(_now(state), style="dim"))


def _of(arm: ArmState, *, early: bool) -> str:
    if arm.stage == "waits":
        return NONE
    most = NONE if arm.updates is None else f"{'<' if early and arm.stage != 'done' else ''}{count(arm.updates)}"
    return f"{count(arm.update)}/{most}"


def _moved(pair: Pair, written: Callable[[float | None], str]) -> str:
    """Writes a number before and now: "2.1→34.5"; before alone where questions were not asked again."""
    if pair["before"] is None and pair["now"] is None:
        return NONE
    return f"{written(pair['before'])}→{written(pair['now'])}" if pair["now"] is not None else written(pair["before"])


def _now(state: State) -> str:
    """Says what happens now, and how it goes on."""
    if state.done:
        return f"done: {len(state.arms)} arm{'s' * (len(state.arms) > 1)}" + ("; the report is written" * state.works)
    arm = next(arm for arm in state.arms if arm.stage != "done")
    if arm.stage == "begins" and arm.name == state.arms[0].name and not arm.measured["bits_per_byte"]["before"]:
        return "the corpus is read and the untouched model is asked"
    return f"{one_line(arm.name)} {sentence(arm)}"


def sentence(arm: ArmState) -> str:
    """Says of an arm, without its name, what it does and what was measured last."""
    if arm.stage in STAGES and arm.stage != "done":
        at = f" after update {count(arm.update)}" if arm.stage == "stopped" and arm.update else ""
        return STAGES[arm.stage] + at
    words = [f"update {count(arm.update)} of {NONE if arm.updates is None else count(arm.updates)}"]
    if arm.stage == "done":
        words = [f"done, {count(arm.update)} {form(arm.update, 'update')}"]
    if arm.loss is not None:
        words.append(f"loss {decimal(arm.loss)}")
    for name, noun in (("learned_whole", "learned"), ("retained_whole", "retained")):
        if (now := arm.measured[name]["now"]) is not None:
            words.append(f"{noun} {percent(now)} %")
    if arm.asked and arm.stage == "trains" and arm.asked != arm.update:
        words.append(f"asked after update {count(arm.asked)}")
    if arm.left is not None:
        words.append(f"about {duration(arm.left)} left")
    return ", ".join(words)
