"""A run whose rows stay on disk ends in the bits of one whose rows are in memory."""

import tracemalloc
from itertools import islice

import numpy as np
import pytest
import torch

import runs
from foci import models
from foci.config.run import load_run
from foci.corpus import read_corpus, read_rows, shards, store, stored
from foci.focus import Context, LiveTeacher, Plan
from foci.learn.offline import prepare
from foci.learn.run import learn
from foci.methods import _soft_targets, build
from foci.methods.known import Known
from foci.methods.rho import Rho
from foci.methods.stm import Stm
from foci.methods.study import Study
from foci.methods.train_attention import TrainAttention, weigher
from foci.rows import Rows
from foci.seeds import generator
from foci.system.files import read_lines
from foci.training.dataset import MixedDataset, OrderedSampler, RowDataset


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


def numbers(folder):
    """Returns what every update and every probing said, without times."""
    files = sorted(folder.glob("arms/*/*.jsonl")) or sorted(folder.glob("*.jsonl"))
    return {
        file.name: [{k: v for k, v in line.items() if k != "seconds"} for line in read_lines(file)] for file in files
    }


def focused(things):
    """Returns the methods of `focused` with a weigher upon the tiny model."""
    loaded = weigher.new(str(things.model), r=2, alpha=4.0)
    torch.nn.init.normal_(loaded.weigher.head.weight, generator=torch.Generator().manual_seed(1))
    weigher.save(loaded.weigher, things.model.parent / "weigher", base=str(things.model), made_by={})
    weighs = {"train_attention": {"weigher": str(things.model.parent / "weigher")}}
    return [
        weighs,
        "study",
        {"lwf": {"strength": 3.0}},
        {"replay": {"path": "encyclopedia", "anchor": "kl", "samples": 9}},
    ]


def test_a_run_ends_in_the_same_bits(tmp_path, things, monkeypatch):
    arms = {"oracle": ["oracle", {"mix_review": {"samples": 4}}, "salient"], "focused": focused(things)}
    changes = {
        "arms": arms,
        "corpus": {"held_out_share": 0.2},
        "train": {"epochs": 1, "patience": 2, "steps": None},
        "probes": {"held_out": None},
    }
    found = []
    for few in (100, 2):
        monkeypatch.setattr(stored, "FEW_ROWS", few)
        run = load_run(runs.run_file(tmp_path / str(few), things, **changes))
        summary = learn(run)
        assert isinstance(read_rows(run.output / "rows.parquet"), list if few == 100 else stored.StoredRows)
        hashes = {name: arm["weights_sha256"] for name, arm in summary["arms"].items()}
        found.append((hashes, numbers(run.output), (run.output / "rows.parquet").read_bytes()))
    assert found[0] == found[1]
    assert found[0][1]


@pytest.mark.parametrize("method", [Known(share=0.002), Stm(threshold=500.0), Rho(), TrainAttention])
def test_columns_lie_where_the_rows_are(tmp_path, things, monkeypatch, method):
    """The same numbers, in groups of three rows: computed, and read where they were kept."""
    monkeypatch.setattr(store, "GROUP", 3)
    method = TrainAttention(**focused(things)[0]["train_attention"]) if method is TrainAttention else method
    loaded = models.load(str(things.model), dtype="float32")
    found = []
    for few in (100, 2):
        monkeypatch.setattr(stored, "FEW_ROWS", few)
        rows = read_corpus(things.corpus, loaded.tokenizer, max_length=64).rows
        context = Context(loaded.model, loaded.tokenizer, rows, tmp_path / str(few))
        for _ in range(2):
            made = method.prepare(context)[1]
            assert isinstance(made, list if few == 100 else stored.StoredRows)
            found.append(list(made))
    assert len(found[0]) == len(rows) > 6
    assert all(rows == found[0] for rows in found)
    assert len({row.columns.popitem()[1] for row in found[0]}) > 3


def test_study_rows_and_soft_targets_lie_on_disk_with_the_rows(tmp_path, things, monkeypatch):
    """The same rows to rehearse, in the same order, and the same distributions, whatever is asked of them."""
    monkeypatch.setattr(_soft_targets, "READ", 60)
    monkeypatch.setattr(shards, "TOKENS", 200)
    loaded, found = models.load(str(things.model), dtype="float32"), []
    for few in (100, 2):
        monkeypatch.setattr(stored, "FEW_ROWS", few)
        rows = read_corpus(things.corpus, loaded.tokenizer, max_length=64).rows
        plan = Plan([build(one) for one in focused(things)])
        plan, rows = prepare(plan, Context(loaded.model, loaded.tokenizer, rows, tmp_path / str(few), seed=3))
        study, lwf, replay = plan.methods[1:]
        lines, data = lwf.stored.lines(), MixedDataset(RowDataset(rows, seed=3), plan, 2)
        assert isinstance(study.texts, tuple if few == 100 else stored.StoredRows)
        assert isinstance(study.mix(0, generator(0)), tuple if few == 100 else stored.StoredRows)
        assert isinstance(lines, dict if few == 100 else _soft_targets._OnDisk)
        assert all(isinstance(old, Rows) for old in data.old)
        told = {name: [array.tolist() for array in lines[name]] for name in lines}
        assert replay.stored.lines().keys() == {row.row_id for row in replay.pool.rows}
        found.append((list(map(data.__getitem__, range(len(data)))), data.lengths().tolist(), told, study.summary()))
        assert ("nothing" in lines, lines.get("nothing"), len(lines)) == (False, None, len(rows))
    assert found[0] == found[1]
    assert found[0][1] == [len(row) for row in found[0][0]]
    assert len(found[0][2]) > 6


def peak_of_training(folder, things, count):
    """Returns the peak of Python's and NumPy's memory, in bytes, of what an arm does around its model."""
    loaded = models.load(str(things.model), dtype="float32")
    texts = [f"Painter {n} was born in Bern." for n in range(count)]
    lines = [{"text": text, "answer_spans": [[len(text) - 5, len(text) - 1]]} for text in texts]
    rows = read_corpus(runs.write_lines(folder / f"{count}.jsonl", lines), loaded.tokenizer, max_length=64).rows
    context = Context(loaded.model, loaded.tokenizer, rows, folder / str(count))
    tracemalloc.start()
    plan, rows = prepare(Plan([Study(spans="answers")]), context)
    lines = _soft_targets.SoftTargetShards(context.folder / "told", {}, rows, LiveTeacher(4), told).stored().lines()
    data = MixedDataset(RowDataset(rows), plan, 2)
    order = OrderedSampler(data.parts(), data.lengths(), 8, seed=0, group=True)
    assert len(lines) == count
    assert sum(len(data[n]) for n in islice(order, 200)) > 0
    assert sum(1 for _ in order) == 4 * count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def told(rows):
    """Returns distributions over four tokens at every place of the rows, as a model would."""
    sizes = [len(row) - 1 for row in rows]
    arrays = [(np.zeros((n, 4), np.uint16), np.zeros((n, 4), np.float32), np.zeros(n, np.float32)) for n in sizes]
    return [(row.row_id, *one) for row, one in zip(rows, arrays, strict=True)]


def test_twice_the_rows_take_little_more_memory_in_training(tmp_path, things, monkeypatch):
    """In lists, a row with its study rows of two epochs and its soft targets takes 7 KB, here 100 bytes at most."""
    monkeypatch.setattr(stored, "FEW_ROWS", 200)
    monkeypatch.setattr(store, "GROUP", 100)
    monkeypatch.setattr(shards, "TOKENS", 2000)
    peaks = [peak_of_training(tmp_path, things, count) for count in (300, 600)]
    assert (peaks[1] - peaks[0]) / 300 < 500, peaks
