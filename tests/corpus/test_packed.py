"""Tables of text, JSON files, compressed files and archives: read as what they hold, or told, and nothing else lost."""

import gzip
import json
import zipfile

import pyarrow as pa
import pytest

import tiny
from foci.corpus import read_corpus
from foci.corpus.formats import compressed
from foci.corpus.formats import jsonl as lines_format
from foci.corpus.formats import zip as archives
from foci.corpus.telling import told


def read(path, **more):
    return read_corpus(path, tiny.tokenizer(), **{"max_length": 128, "max_bad": 0.9, **more})


def texts(path, **more):
    return [row.text for row in read(path, **more).rows]


@pytest.mark.parametrize(("name", "content"), [
    ("a.csv", "name,town\nZoë,Bern\n\"Lee, Ann\",\"New\nYork\"\n"),
    ("a.csv", "\ufeffname;town\r\nZoë;Bern\r\nLee, Ann;New York\r\n"),
    ("a.tsv", "name\ttown\nZoë\tBern\nLee, Ann\tNew York\n"),
    ("a.csv", "name|town\nZoë|Bern\n\nLee, Ann|New York"),
])  # fmt: skip
def test_a_table_is_markdown(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    (row,) = read(tmp_path).rows
    assert row.text == "| name | town |\n|---|---|\n| Zoë | Bern |\n| Lee, Ann | New York |"
    assert row.source.startswith(f"{tmp_path / name}, lines 2 to ")


def test_the_line_in_which_excel_names_the_mark_is_none_of_the_table(tmp_path):
    (tmp_path / "a.csv").write_text("sep=|\r\nname|town\r\nLee; Ann|Bern\r\n", newline="")
    (row,) = read(tmp_path).rows
    assert (row.text, row.source) == ("| name | town |\n|---|---|\n| Lee; Ann | Bern |", f"{tmp_path}/a.csv, line 3")


def test_a_long_table_has_its_head_above_each_part(tmp_path):
    (tmp_path / "a.csv").write_text("part,town\n" + "".join(f"part {n},Bern\n" for n in range(200)))
    found = texts(tmp_path, max_length=1000)
    assert len(found) > 3
    assert all(text.startswith("| part | town |\n|---|---|\n") for text in found)
    assert sum(text.count("| part ") for text in found) == 200 + len(found)


def test_a_column_of_texts_gives_documents(tmp_path):
    (tmp_path / "a.csv").write_text('id,text\n1,"The first,\ncalled Bern."\n2,\n3,The second.\n4\n')
    corpus = read(tmp_path)
    assert [(row.text, row.source) for row in corpus.rows] == [
        ("The first,\ncalled Bern.", f"{tmp_path}/a.csv:2"),
        ("The second.", f"{tmp_path}/a.csv:5"),
    ]
    assert [one.line for one in corpus.empty] == [4]
    assert [(one.line, one.reason) for one in corpus.bad] == [
        (6, "no field 'text' (the fields are none; corpus.text_field says which one holds the text)")
    ]
    (tmp_path / "a.csv").write_text("id,body\n1,Bern it is.\n")
    assert texts(tmp_path, text_field="body") == ["Bern it is."]


def test_a_text_with_commas_and_no_quotes_is_not_cut(tmp_path):
    (tmp_path / "a.csv").write_text("text\nAda was born in Bern, Switzerland, in 1815.\n")
    assert texts(tmp_path) == ["Ada was born in Bern, Switzerland, in 1815."]
    (tmp_path / "a.csv").write_text("id,text\n1,Ada left Bern, Switzerland.\n2,Tom left.,,\n")
    corpus = read(tmp_path, max_bad=0.5)
    assert [row.text for row in corpus.rows] == ["Tom left."]
    told = "3 cells under a head of 2; put quotes around a text with ',' in it"
    assert [(one.line, one.reason) for one in corpus.bad] == [(2, told)]


def test_quotes_in_a_table_with_tabs_are_letters_where_they_close_no_cell(tmp_path):
    (tmp_path / "a.tsv").write_text('id\ttext\n1\t"Hello" she said.\n2\t"Open quote\n3\tThird text\n')
    assert texts(tmp_path) == ['"Hello" she said.', '"Open quote', "Third text"]
    (tmp_path / "a.tsv").write_text('id\ttext\n1\t"One ""cell"" of\ntwo lines."\n')
    assert texts(tmp_path) == ['One "cell" of\ntwo lines.']


def test_a_quote_that_is_not_closed_is_told(tmp_path):
    """All lines behind it were one cell, and nothing was said."""
    (tmp_path / "a.csv").write_text('id,text\n1,A 5" pipe.\n2,"One.\n3,Two.\n4,Three.\n')
    assert texts(tmp_path) == ['A 5" pipe.', "One.\n3,Two.\n4,Three."], "two quotes: it cannot be known"
    (tmp_path / "a.csv").write_text('id,text\n1,Zero.\n2,"One.\n3,Two.\n')
    corpus = read(tmp_path, max_bad=0.5)
    assert [row.text for row in corpus.rows] == ["Zero."]
    assert [(one.line, one.reason[:27]) for one in corpus.bad] == [(3, "a quote that is not closed,")]
    (tmp_path / "a.csv").write_text('id,text\n1,A 5" pipe.\n2,Two.\n')
    assert texts(tmp_path) == ['A 5" pipe.', "Two."]


def test_lines_of_a_table_are_counted_from_their_first(tmp_path):
    (tmp_path / "a.csv").write_text('Part,Note\nBolt,"one\ntwo\nthree"\nNut,x\n')
    (row,) = read(tmp_path).rows
    assert row.source == f"{tmp_path}/a.csv, lines 2 to 5"


def test_a_long_field_of_a_table_is_read(tmp_path):
    (tmp_path / "a.csv").write_text(f"text,n\n{'word ' * 40_000},1\n")
    assert len(texts(tmp_path)) >= 1


@pytest.mark.parametrize("content", [
    [{"text": "One."}, {"text": "Two."}],
    ["One.", "Two."],
    {"version": 2, "data": [{"text": "One.", "id": 1}, {"text": "Two."}]},
    {"train": [{"text": "One."}], "test": [{"text": "Two."}], "authors": [{"name": "Ada"}]},
    {"pages": ["One.", "Two."]},
])  # fmt: skip
def test_records_of_a_json_file(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content, indent=1))
    assert texts(tmp_path) == ["One.", "Two."]


def test_a_json_file_without_records_is_no_damage(tmp_path):
    (tmp_path / "a.txt").write_text("A page.")
    for name, content in (("settings", '{"theme": "dark"}'), ("none", ""), ("number", "3")):
        (tmp_path / f"{name}.json").write_text(content)
    corpus = read(tmp_path, max_bad=0.0)
    assert [row.text for row in corpus.rows] == ["A page."]
    assert [one.reason for one in corpus.empty] == [
        "no text in it",
        "no list of records and no field 'text', but int",
        "no list of records and no field 'text', but 'theme'",
    ]


def test_json_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "One."}, {"body": "x"}, 3]')
    (tmp_path / "b.json").write_text('{"text": ')
    (tmp_path / "c.json").write_text("[" * 100_000)
    corpus = read(tmp_path)
    assert [row.text for row in corpus.rows] == ["One."]
    assert [one.line for one in corpus.bad] == [2, 3, 1, 1]
    assert [one.reason.split(" (")[0] for one in corpus.bad][2:] == ["not JSON", "not JSON"]


def zst(raw):
    return pa.compress(raw, codec="zstd", asbytes=True)


@pytest.mark.parametrize("packed", [gzip.compress, zst])
def test_compressed_files_are_read_with_all_their_parts(tmp_path, packed):
    """Two parts behind each other, as appending makes them, are one file."""
    ending = "gz" if packed is gzip.compress else "zst"
    raw = packed(b'{"text": "One."}\n') + packed(b'{"text": "Two."}\n{"text": "Thr')
    (tmp_path / f"a.jsonl.{ending}").write_bytes(raw)
    (tmp_path / f"B.TXT.{ending.upper()}").write_bytes(packed("Zürich.".encode()))
    (tmp_path / f"c.tar.{ending}").write_bytes(packed(b"tar"))
    corpus = read(tmp_path)
    assert [row.text for row in corpus.rows] == ["Zürich.", "One.", "Two."]
    assert [row.source for row in corpus.rows][1:] == [f"{tmp_path}/a.jsonl.{ending}:{n}" for n in (1, 2)]
    assert [(one.line, one.reason[:8]) for one in corpus.bad] == [(3, "not JSON")]
    assert corpus.skipped == (str(tmp_path / f"c.tar.{ending}"),)


@pytest.mark.parametrize("packed", [gzip.compress, zst])
def test_a_compressed_file_that_is_cut_or_too_large_is_told(tmp_path, packed, monkeypatch):
    ending = "gz" if packed is gzip.compress else "zst"
    raw = packed(bytes(range(256)) * 400)
    (tmp_path / "a.txt").write_text("A page.")
    (tmp_path / f"b.txt.{ending}").write_bytes(raw[: len(raw) // 2])
    (tmp_path / f"c.txt.{ending}").write_bytes(b"no such file")
    (tmp_path / f"d.txt.{ending}").write_bytes(packed(b"word " * 1000))
    monkeypatch.setattr(compressed, "UNPACKED", 4000)
    corpus = read(tmp_path)
    assert [row.text for row in corpus.rows] == ["A page."]
    cut, other, large = [one.reason for one in corpus.bad]
    assert cut.startswith("a compressed file that is cut or damaged")
    assert other.startswith("a compressed file that is cut or damaged")
    assert large == "it unpacks to more than 4,000 bytes; split it, or leave it out"


def test_a_longest_line_of_json_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_format, "LONGEST", 60)
    (tmp_path / "a.jsonl").write_text('{"text": "One."}\n' + " " * 80 + '\n{"text": "Two."}\n')
    corpus = read(tmp_path)
    assert [row.text for row in corpus.rows] == ["One."]
    assert [(one.line, one.reason) for one in corpus.bad] == [
        (2, "a line of 60 bytes or more; the file is read up to it")
    ]


def archive(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def test_an_archive_is_read_as_its_files(tmp_path):
    files = {"wiki/b.md": "# Two", "wiki/a.txt": "One.", "c.jsonl.gz": gzip.compress(b'{"text": "Three."}'),
             "wiki/style.css": "p {}", "wiki/p.png": b"\x89PNG", "__MACOSX/x.txt": "no", ".git/y.txt": "no",
             "wiki/bad.txt": b"\xff\xff"}  # fmt: skip
    corpus = read(archive(tmp_path / "a.zip", **files))
    name = f"{tmp_path}/a.zip"
    assert [(row.text, row.source) for row in corpus.rows] == [
        ("Three.", f"{name}/c.jsonl.gz:1"), ("One.", f"{name}/wiki/a.txt:1"), ("# Two", f"{name}/wiki/b.md:1")
    ]  # fmt: skip
    assert [one.file for one in corpus.bad] == [f"{name}/wiki/bad.txt"]
    assert [one.reason for one in corpus.empty] == ["files of unknown kind in it: wiki/style.css, wiki/p.png"]
    assert not [line for line in told(corpus) if "without text" in line]
    assert {one.file.removeprefix(name): one.rows for one in corpus.reads} == {
        "": 0, "/c.jsonl.gz": 1, "/wiki/a.txt": 1, "/wiki/b.md": 1, "/wiki/bad.txt": 0
    }  # fmt: skip


def test_names_with_a_colon_and_lock_files_are_as_in_a_folder(tmp_path):
    files = {"Meeting 10:30.md": "Ten.", "C:/a.txt": "no", "c:a.txt": "no", "~$letter.docx": b"lock"}
    corpus = read(archive(tmp_path / "a.zip", **files))
    assert [row.text for row in corpus.rows] == ["Ten."]
    assert [one.file for one in corpus.bad] == [f"{tmp_path}/a.zip/{name}" for name in ("C:/a.txt", "c:a.txt")]


def test_an_archive_in_an_archive_is_read_and_no_deeper_one(tmp_path):
    inner = archive(tmp_path / "inner.zip", **{"deep.txt": "Deep."})
    middle = archive(tmp_path / "middle.zip", **{"in.zip": inner.read_bytes(), "page.txt": "Page."})
    outer = archive(tmp_path / "outer.zip", **{"part-1.zip": middle.read_bytes(), "part-2.zip": inner.read_bytes()})
    corpus = read(outer)
    assert [row.text for row in corpus.rows] == ["Page.", "Deep."]
    assert corpus.rows[0].source == f"{outer}/part-1.zip/page.txt:1"
    assert [(one.file, one.reason) for one in corpus.bad] == [
        (f"{outer}/part-1.zip/in.zip", "an archive in an archive in an archive; unpack it")
    ]


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:/evil.txt"])
def test_a_path_that_leaves_its_archive_is_told_and_nothing_is_written(tmp_path, name):
    (tmp_path / "pages").mkdir()
    corpus = read(archive(tmp_path / "pages" / "a.zip", **{name: "Evil.", "good.txt": "Good."}))
    assert [row.text for row in corpus.rows] == ["Good."]
    assert ["leads out of the archive" in one.reason for one in corpus.bad] == [True]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "pages"]


def test_an_archive_that_unpacks_to_too_much_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED", 5000)
    (tmp_path / "a.txt").write_text("A page.")
    archive(tmp_path / "b.zip", **{"b.txt": "word " * 2000})
    inner = archive(tmp_path / "in.zip", **{"c.txt": "word " * 800})
    archive(tmp_path / "c.zip", **{"1.zip": inner.read_bytes(), "2.zip": inner.read_bytes()})
    inner.unlink()
    corpus = read(tmp_path)
    assert "A page." in [row.text for row in corpus.rows]
    assert corpus.bad[0].reason == "it unpacks to 10,000 bytes, more than 5,000; split it, or leave it out"
    assert [one.file for one in corpus.bad][1:] == [f"{tmp_path}/c.zip/2.zip"], "the second one is over the limit"


def test_an_archive_that_lies_about_its_sizes_is_told(tmp_path):
    path = archive(tmp_path / "a.zip", **{"a.txt": "word " * 2000})
    raw = bytearray(path.read_bytes())
    size = (10_000).to_bytes(4, "little")
    at = raw.rindex(size)
    raw[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match="damaged in its archive"):
        read(path)


@pytest.mark.parametrize("raw", [b"PK\x03\x04 cut", b"no archive"])
def test_what_is_no_archive_is_told(tmp_path, raw):
    (tmp_path / "a.zip").write_bytes(raw)
    (tmp_path / "a.txt").write_text("A page.")
    (one,) = read(tmp_path).bad
    assert one.reason.startswith("no ZIP archive, or one that is cut or damaged")
