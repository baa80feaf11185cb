"""Methods that lie outside of foci: named by file and class, beside the run file, hashed into the run."""

import json
import re
import textwrap

import pytest

import runs
from foci import methods
from foci.config import strict_yaml
from foci.config.run import dump_run, load_run
from foci.methods._registry import settings_of

MINE = '''"""Counts every other token, as nobody proposed (arXiv 2401.00001)."""

from dataclasses import dataclass

import torch

from foci.focus import Batch, WeighsTokens


@dataclass(frozen=True)
class Mine(WeighsTokens):
    """Weighs every other token by `low`, and all others by 1.

    It is an example.
    """

    low: float = 0.5

    def weigh(self, batch: Batch) -> torch.Tensor:
        weights = torch.ones(batch.input_ids.shape)
        weights[:, ::2] = self.low
        return weights
'''


@pytest.fixture
def things(tmp_path):
    return runs.material(tmp_path / "things")


@pytest.fixture
def file(tmp_path, things):
    """A run file whose arm is a method beside it."""
    made = runs.run_file(tmp_path / "project", things, arms={"mine": ["./mine.py:Mine"]}, train={"epochs": 1})
    (made.parent / "mine.py").write_text(MINE)
    return made


def test_a_run_uses_a_method_beside_its_file(tmp_path, file, capsys, monkeypatch):
    """From another folder, killed and resumed; a method that changed in between is refused."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    runs.told(["learn", file], capsys)
    run = load_run(file)
    summary = json.loads((run.output / "summary.json").read_text())
    assert summary["arms"]["mine"]["methods"] == ["Mine(low=0.5)"]
    samples = json.loads((run.output / "samples.json").read_text())
    assert {weight for sample in samples for weight in sample["weights"]} >= {0.5, 1.0}
    assert dump_run(load_run(run.output)) == dump_run(run)
    runs.told(["learn", run.output, "--resume"], capsys)
    (file.parent / "mine.py").write_text(MINE.replace("0.5", "0.25"))
    words = runs.refused(["learn", file, "--resume"], capsys, 2)
    assert re.search(r"method's file .*mine\.py changed since this run began .* start again with --overwrite", words)


def test_a_pretraining_knows_the_file_of_a_method_and_the_files_that_its_settings_name(tmp_path, capsys):
    """A method that is another today is another cell; a cell of another arm stays as it is."""
    (tmp_path / "text.txt").write_text("The town of Bern, in the north. She was born there.\n" * 60)
    (tmp_path / "mine.py").write_text(MINE.replace("low: float = 0.5", 'low: float = 0.5\n    notes: str = ""'))
    notes = tmp_path / "notes.txt"
    notes.write_text("first")
    file = tmp_path / "pretrain.yaml"
    file.write_text(strict_yaml.dump({
        "objective": "causal", "model": {"type": "llama", "layers": 1, "width": 32, "heads": 2, "mlp": 32},
        "corpus": {"path": str(tmp_path / "text.txt"), "max_length": 16}, "tokenizer": {"vocab": 300},
        "held_out": {"rows": 4, "share": 0.2}, "dtype": "float32", "train": {"steps": 1, "batch_size": 2}, "seeds": [0],
        "output": str(tmp_path / "out"), "arms": {"plain": [], "mine": [{"./mine.py:Mine": {"notes": str(notes)}}]},
    }))  # fmt: skip
    runs.told(["pretrain", file], capsys)
    assert "file of a method" not in json.loads((tmp_path / "out/cells/plain/seed-0/cell.json").read_text())
    for changed in (notes, tmp_path / "mine.py"):
        runs.told(["pretrain", file], capsys)
        before = changed.read_text()
        changed.write_text(before + "\n# another")
        words = runs.refused(["pretrain", file], capsys, 2)
        assert "cell mine, seed 0" in words
        assert "was run with another file of a method" in words
        changed.write_text(before)


def test_a_method_is_looked_for_beside_the_file_first_and_then_here(tmp_path, file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert load_run(file.name).arms == {"mine": ("./mine.py:Mine",)}
    monkeypatch.chdir(tmp_path)
    assert load_run(file).arms == {"mine": ("./project/mine.py:Mine",)}
    assert load_run(file, ["arms.mine=[{project/mine.py:Mine: {low: 0.1}}]"]).arms["mine"] == (
        {"project/mine.py:Mine": {"low": 0.1}},
    )


def test_it_is_built_and_described_as_methods_of_foci_are(file):
    name = f"{file.parent / 'mine.py'}:Mine"
    assert repr(methods.build({name: {"low": 0}})) == "Mine(low=0.0)"
    told = methods.description_of(name)
    assert (told.roles, dict(told.settings), told.papers) == (("WeighsTokens",), {"low": "0.5"}, ("2401.00001",))
    assert told.summary == "Weighs every other token by `low`, and all others by 1."
    assert type(methods.build(name)) is type(methods.build(name.removesuffix(":Mine")))


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        (None, "mine.py:Mine", r"method file .*mine\.py: 'mine\.py' is not in .*"),
        (MINE, "mine.py:Main", r"mine\.py defines no class 'Main'; did you mean 'Mine'\?"),
        ("def broken(:\n", "mine.py:Mine", r"mine\.py:1: expected Python with a method's class, got invalid syntax"),
    ],
)
def test_a_wrong_file_is_told_before_it_is_imported(tmp_path, source, name, words):
    if source is not None:
        (tmp_path / "mine.py").write_text(source)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        methods.check(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        ("import nowhere_at_all\n" + MINE, {}, r"mine\.py:1: the method's file could not be imported \(ModuleNotFound"),
        (MINE.replace("(WeighsTokens)", ""), {}, r"Mine is no method; derive it from a role of foci\.focus"),
        (MINE.replace("(frozen=True)", ""), {}, r"Mine should be a frozen dataclass; add @dataclass\(frozen=True\)"),
        (MINE, {"lo": 1}, r"has no setting 'lo'; did you mean 'low'\? its settings: low = 0\.5"),
        (MINE, {"low": "x"}, r"setting 'low' expected float, got 'x'"),
    ],
)
def test_what_is_no_method_is_refused_in_words(tmp_path, source, settings, words):
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(ValueError, match=words):
        methods.build({f"{tmp_path}/mine.py:Mine": settings})


def test_the_source_of_every_method_says_what_its_class_is():
    """`describe` reads sources, `build` reads classes: both must know the same settings and roles."""
    classes = methods.available()
    for told in methods.describe():
        kind = classes[told.name]
        assert dict(told.settings) == settings_of(kind)
        assert told.roles == tuple(role.__name__ for role in methods.roles_of(kind))
        assert "Any" not in map(str, told.types.values())


def test_foci_methods_shows_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in methods.modules():
        said = runs.told(["methods", name], capsys)
        assert max(map(len, said.splitlines())) <= 80
        example = said.split("in a run file:\n")[1]
        if "YOUR_" not in example:
            (tmp_path / "run.yaml").write_text("corpus: {path: x.txt}\n" + textwrap.dedent(example))
            run = load_run(tmp_path / "run.yaml")
            assert methods.build(run.arms[name][0]) == methods.build(name)
    assert re.search(r"weights +all +all \| linear", runs.told(["methods", "ewc"], capsys))
    assert "arXiv 1612.00796" in runs.told(["methods", "ewc"], capsys)
    assert "did you mean 'oracle'?" in runs.refused(["methods", "orakle"], capsys, 2)
