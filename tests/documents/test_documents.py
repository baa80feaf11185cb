"""A folder of documents as a corpus: rows name their page, `foci check` lists every file, and nothing else is lost."""

import builtins
import json
import os
import sys
from pathlib import Path

import pytest

import papers
import runs
import tiny
from foci.corpus import documents as finding
from foci.corpus import read_corpus, write_quarantine

docx = pytest.importorskip("docx", reason="pip install 'foci[test]'")
for library in ("reportlab", "pypdfium2", "mammoth", "trafilatura"):
    pytest.importorskip(library, reason="pip install 'foci[documents,test]'")

FLAGS = ["corpus.max_length=64", "probes.retain=null", "probes.text=null", "arms={plain: []}"]


@pytest.fixture
def folder(tmp_path):
    """Three good documents and three that cannot be read."""
    pages = tmp_path / "pages"
    pages.mkdir()
    papers.pdf(pages / "handbook.pdf", papers.paragraphs(0, 12), columns=2)
    document = docx.Document()
    document.add_heading("Pumps", 1)
    document.add_paragraph("The pump of the north station stands in Bern, and it was built in 1987.")
    document.save(pages / "letter.docx")
    text = "<p>The valve of the south station stands in Rome, and it was built in 1990.</p>"
    (pages / "page.html").write_text(f"<html><body><h1>Valves</h1>{text}</body></html>")
    papers.scan(pages / "scan.pdf", ["The first page is written."])
    (pages / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    (pages / "old.docx").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    return pages


def read(folder, **more):
    return read_corpus(folder, tiny.tokenizer(), max_length=64, max_bad=0.5, **more)


def test_rows_name_their_page_or_their_headings(folder):
    sources = [row.source.removeprefix(f"{folder}/") for row in read(folder).rows]
    assert "letter.docx, Pumps" in sources
    assert "page.html, Valves" in sources
    assert {"handbook.pdf, page 1", "handbook.pdf, page 2"} <= set(sources)


def test_damage_is_told_and_nothing_else_is_lost(folder, tmp_path):
    corpus = read(folder)
    reasons = {Path(one.file).name: one.reason for one in corpus.bad}
    assert list(reasons) == ["broken.pdf", "old.docx", "scan.pdf"]
    assert corpus.documents == 4
    write_quarantine(corpus.bad, tmp_path / "quarantine.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [line.get("place") for line in lines] == [None, None, "page 2"]


def test_a_lost_page_is_no_lost_document(folder):
    """One scanned page ends no run, however few documents there are; a document of which nothing is left may."""
    for name in ("broken.pdf", "old.docx"):
        (folder / name).unlink()
    assert read_corpus(folder, tiny.tokenizer(), max_length=64, max_bad=0.0).documents == 4
    papers.scan(folder / "scan.pdf", [])
    with pytest.raises(ValueError, match=r"1 of 4 documents .* is bad: .*scan\.pdf:1: a scanned page"):
        read_corpus(folder, tiny.tokenizer(), max_length=64, max_bad=0.0)


def test_check_lists_every_file_and_shows_three_rows(folder, tmp_path, capsys):
    model = tiny.save_model(tmp_path / "model")
    said = runs.told(["check", str(folder), "--model", str(model), "corpus.max_bad=0.5", *FLAGS], capsys)
    lines = [line.split() for line in said.splitlines()]
    corpus = read(folder)
    for one in corpus.reads:
        pages = [str(one.pages)] if one.pages else []
        assert [one.file, f"{one.rows:,}", f"{one.words:,}", *pages] in lines
    by_name = {Path(one.file).name: one for one in corpus.reads}
    assert len(by_name) == 6
    assert (by_name["scan.pdf"].pages, by_name["scan.pdf"].words, by_name["broken.pdf"].rows) == (1, 5, 0)
    words = sum(len(text.split()) for text in papers.paragraphs(0, 12))
    assert abs(by_name["handbook.pdf"].words - words) <= 2
    assert sum(one.rows for one in corpus.reads) == len(corpus.rows)
    assert f"  {folder}/scan.pdf, page 2: a scanned page without text" in said
    assert f"3 of {len(corpus.rows)} rows, as the model will read:" in said
    shown = said.partition("as the model will read:\n")[2]
    for row in (corpus.rows[0], corpus.rows[-1]):
        assert f"{row.source}:\n    {tiny.tokenizer().decode(row.input_ids)}\n" in shown


def test_check_lists_the_files_of_a_corpus_that_is_refused(folder, tmp_path, monkeypatch, capsys):
    from foci.cli import main

    model = tiny.save_model(tmp_path / "model")
    monkeypatch.setattr(sys, "argv", ["foci", "check", str(folder), "--model", str(model), *FLAGS])
    with pytest.raises(SystemExit) as stop:
        main.main()
    listed, words = capsys.readouterr()
    assert stop.value.code == 2
    runs.assert_one_paragraph(words)
    for file in folder.iterdir():
        assert f"{file} " in listed


def test_without_the_extra_an_error_names_it_and_the_file(folder, monkeypatch):
    before = builtins.__import__

    def without(name, *rest, **more):
        if name == "pypdfium2":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return before(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "foci.documents.pdf", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ImportError, match=r"broken\.pdf: .* need the package pypdfium2; pip install 'foci\[documents\]'"
    ):
        read(folder)


def test_a_file_that_is_too_large_to_be_held_is_told_and_not_opened(folder):
    """A file of 2 GB that takes no room on the disk."""
    for name in ("large.txt", "large.pdf"):
        with (folder / name).open("wb") as file:
            file.truncate(2 * 2**30)
    os.mkfifo(folder / "pipe.pdf")
    (folder / "loop.pdf").symlink_to("round.pdf")
    (folder / "round.pdf").symlink_to("loop.pdf")
    reasons = {Path(one.file).name: one.reason for one in read_corpus(
        folder, tiny.tokenizer(), max_length=64, max_bad=0.9).bad}  # fmt: skip
    for name in ("large.txt", "large.pdf"):
        assert reasons[name].startswith(f"2,147,483,648 bytes, more than the {finding.LARGEST:,} of a file")
    assert reasons["pipe.pdf"] == "not a file, but a device, pipe or socket"
    assert "which is not there" in reasons["loop.pdf"]
