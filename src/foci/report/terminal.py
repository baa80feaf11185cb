"""The before/after table of a summary: on the terminal, and in Markdown."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foci.report.words import Pair, count, decimal, number, percent

HEADS = ("learned\n%", "retained\n%", "bits per\nbyte", "balanced\n%", "majority\n%", "steps", "sec.")
ASCII = {ord("→"): "->", ord("\N{EN DASH}"): "-", ord("\N{NARROW NO-BREAK SPACE}"): ","}
"""What stands for the characters of the table where the console cannot show them."""


def print_table(summary: Mapping[str, Any], console: Console) -> None:
    """Prints one line per arm, before -> after, in 80 columns; plain text where the console is no terminal."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("arm\n", overflow="fold", min_width=6)
    for head in HEADS:
        table.add_column(head.replace("majority", "major."), justify="right", no_wrap=True)  # room for longer names
    ascii_only = not console.encoding.lower().startswith("utf")

    def text(words: str, style: str = "") -> Text:
        return Text(words.translate(ASCII) if ascii_only else words, style=style)

    for name, arm in _arms(summary).items():
        table.add_row(text(str(name), "bold"), *(text(cell.replace(" ", "")) for cell in _cells(arm)))
    console.print(table)
    console.print(text(_caption(summary), "dim"))


def markdown_table(summary: Mapping[str, Any]) -> str:
    """The same table for a README, one line per arm; names cannot break it."""
    heads = ["arm", *(head.replace("\n", ", " if "%" in head else " ") for head in HEADS)]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * len(HEADS)]
    for name, arm in _arms(summary).items():
        lines.append(f"| {_escaped(name)} | {' | '.join(_cells(arm))} |")
    return "\n".join(lines) + "\n"


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
        f"before → after. learned: share of the answer tokens of {learn} learn probes that the model predicts; "
        f"retained: the same over the {known} of {asked} retain probes that the untouched model answers; "
        "balanced: learned with every answer counting alike; majority: what always giving the commonest "
        "answer would score; bits per byte of general text, lower is better."
    )


def _escaped(name: str) -> str:
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    table = {ord(c): entities.get(c, f"\\{c}") for c in "\\`*_{}[]<>|#&"}
    return " ".join(str(name).split()).translate(table)
