"""The results of a suite on the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from foci.bench.markdown import CHOSEN_ON
from foci.pretrain.table import HEADS as ARM_HEADS
from foci.pretrain.table import cells, words
from foci.probes.asking import Answer
from foci.probes.probe import kind_of
from foci.probes.table import summarise
from foci.report import tables
from foci.report.words import NONE, number, percent

HEADS = ("arm", "learned\n%", "retained\n%", "sum\n%", "sum, from\n{base}", "balanced\n%", "updates")


def print_suite(table: Mapping[str, Any], console: Console) -> None:
    """Prints one line per arm at the reported point: means and half of their intervals. The files say more."""
    heads = [head.format(base=table["baseline"] or "plain") for head in HEADS]
    rows = []
    for arm, told in table["arms"].items():
        at = told["chosen"]
        scores = [_share(at[name]) for name in ("learned", "retained", "total")]
        paired = _share(at["total"]["difference"] or {}, sign="+")
        step = number(at["step"].get("mean"))
        rows.append([arm, *scores, paired, _share(at["balanced"]), NONE if step is None else f"{step:g}"])
    console.print(tables.terminal(tables.Table(heads, rows)))
    seeds, confidence = len(table["seeds"]), 100 * table["confidence"]
    spread = (
        f"{seeds} seeds, mean and half of the {confidence:.0f} % interval" if seeds > 1 else "one seed, no intervals"
    )
    console.print(Text(f"{spread}; the point is chosen on {CHOSEN_ON[table['chosen_on']]}.", style="dim"))


def _share(mean: Mapping[str, Any], sign: str = "") -> str:
    """A share in per cent with half of its interval: "61.2 ±6.2"."""
    known, high = number(mean.get("mean")), number(mean.get("high"))
    if known is None:
        return NONE
    half = "" if high is None else f" ±{100 * (high - known):.1f}"
    return f"{100 * known:{sign}.1f}{half}"


def _locality(found: Mapping[str, Any]) -> dict[str, str]:
    if "locality_after_weighed" not in found:
        return {}
    plain, weighed = found["locality_after_plain"], found["locality_after_weighed"]
    return {"moved on other text (nats)": f"{plain:.2e} by a plain step, {weighed:.2e} by the weigher's"}


def print_meta(found: Mapping[str, Any], weigher: Path, console: Console) -> None:
    """Prints the summary of a meta-training and where the weigher is."""
    table = Table(box=None, show_header=False)
    for name, value in {
        "later loss (nats)": f"{found['later_nll_before']:.3f} before a step on the document",
        "": f"{found['later_nll_after_plain']:.3f} after a plain one",
        " ": f"{found['later_nll_after_weighed']:.3f} after one by the weigher",
        **_locality(found),
        "answer in the top 5 %": "unknown" if (hits := found["answer_in_top_5_percent"]) is None else f"{hits:.0%}",
        "seconds": f"{found['seconds']['influence']:.0f} + {found['seconds']['weigher']:.0f}",
    }.items():
        table.add_row(name, value)
    console.print(table, highlight=False)
    console.print(f"weigher: {weigher}", highlight=False, markup=False, soft_wrap=True)


def print_arms(found: Mapping[str, Any], console: Console) -> None:
    """Prints one line per arm: the held-out loss, and how soon it is at plain's last one."""
    rows = [cells(arm, of) for arm, of in found["arms"].items()]
    console.print(tables.terminal(tables.Table(ARM_HEADS, rows), ruled=False), highlight=False)


def print_grid(grid: Mapping[str, Any], console: Console) -> None:
    """Prints one line per learning rate and warm-up: every arm's held-out loss and difference from plain."""
    heads, rows = ("learning rate", "warm-up", *grid["arms"]), []
    for point in grid["points"]:
        of = point["arms"]
        losses = []
        for arm in grid["arms"]:
            gap = words({**of[arm]["nats"]["difference"], "low": None}, signed=True)
            losses.append(words({**of[arm]["nats"], "low": None}) + (f" ({gap})" if gap else ""))
        rows.append([f"{point['learning_rate']:g}", f"{point['warmup']:g}", *losses])
    console.print(tables.terminal(tables.Table(heads, rows, "r" * len(heads)), ruled=False), highlight=False)


def print_answers(answers: Sequence[Answer], binding: float | None, console: Console) -> None:
    """Prints a model's answers to learn and to retain, by kind, and controls of those to learn, `binding` too."""
    heads, rows = ("role", "kind", "probes", "accuracy", "all right", "nll (nats)", "exact match", "F1"), []
    for role, kind in sorted({(a.role, a.kind) for a in answers}):
        some = [a for a in answers if (a.role, a.kind) == (role, kind)]
        extra = (
            [_mean([a.exact_match for a in some]), _mean([a.f1 for a in some])] if kind_of(kind).generated else ["", ""]
        )
        shares = [
            _mean([a.accuracy for a in some]),
            _mean([float(a.correct) for a in some]),
            _mean([a.nll for a in some]),
        ]
        rows.append([role, kind, str(len(some)), *shares, *extra])
    console.print(tables.terminal(tables.Table(heads, rows, "llrrrrrr"), ruled=False), highlight=False)
    if controls := summarise(answers, answers)["controls"]:
        console.print(_control_words(controls, binding), highlight=False, markup=False)


def _control_words(controls: Any, binding: float | None) -> str:
    """Says the controls of `foci.probes.table.summarise` in one line, in per cent."""
    shares = {
        "majority": controls["majority"],
        "balanced": controls["balanced"]["after"],
        "balanced majority": controls["balanced_majority"],
        "binding": binding,
    }
    said = (f"{name} {NONE if share is None else f'{percent(share)} %'}" for name, share in shares.items())
    return f"controls of the probes to learn: {', '.join(said)}"


def _mean(values: Sequence[Any]) -> str:
    return f"{sum(v or 0.0 for v in values) / len(values):.3f}"
