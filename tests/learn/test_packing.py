"""`train.packing` of a run file: the same training in less padding, or rows apart with a word on why."""

import pytest

import families
import runs
from foci.system.files import read_lines


def trained(tmp_path, capsys, name, packing, **changes):
    things = runs.material(tmp_path)
    train = {"group_by_length": False, "epochs": None, "steps": 3, "packing": packing}
    file = runs.run_file(
        tmp_path, things, output=str(tmp_path / name), train=train, adapter={"dropout": 0.0}, arms={"plain": []},
        **changes,
    )  # fmt: skip
    return runs.told(["learn", str(file)], capsys), read_lines(tmp_path / name / "metrics.jsonl")


def test_a_run_that_packs(tmp_path, capsys):
    said, packs = trained(tmp_path, capsys, "packed", True)
    assert "not packed" not in said
    _, apart = trained(tmp_path, capsys, "apart", False)
    assert [line["loss"] for line in packs] == pytest.approx([line["loss"] for line in apart], rel=1e-4)
    assert [line["tokens"] for line in packs] == [line["tokens"] for line in apart]
    assert max(line["padding"] for line in packs) < min(line["padding"] for line in apart)


def test_a_model_that_mixes_rows_trains_apart_and_says_so(tmp_path, capsys):
    model = {"name": str(families.save("falcon_h1", tmp_path / "hybrid"))}
    said, lines = trained(tmp_path, capsys, "hybrid_run", True, model=model)
    assert "plain  rows are not packed: FalconH1ForCausalLM (model type 'falcon_h1') mixes rows" in said
    assert max(line["padding"] for line in lines) > 0


def test_guided_heads_and_packing_are_refused_before_anything_is_computed(tmp_path, capsys):
    things = runs.material(tmp_path)
    file = runs.run_file(tmp_path, things, train={"packing": True}, arms={"guided": ["guidance"]})
    words = runs.refused(["learn", str(file)], capsys)
    assert "each row must be read by itself" in words
    assert "train.packing: false" in words
    assert not (tmp_path / "out" / "start.json").exists()
