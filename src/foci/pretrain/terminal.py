"""The table of a pretraining, or of its grid, on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from foci.pretrain.table import share_words, words


def print_arms(found: Mapping[str, Any], console: Console) -> None:
    """Prints one line per arm: the held-out loss, and how soon it is at the baseline's last one."""
    table = Table(box=None, pad_edge=False)
    for head in ("arm", "nats per token", "difference", "bits per byte", "steps", "seconds"):
        table.add_column(head, justify="left" if head == "arm" else "right")
    for arm, of in found["arms"].items():
        table.add_row(
            arm, words(of["nats"]), words(of["nats"]["difference"], signed=True), words(of["bits_per_byte"]),
            share_words(of["step_ratio"]), share_words(of["seconds_ratio"]),
        )  # fmt: skip
    console.print(table, highlight=False)


def print_grid(grid: Mapping[str, Any], console: Console) -> None:
    """Prints one line per learning rate and warm-up: every arm's held-out loss and difference from the baseline."""
    table = Table(box=None, pad_edge=False)
    for head in ("learning rate", "warm-up", *grid["arms"]):
        table.add_column(head, justify="right")
    for point in grid["points"]:
        of = point["arms"]
        losses = []
        for arm in grid["arms"]:
            gap = words({**of[arm]["nats"]["difference"], "low": None}, signed=True)
            losses.append(words({**of[arm]["nats"], "low": None}) + (f" ({gap})" if gap else ""))
        table.add_row(f"{point['learning_rate']:g}", f"{point['warmup']:g}", *losses)
    console.print(table, highlight=False)
