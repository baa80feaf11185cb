"""Files as people have them: links, empty and damaged files, other kinds; each is read or named, and a run goes on."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny
from foci.corpus import CorpusError, read_corpus
from foci.corpus.documents import files_below
from foci.corpus.telling import files_told, told


@pytest.fixture
def pages(tmp_path):
    """A folder of twenty pages."""
    folder = tmp_path / "pages"
    folder.mkdir()
    for n in range(20):
        (folder / f"p{n:02d}.txt").write_text(f"Page number {n} tells of town {n}.")
    return folder


def read(path, **settings):
    return read_corpus(path, tiny.tokenizer(), max_length=64, **settings)


SETTINGS = "---\ntitle: 'Pumps'\ntags:\n  - hall\n\nid: 7\n---\n"


@pytest.mark.parametrize(
    ("page", "text", "line"),
    [
        (f"{SETTINGS}They are red.", "# Pumps\n\nThey are red.", 6),
        (f"{SETTINGS}\n# The pumps\n\nThey are red.", "# The pumps\n\nThey are red.", 9),
        ("---\nid: 7\n---\nThey are red.", "They are red.", 4),
        ("---\ntitle: >-\n  The old\n  pumps\n---\nThey are red.", "# The old pumps\n\nThey are red.", 4),
        ("---\ntitle: '' # none\n---\nThey are red.", "They are red.", 4),
        ("---\ntitle: Pumps\n---\nPumps\n=====\nRed.", "Pumps\n=====\nRed.", 4),
        ("---\n\n# One\n\n- It is red.\n\n---\n\nIt is old.", "---\n\n# One\n\n- It is red.\n\n---\n\nIt is old.", 1),
        ("---\nThey are red.\n---\nThey are old.", "---\nThey are red.\n---\nThey are old.", 1),
    ],
)
def test_settings_before_a_markdown_page_are_no_text(tmp_path, page, text, line):
    (tmp_path / "a.md").write_text(page)
    (row,) = read(tmp_path / "a.md").rows
    assert (row.text, row.source) == (text, f"{tmp_path}/a.md:{line}")
    (tmp_path / "a.txt").write_text(page)
    assert read(tmp_path / "a.txt").rows[0].text.startswith(page[:20])


def test_a_table_after_an_empty_line_has_a_head_of_its_own(tmp_path):
    lines = ["Site:,Ostby", "", "Pump,Limit,Flow", "P-1,40,7", "", "P-2,41,8", "", "Valve,Size,Maker", "V-1,3,Lund", "",
             "Vent,unknown,Nes"]  # fmt: skip
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert [row.text for row in read_corpus(tmp_path / "a.csv", tiny.tokenizer(), max_length=512).rows] == [
        "| Site: | Ostby |\n|---|---|",
        "| Pump | Limit | Flow |\n|---|---|---|\n| P-1 | 40 | 7 |\n| P-2 | 41 | 8 |",
        "| Valve | Size | Maker |\n|---|---|---|\n| V-1 | 3 | Lund |\n| Vent | unknown | Nes |",
    ]


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    docs, books, more = tmp_path / "docs", tmp_path / "ext" / "books", tmp_path / "ext" / "more"
    for folder in (docs / "own", books, more):
        folder.mkdir(parents=True)
    (docs / "a.txt").write_text("Page a.")
    (docs / "own" / "o.txt").write_text("Page o.")
    (books / "b.txt").write_text("Page b.")
    (more / "m.txt").write_text("Page m.")
    (docs / "books").symlink_to("../ext/books")
    (docs / "again").symlink_to(books)
    (docs / "loop").symlink_to(docs)
    (docs / "also").symlink_to("own")
    (books / "back").symlink_to(docs)
    (books / "more").symlink_to(more)
    (docs / ".hidden").symlink_to(more)
    (docs / "m2.txt").symlink_to(more / "m.txt")
    found = [str(file.relative_to(docs)) for file in files_below(docs)]
    assert found == ["a.txt", "again/b.txt", "again/more/m.txt", "m2.txt", "own/o.txt"]
    assert [row.text for row in read(docs).rows] == ["Page a.", "Page b.", "Page m.", "Page o."]


def test_links_that_lead_nowhere_and_things_that_are_no_files_are_named(pages):
    (pages / "gone.txt").symlink_to("nowhere.txt")
    corpus = read(pages)
    assert [str(bad) for bad in corpus.bad] == [f"{pages / 'gone.txt'}:1: a link to nowhere.txt, which is not there"]
    (pages / "self.txt").symlink_to("self.txt")
    os.mkfifo(pages / "pipe.txt")  # reading it would wait for ever
    reasons = [bad.reason for bad in read(pages, max_bad=0.5).bad]
    assert len(reasons) == 3
    assert "not a file, but a device, pipe or socket" in reasons


def test_blank_lines_and_empty_files_are_no_damage(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"text": "One page."}\n\n   \n{"text": "Two pages."}\n\n')
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.md").write_text(" \n\n")
    (tmp_path / "lines.jsonl").write_text("\n\n")
    (tmp_path / "b.jsonl").write_text('{"text": ""}\n{"text": " "}\n{"text": "Three."}\n')
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "none.parquet")
    corpus = read(tmp_path, max_bad=0.0)
    assert [row.text for row in corpus.rows] == ["One page.", "Two pages.", "Three."]
    assert corpus.bad == ()
    places = [(Path(one.file).name, one.line) for one in corpus.empty]
    assert places == [("b.jsonl", 1), ("b.jsonl", 2), ("blank.md", 1), ("empty.txt", 1), ("lines.jsonl", 1),
                      ("none.parquet", 1)]  # fmt: skip
    (line,) = [line for line in told(corpus) if "without text" in line]
    assert line.startswith("6 without text left out: ")
    assert "b.jsonl:2" in line
    assert line.endswith(" and 3 more")


def test_nothing_but_empty_files_is_told(tmp_path):
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"corpus empty: nothing to learn in .*empty\.txt \(no text in it\)"):
        read(tmp_path)


def test_one_foreign_file_or_line_does_not_end_a_run_of_twenty_pages(pages):
    (pages / "old.txt").write_bytes("Zürich".encode("cp1252"))
    corpus = read(pages)
    assert len(corpus.rows) == 20
    assert corpus.bad[0].reason.startswith("not UTF-8 (byte 0xfc at byte 1); save it as UTF-8")
    with pytest.raises(CorpusError, match="1 of 21"):
        read(pages, max_bad=0.0)
    (pages / "two.txt").write_bytes(b"\xff")
    with pytest.raises(CorpusError, match="2 of 22 documents"):
        read(pages)


def test_one_bad_document_of_a_few_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("One page.")
    (tmp_path / "b.txt").write_bytes(b"\0\1")
    with pytest.raises(CorpusError, match="1 of 2 documents"):
        read(tmp_path)


def test_a_file_that_is_no_jsonl_or_parquet_is_one_bad_document(tmp_path, pages):
    (pages / "a.jsonl").write_bytes('{"text": "eins"}\n{"text": "zwei"}\n'.encode("utf-16"))
    assert [bad.reason.partition(";")[0] for bad in read(pages).bad] == ["UTF-16, not UTF-8"]
    (pages / "a.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert [bad.reason for bad in read(pages).bad] == [
        "a Git LFS pointer, not the file itself; fetch the file with: git lfs pull"
    ]
    (pages / "a.jsonl").unlink()
    pq.write_table(pa.table({"text": [f"Record {n} of many." for n in range(500)]}), pages / "t.parquet")
    whole = (pages / "t.parquet").read_bytes()
    (pages / "t.parquet").write_bytes(whole[: len(whole) // 2])
    (bad,) = read(pages).bad
    assert bad.reason.startswith("a parquet file that is cut or damaged (")
    (pages / "t.parquet").write_bytes(whole[:40] + bytes(80) + whole[120:])
    (bad,) = read(pages, max_bad=0.5).bad
    assert "parquet" in bad.reason


def test_files_of_unknown_kind_are_named(pages):
    for name in ("a.odt", "b.doc", "c.rtf", "d.mobi"):
        (pages / name).write_bytes(b"x")
    lines = list(told(read(pages)))
    names = ", ".join(str(pages / name) for name in ("a.odt", "b.doc", "c.rtf"))
    assert f"4 files of unknown kind left out: {names} and 1 more" in lines


def test_a_name_with_a_line_break_stays_on_one_line_and_lock_files_are_hidden(pages):
    (pages / "two\nlines.txt").write_text("A page in a file with an odd name.")
    (pages / "red\x1b[31m.txt").write_bytes(b"\xff")
    (pages / "~$letter.docx").write_bytes(b"\x05Ada")
    corpus = read(pages, max_bad=0.5)
    lines = [*told(corpus), *files_told(corpus)]
    assert all(line.isprintable() for line in lines)
    assert sum(r"two\nlines.txt" in line for line in lines) == 1
    assert sum(r"red\x1b[31m.txt:1: not UTF-8" in line for line in lines) == 2
    assert "letter.docx" not in "".join(lines)


@pytest.mark.parametrize("ending", ["pdf", "docx", "epub", "xlsx", "parquet", "jsonl.gz", "json", "csv", "html", "txt"])
def test_a_file_of_no_bytes_is_empty_whatever_it_is_called(pages, ending):
    (pages / f"new.{ending}").write_bytes(b"")
    corpus = read(pages)
    assert [(Path(one.file).name, one.reason) for one in corpus.empty] == [(f"new.{ending}", "no text in it")]
    assert not corpus.bad


def test_rows_that_repeat_are_told(pages):
    (pages / "z.txt").write_text("One two three four. " * 400)
    corpus = read(pages)
    assert corpus.repeated > 20
    assert f"{corpus.repeated} rows with the text of an earlier row left out" in told(corpus)


def test_a_word_of_the_tokenizer_is_told(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "Bern is a town.<eos>"}\n{"text": "Rome too.<eos>"}\n{"text": "Oslo."}\n'
    )
    corpus = read(tmp_path)
    assert corpus.spelled == {"<eos>": 2}
    assert any(line.startswith("2 documents with the word <eos>, a mark of this tokenizer") for line in told(corpus))


def test_a_hub_set_with_configurations(tmp_path, monkeypatch):
    """By the package `datasets` itself, on a set that lies in a folder."""
    pytest.importorskip("datasets", reason="needs the package datasets (pip install 'foci[hub]')")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, split in (("one", "train"), ("two", "train"), ("two", "test")):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        records = ({"text": f"{name} {split} {n}", "other": n} for n in range(2))
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / "set" / name / f"{split}.jsonl").write_text(lines)
    files = {"one": ["train"], "two": ["train", "test"]}
    configs = [
        {"config_name": name, "data_files": [{"split": split, "path": f"{name}/{split}.jsonl"} for split in splits]}
        for name, splits in files.items()
    ]
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    assert [row.text for row in read("hub:set:two:test").rows] == ["two test 0", "two test 1"]
    assert [row.text for row in read("hub:set:one:train").rows] == ["one train 0", "one train 1"]
    refused = {
        "hub:set": r"hub:set: it has several configurations \(one, two\); name one: hub:set:one:train",
        "hub:set:two": r"several configurations \(one, two\); name one: hub:set:two:train",
        "hub:set:three:train": r"no configuration 'three', only one, two; name one: hub:set:one:train",
        "hub:set:two:nope": r"no split 'nope', only train, test; name one: hub:set:two:train",
        "hub:a:b:c:d": "expected hub:NAME, ",
        "hub:": "expected hub:NAME, ",
    }
    for name, words in refused.items():
        with pytest.raises(ValueError, match=words):
            read(name)
    with pytest.raises(ValueError, match=r"expected a column 'body', got text, other; set corpus\.text_field"):
        read("hub:set:two:test", text_field="body")


def test_a_readers_exception_carries_the_files_name(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("Page a.")
    monkeypatch.setattr("foci.corpus.formats.text.decoded", lambda raw: {}["key"])
    with pytest.raises(ValueError, match=r"corpus .*a\.txt cannot be read \(KeyError: 'key'\); leave it out"):
        read(tmp_path)

    def lost(raw):
        raise PermissionError(13, "Permission denied", "a.txt")

    monkeypatch.setattr("foci.corpus.formats.text.decoded", lost)
    with pytest.raises(CorpusError, match=r"a\.txt:1: cannot be read \(Permission denied\)"):
        read(tmp_path)
