"""A pretraining from its file to its table: arms x seeds, one after another; finished cells are never run again."""

from typing import Any

from rich.console import Console

from foci.config.run import dump_run
from foci.models.gguf import without_bars
from foci.pretrain.cells import Cell, check, run_cell
from foci.pretrain.config import Pretraining
from foci.pretrain.plots import draw, draw_heads
from foci.pretrain.table import markdown, table
from foci.pretrain.text import material
from foci.system.files import read_json, read_lines, write_json, write_text
from foci.system.folder import FolderKind, claim
from foci.system.machine import machine, versions
from foci.system.run_folder import ArmFolder
from foci.system.signals import stoppable
from foci.system.terminal import Terminal
from foci.system.words import counted

PRETRAINING = FolderKind("pretraining", "pretrain.yaml", begun=("tokenizer",))


def pretrain(run: Pretraining, *, overwrite: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Trains every arm with every seed where that was not done before; gives the table (also table.json).

    Writes tokenizer/, cells/, table.json, table.md, loss.svg and, of guided arms' first seed, heads-ARM.svg and
    maps-ARM.svg to `run.output` (figures as .png too). A torn cell goes on where it stopped. `overwrite` runs again
    what was run with other settings or another text.

    Raises ValueError for input that cannot work, FileExistsError for a folder that is not free, `Interrupted` after a
    signal (the checkpoint is written), `NonFinite` and `DiskFull` where training cannot go on.
    """
    console = console or Terminal()
    with stoppable() as stop, claim(run.output, PRETRAINING), without_bars():
        text = material(run)
        check(run, text)
        console.print(
            f"{run.output}: {counted(len(text.rows), 'row')} to learn ({sum(map(len, text.rows)):,} tokens), "
            f"{len(text.held_out)} to validate on, {len(text.tokenizer):,} tokens known",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        text.tokenizer.save_pretrained(run.output / "tokenizer")
        cells = [Cell(arm, seed, run, text) for seed in run.seeds for arm in run.arms]
        for cell in cells if overwrite else ():
            cell.forget()
        waiting = [cell for cell in cells if cell.result() is None]
        write_text(run.output / "pretrain.yaml", dump_run(run))
        for number, cell in enumerate(waiting, start=len(cells) - len(waiting) + 1):
            console.print(f"cell {number} of {len(cells)}: {cell.name}", highlight=False)
            run_cell(cell, console, stop)
            written(run, cells)
        found = written(run, cells)
        _draw(run, cells, found)
        return found


def written(run: Pretraining, cells: list[Cell]) -> dict[str, Any]:
    """Writes the table of the finished cells, and returns it."""
    curves: dict[str, dict[int, Any]] = {}
    for cell in cells:
        if cell.result() is not None:
            curves.setdefault(cell.arm, {})[cell.seed] = read_lines(cell.validation)
    found = {**table(run, curves), "machine": machine(), "versions": versions()}
    write_json(run.output / "table.json", found, sealed=True)
    write_text(run.output / "table.md", markdown(found))
    return found


def _draw(run: Pretraining, cells: list[Cell], found: dict[str, Any]) -> None:
    """Draws the figures of all cells."""
    draw(found, run.output)
    for cell in cells:
        folder = ArmFolder(cell.path)
        if cell.seed == run.seeds[0] and folder.maps.is_file():
            draw_heads(cell.arm, read_lines(folder.guided), read_json(folder.maps), run.output)
