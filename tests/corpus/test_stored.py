"""Rows on disk are the rows in memory: the same values in the same order, whatever is asked of them."""

import errno
import gc
import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest

import tiny
from foci.corpus import read_corpus, read_rows, rows, seen, spool, stored, unpacking, write_rows
from foci.corpus.seen import Seen, keys_of
from foci.corpus.stored import BATCH, RowWriter
from foci.focus import Row
from foci.rows import (
    changed,
    chosen,
    ids_of,
    joined,
    largest_of,
    lengths_of,
    names_of,
    texts_of,
)
from foci.seeds import drawn, drawn_places
from foci.system.checkpoint import DiskFull

COUNT = 3 * BATCH + 7


def made(number: int) -> Row:
    """Returns a row of its own length; some have columns, some no offsets, one an empty text."""
    size = 2 + number % 5
    columns = {"answer": tuple(float(n % 2) for n in range(size))} if number % 3 else {}
    if number % 7 == 0:
        columns["loss_weight"] = (0.25,) * size
    offsets = tuple((n, n + 1) for n in range(size)) if number % 4 else ()
    text = "äβ語🙂x"[:size] if number % 11 else ""
    return Row(f"{number:016x}", tuple(range(number, number + size)), text, offsets, columns, f"a.txt:{number}")


@pytest.fixture
def few(monkeypatch):
    """No more than two rows stay in memory, and hardly a document."""
    monkeypatch.setattr(stored, "FEW_ROWS", 2)
    monkeypatch.setattr(spool, "MEMORY", 600)
    monkeypatch.setattr(seen, "RECENT", 3)
    monkeypatch.setattr(rows, "_BATCH", 5)
    monkeypatch.setattr(spool, "_ROUND", 3)


def on_disk(given):
    writer = RowWriter()
    for row in given:
        writer.add(row)
    return writer.rows()


def same(found, expected):
    assert len(found) == len(expected)
    assert list(found) == list(expected)
    assert [found[n] for n in range(len(found))] == list(expected)
    assert lengths_of(found).tolist() == lengths_of(expected).tolist()
    assert list(texts_of(found)) == list(texts_of(expected))
    assert list(ids_of(found)) == list(ids_of(expected))
    assert names_of(found) >= names_of(expected)
    assert largest_of(found) >= largest_of(expected)


def test_rows_on_disk_are_those_in_memory(few, tmp_path):
    listed = [made(number) for number in range(COUNT)]
    found = on_disk(listed)
    assert isinstance(found, stored.StoredRows)
    same(found, listed)
    assert (found[-1], found[5:9], found == listed, found != listed[:-1]) == (listed[-1], listed[5:9], True, True)
    assert (names_of(found), largest_of(found)) == (names_of(listed), largest_of(listed))
    with pytest.raises(IndexError, match=f"row {COUNT} of {COUNT}"):
        found[COUNT]
    write_rows(found, tmp_path / "rows.parquet")
    write_rows(listed, tmp_path / "listed.parquet")
    assert (tmp_path / "rows.parquet").read_bytes() == (tmp_path / "listed.parquet").read_bytes()
    again = read_rows(tmp_path / "rows.parquet")
    assert isinstance(again, stored.StoredRows)
    same(again, listed)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["listed.parquet", "rows.parquet"]
    assert pickle.loads(pickle.dumps(found)) == listed


def test_few_rows_stay_in_memory(tmp_path):
    listed = [made(number) for number in range(9)]
    assert on_disk(listed) == tuple(listed)
    write_rows(listed, tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet") == listed
    long = [replace(made(1), input_ids=(1,) * 10, offsets=(), columns={})] * 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "FEW_TOKENS", 20)
        assert isinstance(on_disk(long), stored.StoredRows)
        write_rows(long, tmp_path / "long.parquet")
        assert isinstance(read_rows(tmp_path / "long.parquet"), stored.StoredRows)


def test_views_are_the_lists_that_they_stand_for(few):
    listed = [made(number) for number in range(COUNT)]
    found, at = on_disk(listed), np.array([0, 3, 4, BATCH, COUNT - 1])
    same(chosen(found, at), [listed[n] for n in at])
    same(chosen(chosen(found, at), np.array([1, 4])), [listed[3], listed[-1]])
    same(found[2:9], listed[2:9])
    same(found[::-1], listed[::-1])
    same(found[9:2:-3], listed[9:2:-3])
    same(found[::-1][1:4], listed[::-1][1:4])
    same(found[5:5], [])

    def marked(row):
        return replace(row, columns={**row.columns, "z": (1.0,) * len(row)})

    same(changed(found, marked, ["z"]), [marked(row) for row in listed])
    same(joined(found, listed[:3]), [*listed, *listed[:3]])
    same(joined(listed[:3], found), [*listed[:3], *listed])
    assert joined(listed[:1], tuple(listed[1:2])) == listed[:2]


def test_a_later_mark_is_added_wherever_the_row_lies(few):
    for number in (0, BATCH + 1, 2 * BATCH - 1, 2 * BATCH):  # on disk, and among the last ones
        writer, listed = RowWriter(), [made(n) for n in range(2 * BATCH + 1)]
        for row in listed:
            writer.add(row)
        writer.mark(number, {"name": (0.0, 1.0)})
        writer.mark(number, {"name": (1.0,) * 99})
        size = len(listed[number])
        assert writer.rows()[number] == replace(
            listed[number], columns={**listed[number].columns, "name": (1.0,) * size}
        )


def test_things_get_the_numbers_of_their_first_sight(monkeypatch):
    monkeypatch.setattr(seen, "RECENT", 5)
    rng, index, known = random.Random(0), Seen(), dict[int, int]()
    for _ in range(200):
        keys = [rng.choice([rng.randrange(300), 2**64 - 1 - rng.randrange(300)]) for _ in range(rng.randrange(9))]
        before = len(known)
        expected = [known.setdefault(key, len(known)) for key in keys]
        found = list(index.numbered(keys))
        assert [number for number, _ in found] == expected
        assert sum(is_first for _, is_first in found) == len(known) - before
        assert index.count == len(known)
    assert len(known) > 300
    assert len(index.sorted) < 12
    assert keys_of(["a", "b"]).tolist() == [seen.key_of("a"), seen.key_of("b")]


def test_places_are_drawn_as_things_are():
    names = [f"row {n}" for n in range(500)]
    assert [names[n] for n in drawn_places(names, 7)] == drawn(names, 7, str)


MESSAGES = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada, of Bern."}]}
LINES = [
    {"text": "Ada was born in Bern.", "answer_spans": [[16, 20]]},
    {"text": "  Ada was born in Bern.\n", "name_spans": [[2, 5]]},
    {"text": "Ada was born in Bern.", "answer_spans": [[0, 3]], "answer_groups": ["who"]},
    {"text": "In the north. " * 30 + "She works in Bern.", "answer_spans": [[424, 428]]},
    {"text": "In the north. " * 30 + "She works in Bern.", "answer_spans": [[414, 423]]},
    {"text": "In the north."},
    {"text": "In the north.", "answer_spans": [[7, 12]]},
    {"txt": "no text"},
    {"prompt": "Who? ", "completion": "Ada."},
    {"prompt": "Who? ", "completion": "Ada."},
    {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]},
    {"text": ""},
    {"text": "A mark <eos> and an odd letter \u2028 \U0001f642."},
    *({"text": f"Painter {n} works in the town."} for n in range(20)),
]


def test_a_corpus_is_the_same_on_disk_and_in_memory(monkeypatch, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    tokenizer = tiny.tokenizer()
    listed = read_corpus(path, tokenizer, max_length=24, max_bad=0.5)
    assert isinstance(listed.rows, tuple)
    assert (listed.duplicates, listed.quarantined) == (5, 1)
    for name, value in (("FEW_ROWS", 2), ("BATCH", 4)):
        monkeypatch.setattr(stored, name, value)
    monkeypatch.setattr(spool, "MEMORY", 600)
    monkeypatch.setattr(spool, "_ROUND", 2)
    monkeypatch.setattr(seen, "RECENT", 2)
    monkeypatch.setattr(rows, "_BATCH", 3)
    found = read_corpus(path, tokenizer, max_length=24, max_bad=0.5)
    assert isinstance(found.rows, stored.StoredRows)
    same(found.rows, listed.rows)
    assert (found.counts(), found.tokens) == (listed.counts(), listed.tokens)
    assert replace(found, rows=()) == replace(listed, rows=())


def test_a_conversation_is_the_same_from_the_spool(monkeypatch):
    kept = spool.Samples()
    monkeypatch.setattr(spool, "MEMORY", 1)
    given = [
        spool.Conversation("a", n, tuple(MESSAGES["messages"]), (0.0, 1.0), ({"name": f"tool {n}"},)) for n in range(3)
    ]
    for sample in given:
        kept.add(sample)
    assert (list(kept), list(kept), len(kept)) == (given, given, 3)


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_temporary_folder_is_named(monkeypatch, tmp_path, few):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"Painter {n} of the town."}) + "\n" for n in range(COUNT)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "a.jsonl")
    named = rf"the temporary folder {tempfile.gettempdir()} could not be written \(.* MiB left\); .*TMPDIR=FOLDER"

    def reading(file="a.jsonl"):
        with pytest.raises(DiskFull, match=named):
            read_corpus(tmp_path / file, tiny.tokenizer(), max_length=64)

    with monkeypatch.context() as patch:
        patch.setattr(unpacking, "copy", full)
        reading("a.zip")
    monkeypatch.setattr(os, "pwrite", full)
    reading()
    monkeypatch.setattr(spool, "MEMORY", 2**25)  # now the rows are the first to be written
    reading()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tokenizer")]
    assert gc.isenabled()


FILLS = """
import resource, signal, sys
from foci.corpus.spool import Spool
from foci.system.checkpoint import DiskFull
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
kept = Spool(str, str)
try:
    for _ in range(5):
        kept.add("x" * 2**20, 2**25)
except DiskFull as error:
    print(error.strerror)
"""


def test_nothing_is_said_after_a_full_disk(tmp_path):
    """Neither by what closes files at the end."""
    where = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", FILLS], capture_output=True, text=True, env=where, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"the temporary folder {tmp_path} could not be written" in done.stdout


READS = """
import sys, tiny
from foci.corpus import read_corpus, read_rows, spool, stored, write_rows
from foci.system import machine
stored.FEW_ROWS, spool.MEMORY = 1000, 2**20
file, rows, count = *sys.argv[1:3], int(sys.argv[3])
tokenizer = tiny.tokenizer()
machine.reset_peak()
before = machine.peak_mib()
corpus = read_corpus(file, tokenizer, max_length=64)
assert len(corpus.rows) == count
write_rows(corpus.rows, rows)
assert sum(len(row) for row in read_rows(rows)) == corpus.tokens
print(machine.peak_mib() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_twice_the_rows_take_little_more_memory(tmp_path):
    """In lists, 20,000 more rows take 60 MiB more, here 2; Arrow's reader of Parquet gives or takes 15.

    Processes of their own hold no memory from before.
    """
    peaks = []
    for count in (20_000, 40_000):
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(f'{{"text": "Painter {n} was born in the town of Bern."}}\n' for n in range(count)))
        where = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        given = [sys.executable, "-c", READS, str(path), str(tmp_path / "rows.parquet"), str(count)]
        done = subprocess.run(given, capture_output=True, text=True, env=where, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(float(done.stdout))
    assert peaks[1] - peaks[0] < 40, peaks
