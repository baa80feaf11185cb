"""What is text and what is not: each kind of file is named, and the cure is told."""

import gzip

import pytest

from foci.system.files import read_json, read_lines
from foci.system.texts import NotText, decoded, read_text

PROSE = "Zoë Müller was born in Bern. " * 3

TEXTS = [
    (b"", ""),
    (b"\xef\xbb\xbfabc", "abc"),
    (b"a\tb\r\n\fc\x1b[1m", "a\tb\r\n\fc\x1b[1m"),
    ("Привет, мир".encode(), "Привет, мир"),
    (b"PAR1 is a receptor, GIF89 a picture, and BZh a name.", "PAR1 is a receptor, GIF89 a picture, and BZh a name."),
    (b"BZh is a name.", "BZh is a name."),
    (b"It\x19s a letter with one mark that a bad export left in it, and it is text all the same.\n" * 1, None),
    (b"version https://git-lfs.github.com begins each pointer. " * 30, None),
]


@pytest.mark.parametrize(("raw", "text"), TEXTS)
def test_text_is_read(raw, text):
    assert decoded(raw) == (raw.decode() if text is None else text)


OTHERS = [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a Git LFS pointer", "git lfs pull"),
    (PROSE.encode("utf-16"), "UTF-16, not", "iconv -f UTF-16 "),
    (PROSE.encode("utf-16-be"), "UTF-16 without a byte-order mark", "save it as UTF-8"),
    (PROSE.encode("utf-16-le"), "UTF-16 without a byte-order mark", "save it as UTF-8"),
    ("Привет, мир и дом".encode("utf-16-le"), "UTF-16 without a byte-order mark", "save it as UTF-8"),
    ("Привет, мир и дом".encode("utf-16-be"), "UTF-16 without a byte-order mark", "save it as UTF-8"),
    (PROSE.encode("utf-32"), "UTF-32", "iconv -f UTF-32 "),
    (PROSE.encode("cp1252"), "not UTF-8 (byte 0xeb at byte 2)", "iconv -f WINDOWS-1252"),
    (b"%PDF-1.4 plain letters", "a PDF document", "convert it"),
    (b"{\\rtf1 plain letters}", "an RTF document", "save it as plain text"),
    (b"PK\x03\x04\x14\x00\x08", "a ZIP archive or an Office document", "unpack it"),
    (gzip.compress(b"abc", mtime=0), "compressed (gzip)", "gunzip"),
    (b"\x89PNG\r\n\x1a\n\0\0", "a PNG picture", "leave it out"),
    (b"\x7fELF\2\1\1\0\0", "a program", "leave it out"),
    (b"abc\0def", "a zero byte at character 3", "leave it out"),
    (b"ab\1\2\3\4cd", "4 control characters", "leave it out"),
    (bytes(range(256)) * 4, "", "leave it out"),
]


@pytest.mark.parametrize(("raw", "reason", "cure"), OTHERS)
def test_everything_else_is_named_with_a_cure(tmp_path, raw, reason, cure):
    with pytest.raises(NotText) as caught:
        decoded(raw)
    if reason:
        assert reason in str(caught.value)
        assert cure in str(caught.value)
    path = tmp_path / "page.txt"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"^probes\.text: the file .*page\.txt is ") as told:
        read_text(path, "probes.text: the file")
    assert "\n" not in str(told.value)


def test_a_damaged_file_of_focis_own_is_named(tmp_path):
    path = tmp_path / "start.json"
    for content in (b"", b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"start\.json is damaged: it is not JSON \(.*put the whole file back"):
            read_json(path)
        path.write_bytes(content + b"x\n")
        with pytest.raises(ValueError, match=r"start\.json is damaged: a line of it is not JSON \("):
            read_lines(path)
    path.write_bytes(b'{"a": 1}\n\n{"b": 2}\n{"torn')
    assert read_lines(path) == [{"a": 1}, {"b": 2}]


def test_a_path_that_is_no_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^the file .* cannot be read \(Is a directory\)"):
        read_text(tmp_path, "the file")
