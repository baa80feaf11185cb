"""Reading 1,000 documents of mixed kinds in one process, and the memory that it takes beside the largest of them alone.

The documents are made by the writers of the tests: PDF files of two columns, Word, HTML, slides, workbooks, e-books.
"""

import importlib
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import Allowance, Result
from foci.corpus.documents import Document, read_source
from foci.system.machine import peak_mib

SECONDS = 120.0
"""What 1,000 documents may take of one processor."""
MEMORY = 1.5
"""The most memory beside that of the largest document alone."""
COUNTS = {".pdf": 250, ".docx": 250, ".html": 250, ".pptx": 100, ".xlsx": 50, ".epub": 100}
LARGEST = 600
"""Paragraphs of the largest document, a PDF; the others have 24."""


def run(allowed: Allowance) -> list[Result]:
    """The time of reading all documents, and the peak memory of a process that reads them one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        files = made(Path(folder), 20 if allowed.quick else 5)
        largest = max(files, key=lambda file: file.stat().st_size)
        (seconds, everything, words), (_, alone, _) = (apart(some) for some in (files, [largest]))
        note = f"{len(files)} documents, {words:,} words"
        return [
            Result.of(
                f"reading documents of {len(COUNTS)} kinds, one process", "processor s", [seconds],
                [SECONDS * len(files) / 1000], rival="two minutes per 1,000", goal=1.0, note=note,
            ),
            Result.of(
                "peak memory of reading them", "MiB", [everything], [alone], rival="the largest of them alone",
                goal=MEMORY, note=f"largest: {largest.stat().st_size / 2**20:.2f} MiB",
            ),
        ]  # fmt: skip


def made(folder: Path, fewer: int) -> list[Path]:
    """Writes the documents, a `fewer`-th of them, and the largest one."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "helpers"))
    papers = importlib.import_module("papers")

    files = [papers.pdf(folder / "largest.pdf", papers.paragraphs(0, LARGEST), columns=2)]
    for ending, count in COUNTS.items():
        for number in range(count // fewer):
            texts = papers.paragraphs(number, 24)
            more: dict[str, Any] = {"columns": 2} if ending == ".pdf" else {}
            files.append(papers.WRITERS[ending](folder / f"{number}{ending}", texts, **more))
    return files


def apart(files: Sequence[Path]) -> tuple[float, float, int]:
    """Processor seconds, peak MiB and words of a process that reads files and keeps none."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(reading, files).result()


def reading(files: Sequence[Path]) -> tuple[float, float, int]:
    begun, words = time.process_time(), 0
    for file in files:
        for found in read_source(str(file), "text"):
            assert isinstance(found, Document), found
            words += len(found.text.split())
    peak = peak_mib()
    assert peak is not None, "this machine does not tell the peak memory of a process"
    return time.process_time() - begun, peak, words
