"""`foci score`: what a kill leaves, what `foci learn` finds, two processes, and the premise."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import runs
import tiny
from foci import models
from foci.attention import pair_attention, received
from foci.cli import score as score_command
from foci.corpus import read_corpus, stored
from foci.corpus.shards import Done, Shards
from foci.focus import Batch, Row
from foci.methods.contrast.corpus_attention import AttentionQuery
from foci.methods.contrast.premise import dropped, kinds, premise
from foci.models.forward import device_of
from foci.system.files import read_json

NAMES = [
    f"{first} {last}" for first in ("Ada", "Ben", "Cy", "Dora", "Emil", "Fay") for last in ("North", "Hill", "Wood")
]
TOWNS = ("Bern", "Oslo", "Rome")


def documents():
    """54 texts of two values each, with the places of name and values."""
    found = []
    for name in NAMES:
        for n, town in enumerate(TOWNS):
            job = ("painter", "cook", "pilot in the north")[n]
            text = f"{name} was born in {town} and works as a {job}."
            spans = [[text.index(value), text.index(value) + len(value)] for value in (town, job)]
            line = {
                "text": text,
                "answer_spans": spans,
                "name_spans": [[0, len(name)]],
                "answer_groups": ["town", "job"],
            }
            found.append(line)
    return found


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """A tiny learner, which is the small model too, a large one, and texts of which names and values are known."""
    folder = tmp_path_factory.mktemp("things")
    made = runs.material(folder)
    tiny.save_model(folder / "large", seed=5)
    runs.write_lines(folder / "names.jsonl", documents())
    return made


def run_file(folder, things, **contrast):
    large = things.model.with_name("large")
    return runs.run_file(
        folder, things, corpus={"path": str(things.model.with_name("names.jsonl")), "max_length": 128},
        arms={"plain": [], "contrast": [{"contrast": {"large": str(large), "dtype": "float32", **contrast}}]},
        probes={"every": None}, train={"epochs": None, "steps": 1},
    )  # fmt: skip


@pytest.fixture
def small_shards(monkeypatch):
    """A few rows a shard, here and in processes of their own."""
    monkeypatch.setattr("foci.corpus.shards.TOKENS", 600)


def tables(folder):
    """{path within the folder: (its bytes' hash, its row ids)} of all shards."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(), pq.read_table(path).column("row_id").to_pylist(),
        )
        for path in sorted(folder.rglob("part-*.parquet"))
    }  # fmt: skip


def rows_of(things):
    tokenizer = models.load(str(things.model)).tokenizer
    return read_corpus(things.model.with_name("names.jsonl"), tokenizer, max_length=128).rows


# --- shards ---


def column(rows):
    return [tuple(float(len(row)) + at for at in range(len(row))) for row in rows]


def some(count=23):
    return [Row(f"r{n}", tuple(range(2 + n % 7))) for n in range(count)]


def test_every_row_is_in_one_shard_with_rows_of_like_length(tmp_path):
    rows = some()
    shards = Shards(tmp_path, {"model": "m"}, "c", rows, tokens=20)
    assert sorted(at for part in shards.parts for at in part) == list(range(23))
    assert all(sum(len(rows[at]) for at in part) <= 20 for part in shards.parts)
    lengths = [len(rows[at]) for part in shards.parts for at in part]
    assert lengths == sorted(lengths, reverse=True)
    assert shards.column_of(column) == column(rows)
    assert Shards(tmp_path, {"model": "m"}, "c", [Row("long", tuple(range(99)))], tokens=20).parts == [[0]]


def test_processes_share_them_out_and_what_is_there_stays(tmp_path):
    rows, seen = some(), []

    def counted(part):
        seen.extend(row.row_id for row in part)
        return column(part)

    shards = Shards(tmp_path, {"model": "m"}, "c", rows, tokens=20)
    one = list(shards.fill(counted, 1, 2))
    there = [shards.path(part).exists() for part in range(len(shards.parts))]
    assert there == [part % 2 == 1 for part in range(len(shards.parts))]
    two = list(shards.fill(counted, 0, 2))
    assert sum(done.tokens for done in one + two) == sum(map(len, rows))
    assert shards.complete()
    assert set(shards.fill(counted)) == {Done(0, 0.0)}
    assert shards.column_of(counted) == column(rows)
    assert sorted(seen) == sorted(row.row_id for row in rows)


def test_a_shard_of_something_else_is_refused(tmp_path):
    rows = some()
    list(Shards(tmp_path, {"model": "m"}, "c", rows, tokens=20).fill(column))
    for key, others in (({"model": "n"}, rows), ({"model": "m"}, rows[1:])):
        with pytest.raises(ValueError, match="is stale"):
            Shards(tmp_path, key, "c", others, tokens=20).column_of(column)
    wrong = Shards(tmp_path, {"model": "m"}, "c", rows, tokens=20)
    wrong.path(1).write_bytes(wrong.path(0).read_bytes())
    assert wrong.column_of(column) == column(rows)  # a file that is not the one that was written is made again


# --- the command ---

SCRIPT = """
import os, sys
import foci.system.cache, foci.corpus.shards
from foci.cli.main import main

foci.corpus.shards.TOKENS = 600
left, write = [int(sys.argv.pop(1))], foci.system.cache.write_json

def counted(*arguments):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), 9)
    write(*arguments)

foci.system.cache.write_json = counted
main()
"""


def launched(folder, launch, file, kill_at=0):
    """`foci score` of small shards in a process of its own, ended before it says that its n-th shard is there."""
    script = folder / "score.py"
    script.write_text(SCRIPT)
    one_device = {"CUDA_VISIBLE_DEVICES": ""} if torch.cuda.device_count() < 2 else {}  # NCCL: a device per process
    return subprocess.run(
        [*launch, str(script), str(kill_at), "score", str(file)], capture_output=True, text=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | one_device, check=False,
    )  # fmt: skip


def test_kill_9_loses_and_doubles_no_row(tmp_path, things, capsys, small_shards):
    """Killed with a shard written but not yet said to be: it is made again, the ones before it are not."""
    whole, torn = run_file(tmp_path / "whole", things), run_file(tmp_path / "torn", things)
    runs.told(["score", whole], capsys)
    expected = tables(tmp_path / "whole" / "out")
    assert len(expected) >= 6
    killed = launched(tmp_path, [sys.executable], torn, kill_at=3)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    scores = next((tmp_path / "torn" / "out").rglob("part-00000.parquet")).parent
    assert {path.stem for path in scores.glob("part-*.json")} == {"part-00000", "part-00001"}
    assert (scores / "part-00002.parquet").exists()
    before = {path.name: path.stat().st_mtime_ns for path in scores.glob("part-*.parquet")}
    said = runs.told(["score", torn], capsys)
    assert tables(tmp_path / "torn" / "out") == expected
    after = {path.name: path.stat().st_mtime_ns for path in scores.glob("part-*.parquet")}
    assert [name for name in before if before[name] != after[name]] == ["part-00002.parquet"]
    ids = sorted(row.row_id for row in rows_of(things))
    for side in {path.rpartition("/")[0] for path in expected}:
        found = [row for path, (_, part) in expected.items() if path.startswith(side) for row in part]
        assert sorted(found) == ids
    tokens = sum(map(len, rows_of(things)))
    read = int(re.search(r"models read ([\d,]+) tokens in \S+ s: [\d,]+ tokens/s", said)[1].replace(",", ""))
    assert 0 < read < 2 * tokens
    assert "(all was computed before)" in runs.told(["score", torn], capsys)


def test_learn_finds_what_was_scored(tmp_path, things, capsys, monkeypatch):
    file = run_file(tmp_path, things)
    said = runs.told(["score", file], capsys)
    rate = re.search(r"contrast: Contrast\(large=.*rate=([\d.]+), dropped=\(\('names', 0", said)[1]
    sides = re.findall(r"^(large|small): (\S+)", said, re.MULTILINE)
    assert [side for side, _ in sides] == ["large", "small"]
    assert len({name for _, name in sides}) == 2  # two models are never called the same
    monkeypatch.setattr("foci.methods.contrast.cached.attention_received", None)
    runs.told(["learn", file], capsys)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert f"rate={rate}" in summary["arms"]["contrast"]["methods"][0]
    again = runs.told(["score", file], capsys)
    assert "(all was computed before)" in again


def test_a_run_without_an_offline_half_is_refused(tmp_path, things, capsys):
    file = runs.run_file(tmp_path, things)
    words = runs.refused(["score", file], capsys)
    assert "nothing to score: none of the arms plain, oracle has a method" in words


def test_a_suite_is_scored_where_its_cells_look(tmp_path, things, capsys):
    file = run_file(tmp_path, things, scores=str(tmp_path / "shared"))
    text = file.read_text().replace("seed: 3\n", "seeds: [3, 4]\n")
    file.write_text(text)
    runs.told(["score", file], capsys)
    assert len(list((tmp_path / "shared").glob("*/part-00000.parquet"))) == 2
    run, suite = score_command.run_of(file, ["seeds=[7]"])
    assert (suite, run.seed, run.output.name) == (True, 7, "out-score")


def test_two_processes_make_the_same(tmp_path, things, capsys, small_shards):
    one, two = run_file(tmp_path / "one", things), run_file(tmp_path / "two", things)
    runs.told(["score", one], capsys)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = launched(tmp_path, launch, two)
    assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs = tables(tmp_path / "one" / "out"), tables(tmp_path / "two" / "out")
    assert {path: ids for path, (_, ids) in ours.items()} == {path: ids for path, (_, ids) in theirs.items()}
    for path in ours:
        a, b = (
            pq.read_table(folder / "out" / path).column("columns").to_pylist()
            for folder in (tmp_path / "one", tmp_path / "two")
        )
        for x, y in zip(a, b, strict=True):
            assert dict(x)["attention"] == pytest.approx(dict(y)["attention"], abs=1e-6)
    found = read_json(tmp_path / "two" / "out" / "scores.json")
    assert "seal" in (tmp_path / "two" / "out" / "scores.json").read_text()
    assert found["processes"] == 2
    assert found["tokens"] == 2 * sum(map(len, rows_of(things)))
    assert done.stdout.count("tokens/s") == 1


# --- the premise ---


def by_hand(loaded, row, line, group):
    """(query, name's tokens, attention of the pairs) of one row, from the characters of its line."""
    (start, _), (a, b) = line["answer_spans"][group], line["name_spans"][0]
    query = next(t for t, (_, end) in enumerate(row.offsets) if end > start) - 1
    keys = [t for t, (s, e) in enumerate(row.offsets) if s < b and e > a and row.text[s:e].strip() and t > 0]
    batch = Batch.of([row], tiny.PAD).to(device_of(loaded.model))
    pairs = torch.tensor([[0, query, key] for key in keys], device=batch.input_ids.device)
    return query, keys, pair_attention(loaded.model, batch.input_ids, batch.attention_mask, pairs)


def test_the_premise_is_the_attention_from_before_a_value_to_the_name(things):
    loaded, rows, lines = models.load(str(things.model), dtype="float32"), rows_of(things), documents()
    found = premise(loaded, rows[:12], loaded.tokenizer, AttentionQuery())  # four names, three texts each
    assert [line["group"] for line in found] == ["town", "job"]
    for at, line in enumerate(found):
        shares = [float(by_hand(loaded, rows[n], lines[n], at)[2].mean((1, 2)).sum()) for n in range(12)]
        names = [sum(shares[n : n + 3]) / 3 for n in range(0, 12, 3)]
        assert line["mean"] == pytest.approx(sum(names) / 4, abs=1e-6)
        half = 3.182446305284263 * torch.tensor(names).double().std().item() / 2  # t of 3 degrees of freedom, n = 4
        assert line["high"] - line["mean"] == pytest.approx(half, rel=1e-3)
        assert line["mean"] - line["low"] == pytest.approx(half, rel=1e-3)
        assert line["names"] == 4
        places = [by_hand(loaded, rows[n], lines[n], at)[:2] for n in range(12)]
        distance = sum(query - keys[-1] for query, keys in places) / 12
        assert line["distance"] == pytest.approx(distance, abs=0.051)
    assert found[0]["distance"] < found[1]["distance"]


def test_the_premise_is_the_same_from_a_table(things, tmp_path):
    """Where names are is a column of the rows, whatever file they were read from."""
    loaded = models.load(str(things.model), dtype="float32")
    pq.write_table(pa.Table.from_pylist(documents()), tmp_path / "names.parquet")
    table = read_corpus(tmp_path / "names.parquet", loaded.tokenizer, max_length=128).rows
    expected, found = (
        premise(loaded, rows[:6], loaded.tokenizer, AttentionQuery()) for rows in (rows_of(things), table)
    )
    assert [line["group"] for line in found] == ["town", "job"]
    assert found == expected


def test_the_premise_without_the_sink(things):
    """Every map row is divided by what its first token leaves, also where that is next to nothing."""
    loaded, rows = models.load(str(things.model), dtype="float32"), rows_of(things)
    for layer in loaded.model.model.layers:
        layer.self_attn.q_proj.weight.data *= 30  # some queries give one key nearly everything
    (line, *_) = premise(loaded, rows[:1], loaded.tokenizer, AttentionQuery(without_first=True))
    query, keys, _ = by_hand(loaded, rows[0], documents()[0], 0)
    batch = Batch.of(rows[:1], tiny.PAD).to(device_of(loaded.model))
    chosen = torch.zeros_like(batch.input_ids, dtype=torch.bool)
    chosen[0, query] = True
    share = received(loaded.model, batch.input_ids, batch.attention_mask, queries=chosen, without_first=True)[0]
    assert line["mean"] == pytest.approx(float(share[keys].sum()), abs=1e-6)
    assert 0 < line["mean"] < 1
    assert line["low"] is None
    assert line["model"].endswith(", without the first token")


def test_the_premise_of_a_text_that_was_cut(things):
    """A piece of a line is measured where name and value both lie in it."""
    loaded, rows = models.load(str(things.model), dtype="float32"), rows_of(things)
    cut = rows[0].text.index(" and works")
    keep = [t for t, (_, end) in enumerate(rows[0].offsets) if end <= cut]
    piece = replace(rows[0].take(keep), text=rows[0].text[:cut])
    whole, part = (premise(loaded, [row], loaded.tokenizer, AttentionQuery()) for row in (rows[0], piece))
    assert [line["group"] for line in part] == ["town"]
    assert part[0]["mean"] == pytest.approx(whole[0]["mean"], abs=1e-6)


def test_no_premise_where_no_line_tells_names(things):
    loaded = models.load(str(things.model), dtype="float32")
    rows = read_corpus(things.corpus, loaded.tokenizer, max_length=64).rows
    assert premise(loaded, rows, loaded.tokenizer, AttentionQuery()) == []


def test_what_is_dropped_of_names_of_answers_and_of_the_rest(things):
    """A name's tokens have chance .1, an answer's .2, all others .3 and .5 by turns; of two rows, the first untold."""
    rows, line = rows_of(things), documents()[0]
    drops, others = [], []
    for t, (start, end) in enumerate(rows[0].offsets):
        if any(start < b and end > a and rows[0].text[start:end].strip() for a, b in line["name_spans"]):
            drops.append(0.1)
        elif any(start < b and end > a for a, b in line["answer_spans"]):
            drops.append(0.2)
        else:
            others.append((0.3, 0.5)[t % 2])
            drops.append(others[-1])
    untold = Row("elsewhere", (1, 2))
    expected = (("names", 0.1), ("answers", 0.2), ("others", round(sum(others) / len(others), 4)))
    assert dropped(kinds([untold, rows[0]]), [[0.9, 0.9], drops]) == expected
    assert dropped(kinds([untold]), [[0.9, 0.9]]) == ()


def test_rows_on_disk_have_the_kinds_of_rows_in_memory(things, monkeypatch):
    """They are other objects at each reading, and were matched by where they lie in memory."""
    rows = rows_of(things)
    monkeypatch.setattr(stored, "FEW_ROWS", 2)
    read = stored.written(rows)
    assert isinstance(read, stored.StoredRows)
    assert kinds(read) == kinds(rows)
    assert any(kinds(rows))
