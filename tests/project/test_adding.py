"""What CONTRIBUTING.md says of adding things holds: a file in the right folder is enough, and the folders are there."""

import importlib
import json
import re

import pytest

import runs
from paths import ROOT

METHOD = '''"""A method for a test: only the last token of a row counts."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from foci.focus import Batch, WeighsTokens


@dataclass(frozen=True)
class LastToken(WeighsTokens):
    """Gives weight 1 to each row's last token and `floor` to all others."""

    floor: float = 0.0

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        weights = torch.full(batch.input_ids.shape, self.floor)
        last = batch.attention_mask.sum(1) - 1
        weights[torch.arange(len(last)), last] = 1.0
        return weights
'''

FORMAT = '''"""A file format for a test: documents between lines of three dashes."""

from collections.abc import Iterator
from pathlib import Path

from foci.corpus.documents import BadLine, Document, Format


class Dashes(Format):
    """Text files of several documents."""

    endings = (".dashes",)

    def read(self, source: str, text_field: str) -> Iterator[Document | BadLine]:
        """Yields the text between two lines of dashes."""
        for number, text in enumerate(Path(source).read_text(encoding="utf-8").split("---\\n")):
            yield Document(text.strip(), source, 2 * number + 1)
'''

KIND = '''"""A kind of probe for a test: an arrow stands before the answer, and every answer that is said is right."""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.probes.forced import Forced
from foci.probes.probe import Kind, Probe, Verdict, Written, joined


class Arrow(Kind):
    """A question that is answered with the number of questions."""

    generated = True

    def write(self, probe: Probe) -> Written:
        """Returns prompt, arrow and answer."""
        return joined(probe, " -> ")

    def ask(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        probes: Sequence[Probe],
        batch_size: int,
        max_new_tokens: int | None,
    ) -> list[str | None]:
        """Returns one and the same answer to every question."""
        return [f"{len(probes)} arrows"] * len(probes)

    def judge(self, probe: Probe, forced: Forced, said: str | None, tokenizer: PreTrainedTokenizerBase) -> Verdict:
        """Finds every answer right, with half of F1."""
        return Verdict(str(said), True, 1.0, 0.5)
'''


def add(tmp_path, monkeypatch, package: str, name: str, text: str) -> None:
    """Puts a file into a package's folder, for one test."""
    shelf = tmp_path / "shelf"
    shelf.mkdir(exist_ok=True)
    (shelf / f"{name}.py").write_text(text, encoding="utf-8")
    module = importlib.import_module(package)
    monkeypatch.setattr(module, "__path__", [*module.__path__, str(shelf)])


def test_a_method_is_one_file(tmp_path, monkeypatch, capsys):
    add(tmp_path, monkeypatch, "foci.methods", "last_token", METHOD)
    assert "Gives weight 1 to each row's last token" in runs.told(["methods"], capsys)
    things = runs.material(tmp_path)
    file = runs.run_file(tmp_path, things, arms={"last": [{"last_token": {"floor": 0.5}}]}, train={"epochs": 1})
    runs.told(["learn", str(file)], capsys)
    samples = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert samples
    assert all(row["weights"][-1] == 2 * row["weights"][-2] > 0 for row in samples)


def test_a_file_format_is_one_file(tmp_path, monkeypatch, capsys):
    from foci.corpus import read_rows

    things, out = runs.material(tmp_path), tmp_path / "out"
    (tmp_path / "texts").mkdir()
    text = tmp_path / "texts" / "two.dashes"
    text.write_text("Ada was born in Bern.\n---\nBea was born in Rome.\n", encoding="utf-8")
    file = runs.run_file(
        tmp_path, things, corpus={"path": str(text.parent)}, arms={"plain": []}, train={"epochs": 1, "batch_size": 2}
    )
    assert "got only" in runs.refused(["learn", str(file), "--overwrite"], capsys)
    add(tmp_path, monkeypatch, "foci.corpus.formats", "dashes", FORMAT)
    runs.told(["learn", str(file), "--overwrite"], capsys)
    assert json.loads((out / "corpus.json").read_text())["documents"] == 2
    assert [(row.text, row.source) for row in read_rows(out / "rows.parquet")] == [
        ("Ada was born in Bern.", f"{text}:1"), ("Bea was born in Rome.", f"{text}:3"),
    ]  # fmt: skip


def test_a_probe_kind_is_one_file(tmp_path, monkeypatch, capsys):
    """It is written, asked and judged as its file says by `foci probe` and `foci learn`, and not exported."""
    from foci.probes import Probe, read_answers

    things, table = runs.material(tmp_path), tmp_path / "answers.parquet"
    lines = [{"id": f"a{n}", "role": "learn", "kind": "arrow", "prompt": "Ada", "answer": "Bern"} for n in range(3)]
    runs.write_lines(things.learn, lines)
    assert "unknown kind 'arrow'" in runs.refused(["probe", things.model, things.learn], capsys)
    add(tmp_path, monkeypatch, "foci.probes.kinds", "arrow", KIND)
    said = runs.told(["probe", things.model, things.learn, "--out", table], capsys)
    (line,) = [line.split() for line in said.splitlines() if line.startswith("learn")]
    assert (line[:4], line[-2:]) == (["learn", "arrow", "3", "100"], ["50.0", "0"])
    assert {(one.predicted, one.correct) for one in read_answers(table)} == {("3 arrows", True)}
    assert Probe("a", "learn", "arrow", "Ada", "Bern", ".").text == "Ada -> Bern."
    assert "such as 'a0' (arrow)" in runs.refused(
        ["probe", things.learn, "--export-lm-eval", tmp_path / "tasks"], capsys
    )
    runs.told(["learn", runs.run_file(tmp_path, things, arms={"plain": []}, train={"epochs": 1})], capsys)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (found,) = find(summary, "learned_by_kind")
    assert found["arrow"]["exact_match"] == {"before": 1.0, "after": 1.0}
    assert found["arrow"]["f1"] == {"before": 0.5, "after": 0.5}


def find(value, key):
    """All values of a key, at any depth of a JSON value."""
    if isinstance(value, list):
        return [one for part in value for one in find(part, key)]
    if not isinstance(value, dict):
        return []
    return ([value[key]] if key in value else []) + [one for part in value.values() for one in find(part, key)]


@pytest.mark.skipif(not (ROOT / "CONTRIBUTING.md").is_file(), reason="CONTRIBUTING.md is not beside the tests")
def test_places_for_what_is_added_exist():
    """Every place in the table of CONTRIBUTING.md is there; NAME stands for the new thing."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:4] for line in text.split("## A method in one file")[0].splitlines() if "| " in line]
    wanted = {"a method", "a file format", "a probe kind", "an adapter type", "a distributed backend", "a command"}
    assert not [thing for thing in wanted if not any(row[0].strip().startswith(thing) for row in rows)]
    assert any("figure" in row[0] for row in rows)
    places = {place for row in rows for place in re.findall(r"`((?:src|tests|docs|runs|benchmarks)/[\w/.]*)`", row[1])}
    assert len(places) > 10
    assert not [place for place in places if not (ROOT / place.split("NAME")[0]).exists()]
