"""The command `foci score`: runs the offline stages of a run's methods, without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from foci.bench.config import Suite, kind_of
from foci.cli.inputs import check_run
from foci.config.run import Run, load
from foci.system.signals import Interrupted
from foci.system.terminal import Terminal

score_app = typer.Typer()


@score_app.command()
def score(
    target: Annotated[Path, typer.Argument(help="Run file or suite file (.yaml).")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="Changes of single keys, such as corpus.max_length=64.")
    ] = None,
) -> None:
    """Compute what the methods of a run need before training; `foci learn` then finds these results.

    Run the same command again to continue where the offline stages stopped. Under torchrun, processes share the work.
    """
    run, suite = run_of(target, changes or [])
    check_run(run)
    from foci.learn.score import score as run_score

    console = Terminal()
    try:
        found = run_score(run, shared_only=suite, console=console)
    except Interrupted as stop:
        raise stop.going_on("the same command goes on where it stopped") from None
    for arm, methods in found["methods"].items():
        console.print(f"{arm}: {', '.join(methods)}", highlight=False, markup=False, soft_wrap=True)
    if found["premise"]:
        console.print(_premise_table(found["premise"]), highlight=False)
    if found["methods"]:
        speed = (
            f": {found['tokens'] / found['seconds']:,.0f} tokens/s" if found["tokens"] else " (all was computed before)"
        )
        console.print(f"models read {found['tokens']:,} tokens in {found['seconds']:.1f} s{speed}", highlight=False)


def _premise_table(lines: list[dict[str, Any]]) -> Table:
    """Returns the table of the attention to the name from the token before an answer; writes a model's name once."""
    table = Table(box=None, pad_edge=False, title="attention to the name before an answer", title_justify="left")
    for head in ("model", "answer", "tokens away", "attention", "95 % interval", "names"):
        text = head in ("model", "answer")
        table.add_column(head, justify="left" if text else "right", overflow="fold", no_wrap=head == "95 % interval")
    short, last = _shortest_ends({line["model"] for line in lines}), ""
    for line in lines:
        name = f"{line['side']}: {short[line['model']]}"
        spread = "" if line["low"] is None else f"{line['low']:.4f} to {line['high']:.4f}"
        cells = (str(line["distance"]), f"{line['mean']:.4f}", spread, str(line["names"]))
        table.add_row("" if name == last else name, line["group"], *cells)
        last = name
    return table


def _shortest_ends(paths: set[str]) -> dict[str, str]:
    """Returns the last parts of each path, as many as are needed to tell all paths apart.

    >>> _shortest_ends({"pair/large/model", "pair/small/model"})["pair/small/model"]
    'small/model'
    """
    for depth in range(1, max((len(Path(path).parts) for path in paths), default=1) + 1):
        tails = {path: "/".join(Path(path).parts[-depth:]) for path in paths}
        if len(set(tails.values())) == len(paths):
            break
    return tails


def run_of(path: str | Path, changes: Sequence[str]) -> tuple[Run, bool]:
    """Reads a run file or a suite file; returns the run and whether the file is a suite's.

    The run of a suite has `-score` after its output: the suite's cells find there only what a method keeps in a folder
    that its settings name.
    """
    run: Run = load(path, changes, kind_of)
    if not isinstance(run, Suite):
        return run, False
    known = {name: getattr(run, name) for name in ("model", "corpus", "probes", "adapter", "train", "arms")}
    output = run.output.with_name(f"{run.output.name}-score")
    return Run(name=run.name, output=output, seed=run.seeds[0], **known), True
