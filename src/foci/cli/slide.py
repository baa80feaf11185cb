"""The command `foci slide`: learned against retained along the change that training made."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from foci.system.files import existing
from foci.system.signals import Interrupted
from foci.system.terminal import Terminal

slide_app = typer.Typer()


class Way(StrEnum):
    """The kind of share that is taken of the change."""

    scale = "scale"
    prune = "prune"


@slide_app.command()
def slide(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    how: Annotated[
        Way, typer.Option(help="scale: a share of the change's size; prune: its entries with the largest scores.")
    ] = Way.scale,
    points: Annotated[int, typer.Option(help="Steps from the untouched model to the trained one.")] = 5,
    keep: Annotated[
        float | None, typer.Option(help="Write each arm's model that keeps this share (0 to 1) of what was known.")
    ] = None,
) -> None:
    """Show what each arm learns and keeps with only a share of its change; write a model that keeps more.

    Run the same command again to continue: shares that were asked are kept.
    """
    existing(run, "run", "give the output folder of a `foci learn` run")
    if not (run / "run.yaml").is_file():
        raise ValueError(f"{run} is not a run: there is no run.yaml in it; give the output folder of `foci learn`")
    from foci.slide.run import slide as run_slide

    console = Terminal()
    try:
        found = run_slide(run, how=how.value, points=points, keep=keep, console=console)
    except Interrupted as stop:
        raise stop.going_on("the same command goes on where it stopped") from None
    console.print()
    print_slide(found, console)
    console.print(f"\nreport: {run / 'report.html'}", highlight=False, markup=False, soft_wrap=True)


def print_slide(found: Mapping[str, Any], console: Console) -> None:
    """Prints one line per point of each arm, and the two numbers by which arms are compared."""
    from foci.report.tables import Table, terminal
    from foci.report.words import NONE, number, percent

    heads = ("arm", "share of\nchange, %", "learned\n%", "retained\n%", "learned\ntokens, %", "bits per\nbyte")
    rows = []
    for name, arm in found["arms"].items():
        for n, point in enumerate(arm["points"]):
            bits = number(point.get("bits_per_byte"))
            shares = [percent(point[key]) for key in ("at", "learned_whole", "retained_whole", "learned")]
            rows.append(["" if n else name, *shares, NONE if bits is None else f"{bits:.3f}"])
    console.print(terminal(Table(heads, rows), fold=6))
    base = found["baseline"] or "plain"
    keep = f"{100 * found['keep']:g} % kept, %"
    names = ("learned_at_kept", "tokens_at_kept", "kept_at_plain")
    compared = [[name, *(_at(arm, own) for own in names)] for name, arm in found["arms"].items()]
    console.print()
    console.print(
        terminal(
            Table(("arm", f"learned at\n{keep}", f"tokens at\n{keep}", f"kept at {base}'s\nlearned, %"), compared),
            fold=6,
        )
    )
    words = (
        "In brackets: the share of the change, chosen on held-out probes; the numbers are of the other probes. Between "
        "two measured shares, numbers are interpolated linearly; nothing is extrapolated."
    )
    console.print(Text(words, style="dim"))


def _at(arm: Mapping[str, Any], name: str) -> str:
    """Writes a share in per cent, with the share of the change: "31.2 (60 %)"."""
    from foci.report.words import NONE, percent
    from foci.slide.curve import COMPARED

    if name in arm["not_reached"]:
        return "not reached"
    value, share = arm[name], arm[COMPARED[name][1]]
    return NONE if value is None or share is None else f"{percent(value)} ({percent(share, 0)} %)"
