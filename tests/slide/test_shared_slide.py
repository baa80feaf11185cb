"""`foci slide` in several processes: the curves of one."""

import shutil

import runs
import several
from foci.system.files import read_json
from processes_compared import assert_same

TRAIN = {"epochs": None, "steps": 6, "learning_rate": 0.01}


def test_two_processes_find_the_curves_of_one_and_write_its_models(tmp_path):
    things = runs.material(tmp_path / "things")
    file = runs.run_file(tmp_path / "one", things, train=TRAIN, probes={"every": None})
    runs.finished(["learn", file], tmp_path / "one")
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    shutil.copytree(one, two, symlinks=True)
    runs.finished(["slide", one, "--points", "3", "--keep", "0.9"], tmp_path / "one")
    children = several.finished(["slide", two, "--points", "3", "--keep", "0.9"], tmp_path / "two", 2)
    found, expected = (read_json(folder / "slide.json") for folder in (two, one))
    for slid, folder in ((found, two), (expected, one)):
        for place in slid["written"].values():
            assert str(folder) in place.pop("model")
            place.pop("adapter")
    assert_same(found, expected)
    assert [child.out.read_text() == "" for child in children] == [False, True]
    kept = sorted(path.relative_to(one) for path in one.glob("arms/*/slide/**/*"))
    assert kept == sorted(path.relative_to(two) for path in two.glob("arms/*/slide/**/*"))
    assert any(path.name == "model.safetensors" for path in kept)
