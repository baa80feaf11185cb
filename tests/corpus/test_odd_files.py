"""Thirty kinds of odd files in one folder: each is read, or named with its reason; `foci check` says it to a person."""

import re
import sys
from pathlib import Path

import pytest

import odd_files
import runs
import tiny
from foci.cli import main
from foci.corpus import read_corpus
from foci.corpus.telling import told
from paths import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd") / "pages"
    odd_files.make(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(folder):
    return read_corpus(folder, tiny.tokenizer(), max_length=64, max_bad=0.5)


def names(places):
    return {Path(place).name for place in places}


@pytest.mark.parametrize("kind", odd_files.KINDS, ids=lambda kind: kind.name)
def test_each_kind_has_its_fate(corpus, kind):
    bad = {Path(one.file).name: one.reason for one in corpus.bad}
    empty = {Path(one.file).name: one.reason for one in corpus.empty}
    fates = {"skipped": kind.name in names(corpus.skipped), "bad": kind.name in bad, "empty": kind.name in empty}
    assert [fate for fate, is_it in fates.items() if is_it] == ([] if kind.fate == "read" else [kind.fate])
    if kind.fate == "read":
        assert [row.text for row in corpus.rows].count(kind.says) == 1
    elif kind.fate != "skipped":
        assert ({**bad, **empty})[kind.name].startswith(kind.says)


def test_nothing_is_lost_and_nothing_is_said_twice(corpus):
    fates = [kind.fate for kind in odd_files.KINDS]
    assert len(odd_files.KINDS) >= 20
    counts = (len(corpus.bad), len(corpus.empty), len(corpus.skipped))
    assert counts == tuple(map(fates.count, ("bad", "empty", "skipped")))
    assert corpus.documents == odd_files.GOOD + fates.count("read")
    lines = list(told(corpus))
    assert all("\n" not in line for line in lines)
    for one in corpus.bad:
        assert sum(f"{one.file}:" in line for line in lines) == 1


def test_check_names_each_bad_file_and_then_the_cure(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    model = tiny.save_model(tmp_path / "model")
    flags = ["check", "pages", "--model", model, "corpus.max_length=64", "probes.retain=null", "probes.text=null"]
    monkeypatch.setattr(sys, "argv", ["foci", *map(str, flags), "arms={plain: []}"])
    with pytest.raises(SystemExit) as stop:
        main.main()
    listed, words = capsys.readouterr()
    assert stop.value.code == 2
    runs.assert_one_paragraph(words)
    assert "corpus.max_bad is 1.0%, but 19 of 56 documents (33.9%) are bad: pages/bare.txt:1: " in words
    for kind in odd_files.KINDS:
        if kind.fate == "bad":
            assert f"  pages/{kind.name}:" in listed
    said = runs.told([*flags, "arms={plain: []}", "corpus.max_bad=0.5"], capsys)
    for kind in odd_files.KINDS:
        if kind.fate == "bad":
            assert re.search(rf"^  pages/{re.escape(kind.name)}:\d+: {re.escape(kind.says)}", said, re.MULTILINE)
    assert "2 files of unknown kind left out: pages/README, pages/slides.odp" in said
    assert "1 document with the word <eos>" in said


def test_the_documents_show_this_table():
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    assert text.partition("<!-- odd files -->\n")[2].partition("\n<!-- /odd files -->")[0] == odd_files.table()
