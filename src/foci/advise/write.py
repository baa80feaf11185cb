"""Writes the run file of an advice: the settings of the best trial, with what was seen and how sure it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from foci.advise.results import Result
from foci.advise.trials import BATCH, WARMUP, Trial
from foci.config.commented import run_file
from foci.config.run import Run
from foci.system.words import counted, form


@dataclass(frozen=True)
class Seen:
    """The last round: its trials, the best first, their results, and how far each is behind the best.

    `round` is its number and how many trials it began with, `failed` how many of them failed. `updates` are those of
    the advised run: as many per row as in the last round.
    """

    trials: Mapping[str, Trial]
    results: Mapping[str, Result]
    gaps: Mapping[str, tuple[float, float, float]]
    round: tuple[int, int]
    failed: int
    count: int
    updates: int
    rows: int
    of: int


def advice(run: Run, seen: Seen, minutes: float) -> tuple[str, list[str]]:
    """Returns the run file as text, and the lines that say what was seen."""
    lines, trial = _lines(seen), next(iter(seen.trials.values()))
    name = "advised" if trial.methods else "plain"
    settings: dict[str, Any] = {
        **({"seed": run.seed} if run.seed else {}),
        "model.name": run.model.name,
        **_given("model", run.model, "name"),
        "corpus.path": run.corpus.path[0] if len(run.corpus.path) == 1 else list(run.corpus.path),
        "corpus.max_length": run.corpus.max_length,
        **_given("corpus", run.corpus, "path", "max_length"),
        "probes.learn": "made",
        "train.steps": seen.updates,
        "train.batch_size": BATCH,
        "train.learning_rate": trial.rate,
        "train.warmup": WARMUP,
        "arms": {name: list(trial.methods)},
    }
    head = [
        f"Advised by foci after {counted(seen.count, 'trial')} in at most {minutes:g} "
        f"{form(minutes, 'minute')}: {trial.said}.",
        *lines,
        "",
        f"train.steps reads each row as often as the trials of the last round did ({counted(seen.of, 'row')} here, "
        f"{seen.rows} there).",
    ]
    return run_file(settings, head, further=("adapter.r", "train.patience", "probes.every")), lines


def _given(section: str, values: BaseModel, *written: str) -> dict[str, Any]:
    """Returns the settings of a section that are no defaults, by key, but for those that are written anyway."""
    given = values.model_dump(mode="json", exclude_defaults=True)
    return {f"{section}.{key}": value for key, value in given.items() if key not in written}


def _lines(seen: Seen) -> list[str]:
    """Says what each trial of the last round learned and kept, and how sure the order is."""
    best, *others = seen.trials
    width = max(len(trial.said) for trial in seen.trials.values())
    found = [f"Round {seen.round[0]}, on {seen.rows} of {counted(seen.of, 'row')}. Shares of answer tokens, in %:"]
    for name, trial in seen.trials.items():
        learned, kept = (100 * sum(v.values()) / max(1, len(v)) for v in (
            seen.results[name].learned, seen.results[name].kept))  # fmt: skip
        gap = ""
        if name in seen.gaps:
            less, low, high = (100 * value for value in seen.gaps[name])
            gap = f"  behind by {less:.1f} points [{low:.1f}, {high:.1f}]" + ("" if low > 0 else ", not told apart")
        found.append(f"  {trial.said:<{width}}  learned {learned:5.1f}  kept {kept:5.1f}{gap}")
    trials = counted(seen.round[1], "trial")
    if seen.failed:
        found.append(f"{seen.failed} of the {trials} of this round failed.")
    if len(seen.trials) + seen.failed < seen.round[1]:
        found.append(f"Only {len(seen.trials)} of the {trials} of this round fitted into the time.")
    alike = [seen.trials[name].said for name in others if seen.gaps[name][1] <= 0]
    asked = len(seen.results[best].learned), len(seen.results[best].kept)
    if alike:
        found.append(f"The best cannot be told apart from: {'; '.join(alike)}.")
    elif others:
        found.append("The best is better than all others of this round.")
    found.append(
        f"Learned is of {counted(asked[0], 'held-out question')}, kept of "
        f"{counted(asked[1], 'general fact')}; intervals are over these "
        "questions, at 95 %, with one seed."
    )
    return found
