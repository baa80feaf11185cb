"""Prints the results of bench, meta, pretrain and probe on the terminal: one function for each table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from foci.bench import notes
from foci.bench.markdown import reached
from foci.pretrain.table import HEADS as PRETRAIN_HEADS
from foci.pretrain.table import cells, words
from foci.probes.asking import Answer
from foci.probes.probe import kind_of
from foci.probes.table import summarise
from foci.report.tables import Table, terminal
from foci.report.words import NONE, number, percent

BENCH_HEADS = (
    "arm", "learned\n%", "retained\n%", "sum, from\n{base}", "learned\ntokens, %", "retained\ntokens, %", "updates",
)  # fmt: skip
PROBE_HEADS = (
    "probes\nto", "kind\n", "count\n", "right\n%", "tokens\n%", "nll\nnats", "F1\n%", "SQuAD's\nexact, %",
)  # fmt: skip


def print_suite(table: Mapping[str, Any], console: Console) -> None:
    """Prints one line per arm of `foci bench`, at the reported point: means and half of their intervals."""
    heads = [head.format(base=table["baseline"] or "plain") for head in BENCH_HEADS]
    rows = []
    for arm, results in table["arms"].items():
        at = results["chosen"]
        whole = [_percent(at[name]) for name in ("learned_whole", "retained_whole")]
        paired = _percent(at["total_whole"]["difference"] or {}, sign="+")
        tokens = [_percent(at[name]) for name in ("learned", "retained")]
        step = number(at["step"].get("mean"))
        rows.append([arm, *whole, paired, *tokens, NONE if step is None else f"{step:g}"])
    console.print(terminal(Table(heads, rows)))
    seeds, confidence = len(table["seeds"]), 100 * table["confidence"]
    spread = "One seed, no intervals."
    if seeds > 1:
        spread = f"{seeds} seeds, mean and half of the {confidence:.0f} % interval."
    words = (
        f"{spread} {notes.point(table)} learned, retained: whole answers that are right; tokens: answer tokens "
        "predicted, given the true words before them."
    )
    console.print(Text(words, style="dim"))
    if table["slide"] is not None:
        _print_along(table, console)


def _print_along(table: Mapping[str, Any], console: Console) -> None:
    """Prints one line per arm at equal learning or equal forgetting; of spans, at equal bits per byte or equal NLL."""
    slide, base = table["slide"], table["baseline"] or "plain"
    kept, paired = f"at {100 * slide['keep']:g} %\nkept, %", f"from\n{base}"
    show, columns = _percent, [
        (f"learned {kept}", "learned_at_kept", ""), (f"tokens {kept}", "tokens_at_kept", ""),
        (paired, "tokens_at_kept", "+"), (f"kept at {base}'s\nlearned, %", "kept_at_plain", ""),
        (paired, "kept_at_plain", "+"),
    ]  # fmt: skip
    if slide["by"] == "nll":
        show, columns = _decimal, [
            (f"NLL at {slide['prose']:g} x\nbits per byte", "nll_at_prose", ""), (paired, "nll_at_prose", "+"),
            (f"bits per byte\nat {base}'s NLL", "prose_at_nll", ""), (paired, "prose_at_nll", "+"),
        ]  # fmt: skip
    if table["baseline"] is None:
        columns = [(head, name, sign) for head, name, sign in columns if name.endswith(("kept", "prose")) and not sign]
    rows = []
    for arm, told in slide["arms"].items():
        cells = [
            show(told[name]["difference"] or {}, sign) if sign else reached(show(told[name]), told[name], "")
            for _, name, sign in columns
        ]
        rows.append([arm, *cells])
    console.print()
    console.print(terminal(Table(["arm", *(head for head, _, _ in columns)], rows), fold=6))
    words = (
        "along the change that training made, at shares that are chosen on held-out probes and read off the others; "
        "between two measured shares, numbers are interpolated linearly"
    )
    if any(None in told[name]["values"] for told in slide["arms"].values() for _, name, _ in columns):
        words += "; (1 of 3): the seeds that have a number"
    console.print(Text(words, style="dim"))


def print_meta(summary: Mapping[str, Any], weigher: Path, console: Console) -> None:
    """Prints the summary of `foci meta`, and the folder of its weigher."""
    hits = summary["answer_in_top_5_percent"]
    lines = [
        ("later loss (nats)", f"{summary['later_nll_before']:.3f} before a step on the document"),
        ("", f"{summary['later_nll_after_plain']:.3f} after a plain step"),
        ("", f"{summary['later_nll_after_weighed']:.3f} after a step with the weigher's weights"),
        ("answer in the top 5 %", "unknown" if hits is None else f"{hits:.0%}"),
        ("seconds", f"{summary['seconds']['influence']:.0f} + {summary['seconds']['weigher']:.0f}"),
    ]
    if "locality_after_weighed" in summary:
        plain, weighed = summary["locality_after_plain"], summary["locality_after_weighed"]
        lines.insert(3, ("moved on other text (nats)", f"{plain:.2e} by a plain step, {weighed:.2e} by the weigher's"))
    table = RichTable(box=None, show_header=False)
    for name, value in lines:
        table.add_row(name, value)
    console.print(table, highlight=False)
    console.print(f"weigher: {weigher}", highlight=False, markup=False, soft_wrap=True)


def print_arms(table: Mapping[str, Any], console: Console) -> None:
    """Prints one line per arm of `foci pretrain`: its held-out loss, and how soon it reaches that of the baseline."""
    rows = [cells(arm, results) for arm, results in table["arms"].items()]
    console.print(terminal(Table(PRETRAIN_HEADS, rows), ruled=False), highlight=False)


def print_grid(grid: Mapping[str, Any], console: Console) -> None:
    """Prints one line per learning rate and warm-up: each arm's held-out loss, and its difference from plain."""
    heads, rows = ("learning rate", "warm-up", *grid["arms"]), []
    for point in grid["points"]:
        losses = []
        for arm in grid["arms"]:
            nats = point["arms"][arm]["nats"]
            gap = words({**nats["difference"], "low": None}, signed=True)
            losses.append(words({**nats, "low": None}) + (f" ({gap})" if gap else ""))
        rows.append([f"{point['learning_rate']:g}", f"{point['warmup']:g}", *losses])
    console.print(terminal(Table(heads, rows, "r" * len(heads)), ruled=False), highlight=False)


def print_answers(answers: Sequence[Answer], binding: float | None, console: Console) -> None:
    """Prints the answers of `foci probe`: one line per kind of probes to learn and to retain, then the controls."""
    rows = []
    for role, kind in sorted({(answer.role, answer.kind) for answer in answers}):
        some = [answer for answer in answers if (answer.role, answer.kind) == (role, kind)]
        generated = kind_of(kind).generated
        results = [
            _share([float(answer.correct) for answer in some]),
            _share([answer.accuracy for answer in some]),
            f"{sum(answer.nll for answer in some) / len(some):.3f}",
            _share([answer.f1 for answer in some]) if generated else "",
            _share([answer.squad_exact_match for answer in some]) if generated else "",
        ]
        rows.append([role, kind, str(len(some)), *results])
    console.print(terminal(Table(PROBE_HEADS, rows, "llrrrrrr"), ruled=False), highlight=False)
    words = "right: whole answers; tokens: answer tokens predicted, given the true words before them"
    console.print(Text(words, style="dim"))
    if controls := summarise(answers, answers)["controls"]:
        console.print(_control_words(controls, binding), highlight=False, markup=False)


def _control_words(controls: Any, binding: float | None) -> str:
    """Says the controls of `foci.probes.table.summarise` in one line, in per cent."""
    shares = {
        "majority": controls["majority"],
        "balanced": controls["balanced_whole"]["after"],
        "balanced majority": controls["balanced_majority"],
        "binding": binding,
    }
    said = (f"{name} {NONE if share is None else f'{percent(share)} %'}" for name, share in shares.items())
    return f"controls of the probes to learn: {', '.join(said)}"


def _percent(mean: Mapping[str, Any], sign: str = "") -> str:
    """Writes a mean share in per cent with half of its interval: "61.2 ±6.2"."""
    share, high = number(mean.get("mean")), number(mean.get("high"))
    if share is None:
        return NONE
    half = "" if high is None else f" ±{100 * (high - share):.1f}"
    return f"{100 * share:{sign}.1f}{half}"


def _decimal(mean: Mapping[str, Any], sign: str = "") -> str:
    """Writes a mean with three digits and half of its interval: "1.234 ±0.050"."""
    known, high = number(mean.get("mean")), number(mean.get("high"))
    if known is None:
        return NONE
    return f"{known:{sign}.3f}" + ("" if high is None else f" ±{high - known:.3f}")


def _share(values: Sequence[float | None]) -> str:
    """Writes the mean of the values, shares from 0 to 1, in per cent; None counts as 0."""
    return percent(sum(value or 0.0 for value in values) / len(values))
