"""Compares this checkout of foci with an earlier one: time and memory of the same commands, in turns.

    git worktree add ../foci-earlier COMMIT
    python tools/earlier.py ../foci-earlier --turns 3

Both run in this Python, one after the other, on a machine that does nothing else. The time of an update is the median
of a run's updates after the second, by its own metrics.jsonl, so that loading and asking do not count; a whole command
takes the processor seconds of all its threads. Prints a table in Markdown; a ratio is this checkout's number over the
earlier one's, the median of the turns with the smallest and the largest (lower is better).
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent.parent
WARM, UPDATES = 2, 6
WORDS = ("the", "of", "and", "to", "in", "a", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not")


@dataclass(frozen=True)
class Spent:
    """The seconds of what is measured, and the largest resident memory of its process in MiB."""

    seconds: float
    mib: float


def foci(source: Path, *words: str, folder: Path) -> Spent:
    """Runs a command of the foci in `source`; returns its processor seconds.

    Raises SystemExit with its last lines where it fails.
    """
    settings = {"PYTHONPATH": str(source / "src"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "0"}
    with (folder / "output.txt").open("w+") as output:
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "foci", *words],
            cwd=folder,
            env=os.environ | settings,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            output.seek(0)
            sys.exit(f"foci {' '.join(words)} of {source} failed:\n{output.read()[-2000:]}")
    return Spent(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def corpus(folder: Path, rows: int, length: int, answers: bool) -> Path:
    """Writes documents of `length` tokens: a word each, and the end of text. With `answers` one in twenty is marked."""
    documents, rng = [], random.Random(0)  # noqa: S311
    for _ in range(rows):
        words = rng.choices(WORDS, k=length - 1)
        text, spans = " ".join(words), []
        for at in range(10, length - 1, 20):
            begin = len(" ".join(words[:at])) + 1
            spans.append([begin, begin + len(words[at])])
        documents.append({"text": text} | ({"answer_spans": spans} if answers else {}))
    path = folder / "corpus.jsonl"
    path.write_text("".join(f"{json.dumps(document)}\n" for document in documents), encoding="utf-8")
    return path


def update(rows: int, length: int, arm: Sequence[str]) -> Callable[[Path, Path], Spent]:
    """Returns what measures one update of SmolLM2-135M with an adapter, on the clock, and the peak of the run."""

    def measured(source: Path, folder: Path) -> Spent:
        path = corpus(folder, rows * UPDATES, length, bool(arm))
        probe = {"id": "one", "role": "retain", "kind": "cloze", "prompt": "The sky is", "answer": "blue"}
        (folder / "probes.jsonl").write_text(json.dumps(probe) + "\n", encoding="utf-8")
        run = {
            "name": "timed",
            "output": "out",
            "model": {"name": "smollm2-135m"},
            "corpus": {"path": str(path), "max_length": length},
            "probes": {"retain": "probes.jsonl", "corpus_text": False},
            "adapter": {"type": "lora", "r": 16, "alpha": 32},
            "train": {"steps": UPDATES, "batch_size": rows, "learning_rate": 1e-3},
            "arms": {"measured": list(arm)},
        }
        (folder / "run.yaml").write_text(json.dumps(run), encoding="utf-8")
        whole = foci(source, "learn", "run.yaml", folder=folder)
        (metrics,) = folder.glob("out/**/metrics.jsonl")
        lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        assert lines[-1]["tokens"] == UPDATES * rows * length, "every update reads as many tokens"
        clock = [line["seconds"] for line in lines]
        return Spent(statistics.median(b - a for a, b in pairwise(clock[WARM - 1 :])), whole.mib)

    return measured


def asking(source: Path, folder: Path) -> Spent:
    """Measures `foci probe` with the general facts: the whole command, loading and controls included."""
    return foci(source, "probe", "smollm2-135m", "general", folder=folder)


MEASURED: dict[str, Callable[[Path, Path], Spent]] = {
    "update, all tokens, 8 x 136": update(8, 136, []),
    "update, all tokens, 16 x 256": update(16, 256, []),
    "update, 95 % of the weights 0, 8 x 136": update(8, 136, ["oracle"]),
    "foci probe smollm2-135m general": asking,
}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Says the median of the turns' ratios, with the smallest and the largest."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f}..{max(each):.2f})"


def main() -> None:
    """Measures both checkouts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("earlier", type=Path, help="an earlier checkout of foci")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", default="", help="what is measured, by a part of its name")
    given = parser.parse_args()
    print("| what | earlier | now | ratio | peak: earlier, now (MiB) | ratio |\n|---|---:|---:|---|---:|---|")
    for name, measure in MEASURED.items():
        if given.only not in name:
            continue
        sides: dict[Path, list[Spent]] = {HERE: [], given.earlier.resolve(): []}
        for turn in range(given.turns):
            for source in list(sides)[:: 1 if turn % 2 else -1]:
                with TemporaryDirectory() as folder:
                    sides[source].append(measure(source, Path(folder)))
        ours, theirs = sides.values()
        seconds = [[spent.seconds for spent in side] for side in (ours, theirs)]
        peaks = [[spent.mib for spent in side] for side in (ours, theirs)]
        now, before = (f"{statistics.median(side):.2f}" for side in seconds)
        high, low = (f"{statistics.median(side):,.0f}" for side in peaks)
        print(f"| {name} | {before} s | {now} s | {ratio(*seconds)} | {low}, {high} | {ratio(*peaks)} |", flush=True)


if __name__ == "__main__":
    main()
