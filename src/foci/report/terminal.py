"""The table of a run, before and after training: on the terminal and in Markdown."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from foci.report import tables
from foci.report.words import Pair, count, decimal, number, percent

HEADS = ("learned\n%", "retained\n%", "bits per\nbyte", "balanced\n%", "majority\n%", "steps", "sec.")
ASCII = {ord("→"): "->", ord("\N{EN DASH}"): "-", ord("\N{NARROW NO-BREAK SPACE}"): ","}
"""Replacements for the table's characters on a console that cannot show them."""


def print_table(summary: Mapping[str, Any], console: Console) -> None:
    """Prints one line per arm, before -> after, in 80 columns; plain text where the console is not a terminal."""
    ascii_only = not console.encoding.lower().startswith("utf")

    def shown(words: str) -> str:
        return words.translate(ASCII) if ascii_only else words

    heads = ["arm\n", *(head.replace("majority", "major.") for head in HEADS)]  # room for longer names
    rows = [
        [shown(str(name)), *(shown(cell.replace(" ", "")) for cell in _cells(arm))]
        for name, arm in _arms(summary).items()
    ]
    table = tables.terminal(tables.Table(heads, rows), fold=6)
    table.columns[0].style = "bold"
    console.print(table)
    console.print(Text(shown(_caption(summary)), style="dim"))


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Returns the same table in Markdown, one line per arm."""
    heads = ["arm", *(head.replace("\n", ", " if "%" in head else " ") for head in HEADS)]
    rows = [[str(name), *_cells(arm)] for name, arm in _arms(summary).items()]
    return tables.markdown(tables.Table(heads, rows)) + "\n"


def _arms(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    arms = summary.get("arms")
    if not isinstance(arms, Mapping) or not arms:
        raise ValueError(f"a summary needs 'arms' with at least one arm, got {arms!r}; give the summary.json of a run")
    return arms


def _cells(arm: Mapping[str, Any]) -> list[str]:
    controls = arm.get("controls") or {}
    bits = arm.get("bits_per_byte") or {}
    seconds = number(arm.get("seconds"))
    return [
        _shares(arm.get("learned")),
        _shares(arm.get("retained")),
        f"{decimal(bits.get('before'))} → {decimal(bits.get('after'))}",
        _shares(controls.get("balanced")),
        percent(controls.get("majority")),
        count(arm.get("steps")),
        decimal(seconds, 1 if seconds is not None and seconds < 10 else 0),
    ]


def _shares(pair: Pair | None) -> str:
    pair = pair or {}
    return f"{percent(pair.get('before'))} → {percent(pair.get('after'))}"


def _caption(summary: Mapping[str, Any]) -> str:
    arm = next(iter(_arms(summary).values()))
    learn, known, asked = (count(arm.get(k)) for k in ("learn_probes", "retained_probes", "retain_asked"))
    return (
        f"before → after. learned: share of the answer tokens of {learn} probes to learn that the model predicts; "
        f"retained: the same over the {known} of {asked} probes to retain that the untouched model answers; "
        "balanced: learned with every answer counting alike; majority: what always giving the commonest "
        "answer would reach; bits per byte of general text, lower is better."
    ) + _reach(summary)


def _reach(summary: Mapping[str, Any]) -> str:
    """Returns a sentence about arms whose adapter leaves out more than one weight in 200; empty where none does."""
    shares = {str(name): number(arm.get("adapted")) for name, arm in _arms(summary).items()}
    some = [f"{percent(share)} % ({name})" for name, share in shares.items() if share is not None and share < 0.995]
    return f" The adapter reaches this share of the matrix weights: {', '.join(some)}." if some else ""
