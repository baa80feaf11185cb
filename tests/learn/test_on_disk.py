"""A run whose rows stay on disk ends in the bits of one whose rows are in memory."""

import pytest

import runs
from foci.config.run import load_run
from foci.corpus import read_rows, stored
from foci.learn.run import learn
from foci.system.files import read_lines


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


def numbers(folder):
    """Returns what every update and every probing said, without times."""
    files = sorted(folder.glob("arms/*/*.jsonl")) or sorted(folder.glob("*.jsonl"))
    return {
        file.name: [{k: v for k, v in line.items() if k != "seconds"} for line in read_lines(file)] for file in files
    }


def test_a_run_ends_in_the_same_bits(tmp_path, things, monkeypatch):
    arms = {"oracle": ["oracle", {"mix_review": {"samples": 4}}, "salient"]}
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
