"""Reading and tokenising many short texts: rows a second, and the peak memory at two sizes.

Each is measured in a process of its own, on the texts of `made`, with the tokenizer of SmolLM2-135M.
"""

import json
import random
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from transformers import AutoTokenizer

from benchmarks.side_by_side import Allowance, Result
from foci.corpus import read_corpus, read_rows, write_rows
from foci.models.locate import folder_of
from foci.system.machine import peak_mib

BATCH = 1024
NAMES = ("Ada", "Bea", "Cleo", "Dora", "Eve", "Fay", "Gwen", "Hana", "Ida", "June")
TOWNS = ("Bern", "Paris", "Oslo", "Rome", "Graz", "Lyon", "Riga", "Kiel")
BEFORE = "rows in lists of Python objects took 982 MiB for 200,000 and grew with them"


def run(allowed: Allowance) -> list[Result]:
    """The seconds of reading, beside the tokenizer alone, and the peak memory beside that of a quarter of the rows."""
    count = 40_000 if allowed.quick else 200_000
    with tempfile.TemporaryDirectory() as folder:
        files = [made(Path(folder, f"{n}.jsonl"), n) for n in (count // 4, count)]
        (_, _, less), (seconds, processor, more) = (apart("reading", file) for file in files)
        alone, processor_alone, _ = apart("tokenising", files[1])
    note = f"{count / seconds:,.0f} rows a second"
    return [
        Result.of(
            f"reading and tokenising {count:,} short texts", "s", [seconds], [alone],
            rival="json and the tokenizer's batches of 1,024 alone", note=note,
        ),
        Result.of(
            "the same, processor seconds", "processor s", [processor], [processor_alone],
            rival="json and the tokenizer alone",
        ),
        Result.of(
            f"peak memory of reading {count:,} rows, writing them, and reading these", "MiB", [more], [less],
            rival="a quarter of the rows", goal=1.1, note=BEFORE,
        ),
    ]  # fmt: skip


def made(path: Path, count: int) -> Path:
    """Writes a file of JSON lines, each with a sentence of its own."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            text = f"{rng.choice(NAMES)} {number} was born in the town of {rng.choice(TOWNS)} and works as a painter."
            file.write(json.dumps({"text": text}) + "\n")
    return path


def apart(what: str, file: Path) -> tuple[float, float, float]:
    """Seconds, processor seconds and the peak MiB of a process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit({"reading": reading, "tokenising": tokenising}[what], file).result()


def reading(file: Path) -> tuple[float, float, float]:
    """Reads a corpus as `foci learn` does, writes its rows, and reads a few of them anywhere."""
    tokenizer = AutoTokenizer.from_pretrained(folder_of("smollm2-135m"))
    begun, processor = time.perf_counter(), time.process_time()
    rows = read_corpus(file, tokenizer, max_length=64).rows
    took = time.perf_counter() - begun, time.process_time() - processor
    write_rows(rows, file.with_suffix(".parquet"))
    again = read_rows(file.with_suffix(".parquet"))
    rng = random.Random(0)
    assert all(again[n] == rows[n] for n in (rng.randrange(len(rows)) for _ in range(1000)))
    return *took, peak()


def tokenising(file: Path) -> tuple[float, float, float]:
    """Does the least that has to be done: parses the lines, and has the tokenizer give ids and offsets."""
    tokenizer = AutoTokenizer.from_pretrained(folder_of("smollm2-135m"))
    begun, processor, kept = time.perf_counter(), time.process_time(), 0
    texts = [json.loads(line)["text"] for line in file.open(encoding="utf-8")]
    for at in range(0, len(texts), BATCH):
        encodings = tokenizer.backend_tokenizer.encode_batch(texts[at : at + BATCH])
        kept += sum(len(one.ids) + len(one.offsets) for one in encodings)
    return time.perf_counter() - begun, time.process_time() - processor, peak()


def peak() -> float:
    """Returns the peak memory of this process in MiB."""
    found = peak_mib()
    assert found is not None, "this machine does not tell the peak memory of a process"
    return found
