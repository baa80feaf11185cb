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

KIND = '''"""A kind of probe for a test: only the first token of the answer counts."""

from transformers import PreTrainedTokenizerBase

from foci.probes.forced import Forced
from foci.probes.probe import Kind, Probe, Verdict, Written, first_choices, joined


class Start(Kind):
    """The answer begins as it should."""

    def write(self, probe: Probe) -> Written:
        """Returns prompt, answer and suffix as they stand."""
        return joined(probe)

    def judge(self, probe: Probe, forced: Forced, said: str | None, tokenizer: PreTrainedTokenizerBase) -> Verdict:
        """Compares the first token alone."""
        return first_choices(Forced(forced.truth[:1], forced.chosen[:1], forced.nll[:1]), tokenizer)
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


def test_a_file_format_is_one_file(tmp_path, monkeypatch):
    import tiny
    from foci.corpus import read_corpus

    add(tmp_path, monkeypatch, "foci.corpus.formats", "dashes", FORMAT)
    file = tmp_path / "two.dashes"
    file.write_text("Ada was born in Bern.\n---\nBea was born in Rome.\n", encoding="utf-8")
    assert read_corpus(file, tiny.tokenizer(), max_length=64).documents == 2


def test_a_probe_kind_is_one_file(tmp_path, monkeypatch, capsys):
    add(tmp_path, monkeypatch, "foci.probes.kinds", "start", KIND)
    things = runs.material(tmp_path)
    line = {"role": "learn", "kind": "start", "prompt": "Ada North was born in", "answer": "Bern"}
    file = runs.write_lines(tmp_path / "start.jsonl", [line])
    assert "start" in runs.told(["probe", str(things.model), str(file)], capsys)


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
