"""Runs `foci slide`: asks the questions of a run along the change that training made in each arm."""

import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from foci import models
from foci.config.run import Run, load_run
from foci.learn.baseline import Start, load, prepared
from foci.learn.chosen import check_weights
from foci.models.gguf import without_bars
from foci.probes.held_out import fact
from foci.report.write import write_report
from foci.slide.change import Slider
from foci.slide.curve import SLACK, at_kept, compared, level_of, measured
from foci.slide.folder import SlideFolder
from foci.slide.settings import KEEP, PROSE, How
from foci.slide.write import write_at
from foci.system import machine, processes
from foci.system.files import read_json, write_json
from foci.system.folder import locked
from foci.system.run_folder import ArmFolder, RunFolder
from foci.system.signals import stoppable
from foci.system.terminal import Terminal
from foci.system.words import counted

ROUNDS = 4
"""Points, at most, that are asked to find one that keeps as much as `--keep` says."""


def slide(
    path: Path, *, how: How = "scale", points: int = 5, keep: float | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Asks every arm's questions at the shares 0, 1/points, ... 1 of its change; returns what slide.json says.

    `keep`: also writes each arm's model at the share where most is learned while so much (0 to 1) is retained. Shares
    that were asked before are not asked again. Raises ValueError, by name, for an arm that cannot be slid and a run
    without probes to learn and to retain; FileNotFoundError where there is no run.
    """
    console = console or Terminal()
    run = load_run(path)
    if points < 1 or (keep is not None and not 0 < keep <= 1):
        raise ValueError(f"--points is at least 1 and --keep above 0 and at most 1, got {points} and {keep}; change it")
    folder = RunFolder(path, len(run.arms))
    results = {name: _result(name, folder.arm(name), path, run) for name in run.arms}
    with stoppable(), processes.together(), processes.opened_by_first(partial(locked, path), folder.config):
        start, _ = prepared(run, folder, console)
        if {answer.role for answer in start.answers if answer.counted} != {"learn", "retain"}:
            raise ValueError(
                f"{path} asks no probes to learn, or none to retain that the untouched model answers, so there is no "
                "curve of learned against retained; run it again with probes.learn and probes.retain"
            )
        if keep is not None:
            _check_choice(start, path)
        curves, written = {}, {}
        for name in run.arms:
            arm = Sliding(name, start, folder.arm(name), how, console)
            curves[name] = arm.curve([n / points for n in range(points + 1)], results[name])
            if keep is not None:
                curves[name], written[name] = arm.keep(keep)
        found = {**summary(curves, how, keep or KEEP, _base(run)), "written": written}
        if processes.is_first():
            write_json(path / "slide.json", found, sealed=True)
            write_report([path], folder.report)
    return found


def _result(name: str, arm: ArmFolder, path: Path, run: Run) -> Mapping[str, Any]:
    """Returns the arm's result. Raises ValueError where the arm is not finished or its model is gone."""
    result = read_json(arm.result)
    if result is None:
        raise ValueError(
            f"arm {name} of {path} is not finished; go on with: foci learn {shlex.quote(str(path))} --resume"
        )
    if not arm.model.is_dir() and run.model.bits is not None:
        raise ValueError(
            f"arm {name} of {path} was trained on weights in {run.model.bits} bits (model.bits), which have no merged "
            "model to slide along; train it again without model.bits"
        )
    if not arm.model.is_dir():
        raise ValueError(
            f"arm {name} of {path} has no saved model ({arm.model} is not there), so there is nothing to slide along; "
            "train it again, or keep the models of a suite with keep_models: true"
        )
    return result  # type: ignore[no-any-return]


def _check_choice(start: Start, path: Path) -> None:
    """Raises ValueError where no probes can choose the share that `--keep` writes, or none are left to report."""
    found = measured(start.answers, start.run.seed)
    for role in ("learn", "retain"):
        number = {"learn": "learned", "retain": "retained"}[role]
        chosen, reported = found[f"held_out_{number}"], found[f"{number}_whole"]
        if chosen is None or reported is None:
            facts = len({fact(a.group, a.answer, a.probe_id) for a in start.answers if a.counted and a.role == role})
            raise ValueError(
                f"{path} asks {counted(facts, 'fact')} to {role} that count, so none are "
                f"{'held out to choose how much of the change is kept' if chosen is None else 'left to report'}; "
                "--keep needs at least 2, some of them not held out: run it again with more probes"
            )


def _base(run: Run) -> str | None:
    """Returns the arm that others are compared with: plain, or the first without methods."""
    without = [name for name, methods in run.arms.items() if not methods]
    return "plain" if "plain" in without else next(iter(without), None)


class Sliding:
    """One arm's change, asked along.

    Every process must call each method: they share the questions, and the first writes.
    """

    def __init__(self, name: str, start: Start, arm: ArmFolder, how: How, console: Console) -> None:
        self.name, self.start, self.arm, self.how, self.console = name, start, arm, how, console
        self.folder = SlideFolder(arm, how)
        self._loaded: tuple[models.Loaded, Slider] | None = None

    def curve(self, shares: Sequence[float], result: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the points of the curve, by rising share; asks those that were not asked before."""
        waiting = processes.from_first(partial(self._waiting, shares, result["weights_sha256"]))
        for number, share in enumerate(waiting):
            took = self.ask(share)
            left = len(waiting) - number - 1
            rest = f", about {left * took:.0f} s to go" if left else ""
            self._say(f"{share:4.0%} of the change asked in {took:.0f} s{rest}")
        if not waiting:
            self._say("asked before")
        return self.points()

    def _waiting(self, shares: Sequence[float], model: str) -> list[float]:
        """Returns the shares that are still to be asked; the untouched model's answers are there already."""
        self.folder.begin({"model": model, "start": self.start.fingerprint})
        if 0.0 not in self.folder.known():
            self.folder.write(0.0, self.start.answers, self.start.answers, self.start.texts)
        return [share for share in shares if share not in self.folder.known()]

    def points(self) -> list[dict[str, Any]]:
        """Returns all points that were asked."""
        return processes.from_first(lambda: curve(self.folder, self.start.run.seed))

    def ask(self, share: float) -> float:
        """Asks the questions at a share of the change, writes the answers, and returns the seconds it took."""
        begin = time.perf_counter()
        loaded, slider = self.loaded()
        slider.move(share)
        answers, texts = self.start.questions.ask(loaded.model, loaded.tokenizer)
        if processes.is_first():
            self.folder.write(share, answers, self.start.answers, texts)
        processes.wait()
        return time.perf_counter() - begin

    @without_bars()
    def loaded(self) -> tuple[models.Loaded, Slider]:
        """Returns the untouched model, whose weights slide, loaded once."""
        if self._loaded is None:
            again = f"foci learn {shlex.quote(str(self.start.run.output))} --resume"
            check_weights(self.arm.model, read_json(self.arm.result) or {}, self.start.run, again)
            start = load(self.start)
            end = models.load(str(self.arm.model), trust_remote_code=self.start.run.model.trust_remote_code)
            weights = {name: parameter.detach() for name, parameter in end.model.named_parameters()}
            self._loaded = start, Slider(start.model, weights, self.how)
        return self._loaded

    def keep(self, keep: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Writes the model that keeps `keep` of what was known; returns the curve and what was written.

        The share is found on held-out probes.
        """
        points, chosen = self._found(keep)
        loaded, slider = self.loaded()
        trusted, written = self.start.run.model.trust_remote_code, self.folder.written(keep)
        place = processes.from_first(
            lambda: write_at(loaded, slider, chosen["at"], self.arm, written, self.how, trusted=trusted)
        )
        self._say(
            f"wrote {place['model']} at {chosen['at']:.1%} of the change: "
            f"learned {100 * chosen['learned_whole']:.1f} %, retained {100 * chosen['retained_whole']:.1f} %"
        )
        self._say(place["said"])
        return points, {"at": chosen["at"], **place}

    def _found(self, keep: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Returns the curve, and its point where most is learned while so much is kept, both on held-out probes.

        Between two points the share is found by a straight line, asked there and found again, until a point that was
        asked keeps enough.
        """
        for _ in range(ROUNDS):
            points = self.points()
            share = at_kept(points, keep)
            if share is None or share in {point["at"] for point in points}:
                break
            self._say(f"{share:4.0%} of the change asked in {self.ask(share):.0f} s")
        points = self.points()
        good = [p for p in points if (p["held_out_retained"] or 0.0) >= level_of(points, keep) - SLACK]
        chosen = max(good, key=lambda p: ((p["held_out_learned"] or 0.0), -p["at"])) if good else points[0]
        return points, chosen

    def _say(self, words: str) -> None:
        self.console.print(f"  {self.name}  {words}", highlight=False, markup=False, soft_wrap=True)


def summary(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], how: str, keep: float, base: str | None
) -> dict[str, Any]:
    """Returns the numbers that the table and the report show: each arm's curve and the points that compare arms."""
    plain = curves.get(base or "", [])
    arms = {name: {"points": list(points), **compared(points, plain, keep, PROSE)} for name, points in curves.items()}
    return {"how": how, "keep": keep, "baseline": base, "arms": arms}


def curve(folder: SlideFolder, seed: int, shares: Collection[float] | None = None) -> list[dict[str, Any]]:
    """Returns the points of an arm that were asked, by rising share; with `shares` those alone."""
    known = folder.known()
    return [
        {**known[share], **measured(folder.answers(share), seed)}
        for share in sorted(known)
        if shares is None or share in shares
    ]


def slide_cell(run: Run, how: How, shares: Sequence[float], console: Console) -> None:
    """Asks the questions of a finished run with one arm along its change; goes on where it stopped.

    An arm whose model could not be written (the run's notes say why) has no slider; its folder says so.
    """
    (name,) = run.arms
    machine.release_memory()  # of the cell before
    folder = RunFolder(run.output, 1)
    with stoppable(), processes.opened_by_first(partial(locked, run.output), folder.config):
        start, _ = prepared(run, folder, console)
        arm = Sliding(name, start, folder.arm(name), how, console)
        result = read_json(folder.arm(name).result)
        if processes.from_first(folder.arm(name).model.is_dir):
            arm.curve(shares, result)
        elif processes.is_first():
            arm.folder.give_up(result["weights_sha256"], "; ".join(result["notes"]) or "its model was not written")
