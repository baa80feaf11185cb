"""python -m benchmarks [NAME...]: runs the benchmarks, prints a table, writes results.json."""

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import described
from benchmarks.side_by_side import Allowance
from benchmarks.table import lines, table

SECONDS = {
    "step": 35,
    "lean": 55,
    "passes": 60,
    "packing": 30,
    "sft": 120,
    "sparse": 55,
    "imitates": 50,
    "loss": 30,
    "padding": 5,
    "probing": 90,
    "influence": 80,
    "gradnorm": 50,
    "attention": 55,
    "growth": 60,
    "documents": 30,
    "rows": 30,
    "chat": 40,
    "checkpoint": 20,
}
"""The benchmarks in their order, with the seconds of `MINUTES` that each may take; later ones get what is left."""
MINUTES, GPU_MINUTES = 15.0, 9.0
CPU_ONLY = {
    "padding": "counts positions",
    "documents": "reads files",
    "rows": "reads files",
    "checkpoint": "writes files",
}
"""Benchmarks that no GPU changes, with why."""
RESULTS = Path(__file__).with_name("results.json")


def main() -> int:
    """Returns the exit code: 0, 1 where a benchmark failed, 2 for what cannot be run."""
    chosen = parser().parse_args()
    if unknown := sorted(set(chosen.names) - set(SECONDS)):
        parser().error(f"there is no benchmark {', '.join(unknown)}; choose from {', '.join(SECONDS)}")
    if chosen.gpu and not torch.cuda.is_available():
        print(
            "There is no GPU here: torch sees no CUDA device (torch.cuda.is_available() is False), so nothing was "
            "measured. Run this on a machine with a GPU and a build of torch for it, or leave out --gpu.",
            file=sys.stderr,
        )
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    names = [name for name in SECONDS if name in (chosen.names or SECONDS)]
    left_out = {name: why for name, why in CPU_ONLY.items() if chosen.gpu and name in names}
    found: dict[str, Any] = {}
    measured_here = [name for name in names if name not in left_out]
    for name, made in measurements(measured_here, minutes(chosen), quick=chosen.quick, strict=bool(chosen.gpu)):
        found[name] = made
        for line in lines(name, made):
            print(line, flush=True)
        if chosen.gpu:
            write_folder(Path(chosen.gpu), found, left_out)
        elif not chosen.quick:
            write(found)
    print("\n" + table(found))
    return int(any("error" in made for made in found.values()))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed and memory, each beside its rival, measured in turns. Writes benchmarks/results.json.",
        epilog="example: python -m benchmarks lean sft --minutes 30",
    )
    made.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(SECONDS)}; all if none is given")
    made.add_argument(
        "--minutes",
        type=float,
        help=f"time for all benchmarks; more time gives more turns ({MINUTES:g}; GPU: {GPU_MINUTES:g})",
    )
    made.add_argument(
        "--quick", action="store_true", help="small sizes and one turn, not for publishing; results.json stays as it is"
    )
    made.add_argument(
        "--gpu", metavar="FOLDER", help="measure on a GPU, and write FOLDER/results.json and FOLDER/table.md instead"
    )
    return made


def minutes(chosen: argparse.Namespace) -> float:
    return chosen.minutes or (GPU_MINUTES if chosen.gpu else MINUTES)  # type: ignore[no-any-return]


def measurements(
    names: Sequence[str], total: float, *, quick: bool, strict: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs benchmarks one after another, each with its share of the time that is left of `total` minutes for all.

    A benchmark makes at least one turn, so a slow machine takes longer. `strict`: when the time is over, the others are
    left out by name, since a GPU costs money.
    """
    ends = time.perf_counter() + 60 * total * sum(SECONDS[name] for name in names) / sum(SECONDS.values())
    for number, name in enumerate(names):
        share = SECONDS[name] / sum(SECONDS[later] for later in names[number:])
        left = ends - time.perf_counter()
        if strict and left <= 0:
            yield name, {"seconds": 0.0, "results": [], "error": f"left out, {total:g} minutes are over (--minutes)"}
        else:
            yield name, measured(name, Allowance(max(0.0, left) * share, quick))


def measured(name: str, allowed: Allowance) -> dict[str, Any]:
    """One benchmark's results with the date, the machine and how busy it was; or its error, so that others go on."""
    load, clock, processor = os.getloadavg()[0], time.perf_counter(), time.process_time()
    made: dict[str, Any] = {}
    try:
        made["results"] = [result.as_json() for result in importlib.import_module(f"benchmarks.{name}").run(allowed)]
    except Exception as error:
        traceback.print_exc()
        made = {"results": [], "error": f"{type(error).__name__}: {error}"}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 1),
        "seconds_allowed": round(allowed.seconds, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
        **described(),
        **made,
    }


def write(found: dict[str, Any]) -> None:
    """Replaces what was measured, keeps the other benchmarks' results."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    merged = {name: (known | found)[name] for name in SECONDS if name in known | found}
    RESULTS.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")


def write_folder(folder: Path, found: dict[str, Any], left_out: dict[str, str]) -> None:
    """Writes what there is so far, so that a machine that is taken away leaves its numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    left = "".join(f"\nNot measured, since a GPU changes nothing: {name} ({why})." for name, why in left_out.items())
    (folder / "table.md").write_text(f"{table(found)}\n{left}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
