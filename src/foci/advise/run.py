"""Runs `foci advise`: a slice of the text, trials in rounds of half as many, and the run file that they speak for."""

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foci.advise.results import Result, behind, ranked
from foci.advise.trials import TRIALS, Cost, Rounds, Trial, planned, suite_of
from foci.advise.write import Seen, advice
from foci.bench.cells import cell, finished, run_cell, starts
from foci.bench.config import Suite
from foci.bench.folder import opened_suite
from foci.config.run import Run
from foci.learn.estimate import estimate
from foci.learn.inputs import corpus_of, files_read, loaded_model, material
from foci.probes import read_answers
from foci.probes.general import general_facts_path
from foci.rows import chosen, ids_of
from foci.seeds import drawn, drawn_places
from foci.system.files import read_json, write_json, write_lines, write_text
from foci.system.folder import FolderKind, claim
from foci.system.inputs import noted
from foci.system.run_folder import RunFolder
from foci.system.signals import stoppable
from foci.system.terminal import Terminal
from foci.system.words import counted, form

ADVICE = FolderKind("advice", "advice.json")
ROWS, FACTS, FEWEST = 24, 64, 6
"""Rows of the slice, general facts that are asked, and held-out questions below which nothing can be said."""
HALF = 0.5
"""The share of the made probes that is held out: trials are compared by these alone."""

Tell = Callable[[str], object]


@dataclass
class Advice:
    """An advice in the making: its folder, its budget in seconds, and what was spent of it so far.

    `begun` and `failed` count the trials of each round.
    """

    run: Run
    path: Path
    seconds: float
    tell: Tell
    times: dict[str, float] = field(default_factory=dict)
    begun: Counter[int] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)

    def spent(self) -> float:
        """Returns the seconds that trials took so far, in all calls of the command."""
        return sum(self.times.values())

    def timed(self, name: str, act: Callable[[], object]) -> None:
        """Does something and adds its seconds to what was spent, also where it is stopped."""
        begin = time.perf_counter()
        try:
            act()
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - begin
            write_json(self.path / "times.json", self.times)


def advise(run: Run, folder: Path, minutes: float, *, overwrite: bool = False, tell: Tell = print) -> Path:
    """Runs the trials that fit into `minutes` and returns the run file that they speak for.

    `run` names the model and the text. The same call goes on where it was stopped; what was spent counts. Raises
    ValueError for a text of which too few questions can be made and for a budget too short for two trials (more minutes
    go on with the trials that were planned),
    FileExistsError for a folder that holds something else or an advice on another text.
    """
    asked = {"model": run.model.model_dump(mode="json"), "corpus": run.corpus.model_dump(mode="json"), "seed": run.seed,
             "files": noted(files_read(run))}  # fmt: skip
    settings = json.dumps(asked, indent=1, ensure_ascii=False) + "\n"
    with stoppable(), claim(folder, ADVICE, settings, resume=True, overwrite=overwrite):
        write_text(folder / ADVICE.marker, settings)
        made = Advice(run, folder, 60 * minutes, tell, read_json(folder / "times.json") or {})
        rows, of = _slice(run, folder)
        base = _base(run, folder)
        plan = _plan(made, base, rows)
        found = _rounds(made, base, plan)
        seen = _seen(made, found, plan, rows, of)
        target = folder / "advised.yaml"
        text, lines = advice(run, seen, minutes)
        write_text(target, text)
        for line in lines:
            tell(line)
    return target


def _slice(run: Run, folder: Path) -> tuple[int, int]:
    """Writes random rows of the text and general facts; returns the number of rows, and that of the whole text."""
    known = read_json(folder / "slice.json")
    if known is None:
        corpus = corpus_of(run, loaded_model(run))
        order = drawn_places((f"advice/{row_id}" for row_id in ids_of(corpus.rows)), run.seed)
        texts = [row.text for row in chosen(corpus.rows, np.sort(order[:ROWS]))]
        write_lines(folder / "slice.jsonl", [{"text": text} for text in texts])
        lines = [json.loads(line) for line in general_facts_path().read_text(encoding="utf-8").splitlines() if line]
        numbered = drawn(list(enumerate(lines)), run.seed, lambda line: f"advice/{line[0]}")[:FACTS]
        write_lines(folder / "retain.jsonl", [line for _, line in numbered])
        known = {"rows": len(texts), "of": len(corpus.rows)}
        write_json(folder / "slice.json", known, sealed=True)
    return known["rows"], known["of"]


def _base(run: Run, folder: Path) -> dict[str, Any]:
    """Returns the settings that all rounds share."""
    return {
        "seeds": [run.seed],
        "model": run.model.model_dump(mode="json"),
        "corpus": {"path": str(folder / "slice.jsonl"), "max_length": run.corpus.max_length,
                   "control_words": run.corpus.control_words},
        "probes": {"learn": "made", "retain": str(folder / "retain.jsonl"), "text": None, "corpus_text": False,
                   "held_out_share": HALF},
    }  # fmt: skip


def _plan(made: Advice, base: dict[str, Any], rows: int) -> Rounds:
    """Returns the rounds, planned once by an estimate of what a trial costs here. Raises ValueError as `planned`."""
    known = read_json(made.path / "plan.json")
    if known is None:
        suite = suite_of(base, made.path, 1, ["focused"], 8)
        read = material(suite)
        held = sum(probe.held_out and probe.role == "learn" for probe in read.questions.probes)
        if held < FEWEST:
            raise ValueError(
                f"{', '.join(made.run.corpus.path)}: {counted(held, 'held-out question')} could be made of "
                f"{counted(rows, 'row')}, "
                f"expected at least {FEWEST}, so trials could not be compared; give more text of English sentences "
                "with names, numbers or dates, or compare arms with questions of yours: foci bench"
            )
        cost = estimate(suite, read)
        (arm,) = cost.arms.values()
        fixed = cost.probe_seconds + cost.save_seconds + arm.offline_seconds
        plan = planned(Cost(arm.seconds / arm.updates, fixed, cost.probe_seconds), made.seconds, rows)
        known = {"trials": plan.trials, "updates": plan.updates}
        write_json(made.path / "plan.json", known, sealed=True)
    plan = Rounds(tuple(known["trials"]), tuple(known["updates"]))
    each = "; ".join(f"{n} of {counted(u, 'update')}" for n, u in zip(plan.trials, plan.updates, strict=True))
    made.tell(
        f"{counted(rows, 'row')}, {counted(sum(plan.trials), 'trial')} in {_minutes(made.seconds)} at most: {each}"
    )
    return plan


def _rounds(made: Advice, base: dict[str, Any], plan: Rounds) -> list[dict[str, Result]]:
    """Runs the rounds one after another, each with the better half of the one before; ends where the time does."""
    found: list[dict[str, Result]] = []
    arms = list(TRIALS)[: plan.trials[0]]
    for number, (count, updates) in enumerate(zip(plan.trials, plan.updates, strict=True), start=1):
        arms = ranked(found[-1])[:count] if found else arms
        made.begun[number] = len(arms)
        results, whole = _round(made, suite_of(base, made.path, number, arms, updates), number, found)
        if results and (whole or not found):
            found.append(results)
        if not whole:
            made.tell(f"the time is up in round {number}, after {made.spent() / 60:.1f} minutes")
        if not (whole and results):
            break
    if (ended := len(found[0]) if found else 0) < 2:
        raise ValueError(
            f"{ended} of the trials were finished in {_minutes(made.seconds)}, expected at least 2 to "
            "compare; run the same command with more --minutes: what is finished is kept. Where trials failed, the "
            "lines above say why"
        )
    return found


def _round(made: Advice, suite: Suite, number: int, before: list[dict[str, Result]]) -> tuple[dict[str, Result], bool]:
    """Runs the trials of a round that fit into the time; returns their results, and whether these are all."""
    quiet, results = Terminal(quiet=True), dict[str, Result]()
    updates, seed = suite.train.steps or 0, suite.seeds[0]
    least = 2 * max((one.seconds for some in before[-1:] for one in some.values()), default=0.0)
    begin = made.times.get(f"{number - 1}/start", 0.0)
    if f"{number}/start" not in made.times and before and made.spent() + begin + least > made.seconds:
        return results, False
    with opened_suite(suite) as folder:
        begun: dict[int, Any] = {}
        made.timed(f"{number}/start", lambda: begun.update(starts(suite, folder, quiet)))
        for arm in suite.arms:
            one = cell(suite, folder, arm, begun[seed])
            name = f"{number}/{arm}"
            if not finished(one):
                if made.spent() + least > made.seconds:
                    return results, False
                try:
                    made.timed(name, partial(run_cell, one, quiet))
                except (ValueError, ArithmeticError, RuntimeError) as error:  # too high a rate, too little memory
                    made.tell(f"round {number}  {arm:<14} {counted(updates, 'update')}  failed: {error}")
                    made.failed[number] += 1
                    continue
            answers = read_answers(RunFolder(one.path, 1).arm(arm).probes(updates))
            results[arm] = Result.of(answers, made.times.get(name, 0.0))
            least = max(least, results[arm].seconds)
            made.tell(f"round {number}  {arm:<14} {counted(updates, 'update')}  {told(results[arm])}")
    return results, True


def told(result: Result) -> str:
    """Says what a trial learned and kept, and how long it took."""
    learned, kept = (sum(v.values()) / max(1, len(v)) for v in (result.learned, result.kept))
    return f"learned {100 * learned:.1f} %  kept {100 * kept:.1f} %  {result.seconds:.0f} s"


def _seen(made: Advice, found: list[dict[str, Result]], plan: Rounds, rows: int, of: int) -> Seen:
    """Returns what the trials say: the last round's order, and by how much each is behind the best."""
    last = found[-1]
    order = ranked(last)
    gaps = {name: behind(last[order[0]], last[name], made.run.seed) for name in order[1:]}
    updates = math.ceil(plan.updates[len(found) - 1] * of / rows)
    trials: dict[str, Trial] = {name: TRIALS[name] for name in order}
    number = len(found)
    round_ = number, made.begun[number]
    return Seen(trials, last, gaps, round_, made.failed[number], sum(map(len, found)), updates, rows, of)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:g} {form(seconds / 60, 'minute')}"
