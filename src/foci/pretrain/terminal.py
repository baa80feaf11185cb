"""The table of a pretraining on the terminal."""

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
