"""A folder of odd files, as people have them, and what foci says of each: `docs/limits.md` shows the same table.

kinds = odd_files.make(folder)      # writes the files, and returns them
"""

import gzip
import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

GOOD = 30
"""Good pages in the folder, so that no kind of damage alone ends a run (`corpus.max_bad` is raised all the same)."""
PROSE = "Zoë Müller was born in Bern, and works as a painter in Zürich. "
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 269060552\n"


@dataclass(frozen=True)
class Odd:
    """An odd file: its name, what it is, how it is made, and what foci does with it.

    `fate` is "read", "empty" (named, no damage), "skipped" (a kind that foci does not read) or "bad" (quarantined);
    `says` is the reason that is told, or what is read.
    """

    name: str
    what: str
    make: Callable[[Path], object]
    fate: str
    says: str


def _bytes(raw: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(raw)


def _text(text: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    return _bytes(text.encode(encoding))


def _archive() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("word/document.xml", "<w:t>Bern</w:t>")
    return held.getvalue()


def _table(path: Path, part: float = 1.0, rows: int = 300) -> None:
    pq.write_table(pa.table({"text": [f"Record {n} of the table tells of Bern." for n in range(rows)]}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(part * len(whole))])


def _linked(path: Path) -> None:
    elsewhere = path.parent.parent / f"{path.parent.name}-elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "linked.txt").write_text("A page in a folder that is linked.")
    (elsewhere / "back").symlink_to(path.parent)
    path.symlink_to(elsewhere)


KINDS = [
    Odd("mark.txt", "UTF-8 with a byte-order mark", _text("\ufeffA page with a mark."), "read", "A page with a mark."),
    Odd("windows.txt", "Windows line ends", _text("Line one.\r\nLine two."), "read", "Line one.\nLine two."),
    Odd("NOTES.MD", "an ending in capitals", _text("# Notes on Bern"), "read", "# Notes on Bern"),
    Odd("tags.txt", "a tokenizer's control words in a page", _text("A row ends with <eos> here."), "read",
        "A row ends with <eos> here."),
    Odd("blank-lines.jsonl", "JSON lines with blank lines between", _text('\n{"text": "After a blank line."}\n\n \n'),
        "read", "After a blank line."),
    Odd("linked", "a link to a folder, with a link back", _linked, "read", "A page in a folder that is linked."),
    Odd("empty.txt", "an empty file", _bytes(b""), "empty", "no text in it"),
    Odd("spaces.md", "white space alone", _text(" \n\t\n"), "empty", "no text in it"),
    Odd("empty-records.jsonl", "a record with an empty text", _text('{"text": ""}\n'), "empty",
        "field 'text' is an empty text"),
    Odd("no-rows.parquet", "a table without rows", lambda path: _table(path, rows=0), "empty", "no text in it"),
    Odd("slides.odp", "slides of LibreOffice", _bytes(b"PK\x03\x04"), "skipped", "file of unknown kind"),
    Odd("table.csv", "a table of values", _text("name,town\nZoë,Bern\n"), "read",
        "| name | town |\n|---|---|\n| Zoë | Bern |"),
    Odd("README", "no ending", _text("Read me."), "skipped", "file of unknown kind"),
    Odd("old.txt", "Windows-1252, as old editors write", _text(PROSE, "cp1252"), "bad",
        "not UTF-8 (byte 0xeb at byte 2); save it as UTF-8 (an old Windows file: iconv -f WINDOWS-1252 -t UTF-8)"),
    Odd("notepad.txt", "UTF-16 with a byte-order mark", _text(PROSE, "utf-16"), "bad",
        "UTF-16, not UTF-8; save it as UTF-8, or: iconv -f UTF-16 -t UTF-8"),
    Odd("bare.txt", "UTF-16 without one", _text(PROSE, "utf-16-le"), "bad",
        "UTF-16 without a byte-order mark, not UTF-8; save it as UTF-8, or: iconv -f UTF-16LE -t UTF-8"),
    Odd("renamed.txt", "a PDF document, renamed", _bytes(b"%PDF-1.4\n1 0 obj <</Type /Catalog>> endobj"), "bad",
        "a PDF document, not text; convert it to text first"),
    Odd("letter.txt", "a Word document, renamed", _bytes(_archive()), "bad",
        "a ZIP archive or an Office document, not text; unpack it, or save it as plain text"),
    Odd("packed.jsonl", "compressed by gzip, renamed", _bytes(gzip.compress(b'{"text": "Bern"}\n', mtime=0)), "bad",
        "compressed (gzip), not text; unpack it: gunzip"),
    Odd("photo.md", "a picture, renamed", _bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "bad",
        "a PNG picture, not text; leave it out"),
    Odd("noise.txt", "bytes of a program", _bytes(b"call\0\1\2ret\0\3\4"), "bad",
        "not text (a zero byte at character 4); leave it out, or repair it"),
    Odd("pointer.txt", "a Git LFS pointer", _text(POINTER), "bad",
        "a Git LFS pointer, not the file itself; fetch the file with: git lfs pull"),
    Odd("pointer.parquet", "a Git LFS pointer", _text(POINTER), "bad",
        "a Git LFS pointer, not the file itself; fetch the file with: git lfs pull"),
    Odd("gone.txt", "a link that leads nowhere", lambda path: path.symlink_to("moved.txt"), "bad",
        "a link to moved.txt, which is not there"),
    Odd("pipe.txt", "a named pipe", os.mkfifo, "bad", "not a file, but a device, pipe or socket"),
    Odd("cut.parquet", "half a table", lambda path: _table(path, 0.5), "bad",
        "a parquet file that is cut or damaged ("),
    Odd("text.parquet", "text, renamed", _text("Not a table."), "bad", "not a parquet file ("),
    Odd("torn.jsonl", "a line that was cut", _text('{"text": "A line that was c'), "bad",
        "not JSON (Unterminated string starting at: line 1 column 10 (char 9))"),
    Odd("list.jsonl", "a list in place of an object", _text('["Bern"]\n'), "bad", "not a JSON object but list"),
    Odd("other-field.jsonl", "another name for the text", _text('{"body": "Bern"}\n'), "bad",
        "no field 'text' (the fields are 'body'; corpus.text_field says which one holds the text)"),
    Odd("number.jsonl", "a number as text", _text('{"text": 3}\n'), "bad", "field 'text' is not a string but int"),
    Odd("halves.jsonl", "half a surrogate pair", _text('{"text": "\\ud83d!"}\n'), "bad",
        "field 'text' is not UTF-8 (half a surrogate pair at character 0)"),
]  # fmt: skip


def make(folder: Path) -> list[Odd]:
    """Writes the good pages and one file of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(GOOD):
        (folder / f"page-{n:02d}.txt").write_text(f"Page {n} tells of town number {n}.", encoding="utf-8")
    for kind in KINDS:
        kind.make(folder / kind.name)
    return KINDS


def table() -> str:
    """Returns the table of `docs/limits.md`."""
    fates = {"read": "read", "empty": "named, no damage", "skipped": "named, left out", "bad": "quarantined"}
    lines = ["| file | what it is | what foci does | what it says |", "|---|---|---|---|"]
    for kind in KINDS:
        says = "" if kind.fate == "read" else f"{kind.says}{'...)' * kind.says.endswith('(')}".replace("|", "\\|")
        lines.append(f"| `{kind.name}` | {kind.what} | {fates[kind.fate]} | {says} |")
    return "\n".join(lines)
