"""The corpus: what is read, cut, left out and told. Token counts are worked by hand on a toy tokenizer."""

import json
import sys
from itertools import groupby, pairwise
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from foci.corpus import (
    CorpusError,
    Document,
    read_corpus,
    read_rows,
    row_id,
    tokenizer_fingerprint,
    write_quarantine,
    write_rows,
)
from foci.corpus.split import Room, cuts, sentence_ends, union
from foci.focus import Row

BYTES = pre_tokenizers.ByteLevel.alphabet()


def byte_tokenizer(bos: bool = False, eos: bool = True) -> PreTrainedTokenizerFast:
    """One token a byte, so that counts can be worked by hand; ids 0 = <s>, 1 = </s>."""
    vocab = {"<s>": 0, "</s>": 1} | {symbol: 2 + i for i, symbol in enumerate(sorted(BYTES))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>" if eos else None, pad_token="<s>"
    )


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word or punctuation mark; no special tokens but [UNK]."""
    backend = Tokenizer(models.WordLevel(vocab={"[UNK]": 0, ".": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


def jsonl(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def squeezed(text: str) -> str:
    return "".join(text.split())


def answers(row: Row) -> list[str]:
    """The answers, read back from column and offsets."""
    marked = {a for (a, b), on in zip(row.offsets, row.columns["answer"], strict=True) if on and b > a}
    groups = groupby(range(len(row.text)), key=lambda i: i in marked)
    return ["".join(row.text[i] for i in group) for inside, group in groups if inside]


def test_every_kind_of_file_in_a_folder_is_read_in_order(tmp_path, tokenizer):
    (tmp_path / "b.txt").write_bytes("\ufeff\r\n first\r\nline ".encode())
    (tmp_path / "A.MD").write_text("# mark", encoding="utf-8")
    (tmp_path / ".hidden.txt").write_text("hidden", encoding="utf-8")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden too", encoding="utf-8")
    (tmp_path / "slides.odp").write_bytes(b"PK")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "eins"}\r\n{"text": "zwei\\r\\n"}')
    pq.write_table(pa.table({"text": ["rec one", "rec two"], "id": [1, 2]}), tmp_path / "sub" / "d.parquet")
    corpus = read_corpus(tmp_path, tokenizer, max_length=32)
    assert [(row.text, Path(row.source).name) for row in corpus.rows] == [
        ("# mark", "A.MD:1"),
        ("first\nline", "b.txt:2"),
        ("eins", "c.jsonl:1"),
        ("zwei", "c.jsonl:2"),
        ("rec one", "d.parquet:1"),
        ("rec two", "d.parquet:2"),
    ]
    assert corpus.skipped == (str(tmp_path / "slides.odp"),)
    assert corpus.counts() == {
        "files": 4,
        "documents": 6,
        "rows": 6,
        "tokens": sum(len(row.text) + 1 for row in corpus.rows),
        "duplicates": 0,
        "quarantined": 0,
        "split": 0,
        "repeated": 0,
        "skipped": 1,
        "empty": 0,
    }


def test_a_row_holds_ids_offsets_and_the_eos_token(tmp_path, tokenizer):
    (row,) = read_corpus(jsonl(tmp_path / "a.jsonl", {"text": "hé."}), tokenizer, max_length=8).rows
    assert tokenizer.decode(row.input_ids) == "hé.</s>"
    assert row.offsets == ((0, 1), (1, 2), (1, 2), (2, 3), (0, 0))
    assert row.columns == {}
    assert row.row_id == row_id("hé.", tokenizer_fingerprint(tokenizer))
    plain = read_corpus(tmp_path / "a.jsonl", tokenizer, max_length=8, add_eos=False).rows[0]
    assert plain.input_ids == row.input_ids[:-1]


def test_bos_begins_every_row_and_eos_ends_a_document_once(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"text": "One two. Three."}, {"text": "four</s>"})
    rows = read_corpus(path, byte_tokenizer(bos=True), max_length=10).rows
    assert [row.text for row in rows] == ["One two.", "Three.", "four</s>"]
    assert [row.input_ids[0] for row in rows] == [0, 0, 0]
    assert [row.input_ids.count(1) for row in rows] == [0, 1, 1]
    assert rows[0].offsets[:2] == ((0, 0), (0, 1))


BAD = [
    (b'{"text": "a', "not JSON"),
    (b'["a"]', "not a JSON object but list"),
    (b'{"body": "a"}', "no field 'text' (the fields are 'body'; corpus.text_field says which one holds the text)"),
    (b'{"text": 3}', "not a string but int"),
    (b'{"text": null}', "not a string but NoneType"),
    (b'{"text": "\xff\xfe"}', "not UTF-8 (byte 0xff at byte 10)"),
    (b'{"text": "\\ud800x"}', "half a surrogate pair at character 0"),
    (b'{"text": "a\\u0000b"}', "not text (1 of 3 characters are zero bytes"),
    (b"[" * 100_000, "not JSON"),
    (b'{"text": "abc", "answer_spans": [[1, 4]]}', "[1, 4] is outside of the text (0 to 3 characters)"),
    (b'{"text": "abc", "answer_spans": [[-1, 2]]}', "outside"),
    (b'{"text": "abc", "answer_spans": [[1.0, 2]]}', "two whole numbers, got [1.0, 2]"),
    (b'{"text": "abc", "answer_spans": [[true, 2]]}', "two whole numbers"),
    (b'{"text": "abc", "answer_spans": [[1]]}', "two whole numbers"),
    (b'{"text": "abc", "answer_spans": "abc"}', "not a list"),
    (b'{"text": "abc", "answer_spans": [[2, 2]]}', "[2, 2] is empty"),
    (b'{"text": "abc", "answer_spans": [[2, 1]]}', "[2, 1] is empty"),
    (b'{"text": "a c", "answer_spans": [[1, 2]]}', "[1, 2] is empty"),
    (b'{"text": "abc", "name_spans": [[1, 4]]}', "name_spans: [1, 4] is outside of the text"),
    (b'{"text": "abc", "rehearsed_spans": [[0, 1]]}', "rehearsed_spans: 'rehearsed' is a column of foci's own"),
    (b'{"text": "a b", "name_spans": [[0, 1]], "name_groups": []}', "name_groups: expected a list of 1 strings"),
    (b'{"text": "a b", "name_spans": [[0, 1]], "name_groups": [3]}', "one for each span, got [3]"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line_is_quarantined_with_its_number_and_the_run_goes_on(tmp_path, tokenizer, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + line + b'\n{"text": "fine"}\n')
    corpus = read_corpus(path, tokenizer, max_length=16, max_bad=0.5)
    assert [(row.text, row.source) for row in corpus.rows] == [("good", f"{path}:1"), ("fine", f"{path}:3")]
    (bad,) = corpus.bad
    assert (bad.file, bad.line) == (str(path), 2)
    assert reason in bad.reason
    write_quarantine(corpus.bad, tmp_path / "new" / "quarantine.jsonl")
    written = json.loads((tmp_path / "new" / "quarantine.jsonl").read_text(encoding="utf-8"))
    assert written == {"file": bad.file, "line": 2, "reason": bad.reason, "excerpt": bad.excerpt}
    assert len(bad.excerpt) <= 80


@pytest.mark.parametrize(
    ("name", "content", "line", "reason"),
    [
        ("a.txt", b"fine\nline \xff here", 2, "not UTF-8 (byte 0xff at byte 10)"),
        ("a.txt", "text".encode("utf-16"), 1, "UTF-16"),
        ("a.parquet", b"not a table", 1, "not a parquet file"),
    ],
)
def test_a_bad_file_is_quarantined(tmp_path, tokenizer, name, content, line, reason):
    (tmp_path / name).write_bytes(content)
    good = jsonl(tmp_path / "good.jsonl", {"text": "good"})
    corpus = read_corpus([tmp_path / name, good], tokenizer, max_length=16, max_bad=0.5)
    assert [row.text for row in corpus.rows] == ["good"]
    assert corpus.bad[0].line == line
    assert reason in corpus.bad[0].reason


def test_more_bad_lines_than_allowed_is_an_error_with_the_first_three(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text": "a{i}"}}\n' for i in range(96)) + "x\n" * 4)
    with pytest.raises(CorpusError) as caught:
        read_corpus(path, tokenizer, max_length=16, max_bad=0.03)
    for part in ("3.0%", "4 of 100", "4.0%", f"{path}:97", f"{path}:99", "1 more", "Repair", "max_bad"):
        assert part in str(caught.value)
    assert f"{path}:100" not in str(caught.value)
    assert [bad.line for bad in caught.value.bad] == [97, 98, 99, 100]
    assert read_corpus(path, tokenizer, max_length=16, max_bad=0.04).quarantined == 4


def test_two_documents_of_one_line_are_two(tmp_path, tokenizer, monkeypatch):
    """A format may find several documents on one line, or count no lines at all."""
    (tmp_path / "a.txt").write_text("a")
    texts = ["eins", "zwei", "drei vier fuenf sechs", "sieben acht neun zehn"]
    monkeypatch.setattr(
        "foci.corpus.gathering.read_source", lambda source, _: [Document(text, source, 1) for text in texts]
    )
    corpus = read_corpus(tmp_path, tokenizer, max_length=16, max_bad=0.0)
    assert (corpus.documents, corpus.split, corpus.bad) == (4, 2, ())


def test_nothing_left_is_an_error_that_says_why(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_text("x\n")
    with pytest.raises(ValueError, match=r"empty after quarantine: 1 of 1 .*a\.jsonl:1: not JSON"):
        read_corpus(tmp_path, tokenizer, max_length=16, max_bad=1.0)


def test_paths_that_cannot_be_read(tmp_path, tokenizer):
    (tmp_path / "corpus").mkdir()
    with pytest.raises(FileNotFoundError, match=r"did you mean .*corpus\?"):
        read_corpus(tmp_path / "corpsu" / "a.txt", tokenizer, max_length=16)
    with pytest.raises(FileNotFoundError, match=r"'zzz' is not in"):
        read_corpus(tmp_path / "zzz", tokenizer, max_length=16)
    with pytest.raises(ValueError, match="no file at all"):
        read_corpus(tmp_path / "corpus", tokenizer, max_length=16)
    (tmp_path / "corpus" / "a.odt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"\.txt, .*got only .*a\.odt"):
        read_corpus(tmp_path / "corpus", tokenizer, max_length=16)
    with pytest.raises(ValueError, match=r"got '\.odt'"):
        read_corpus(tmp_path / "corpus" / "a.odt", tokenizer, max_length=16)
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"expected a column 'text', got body; set corpus\.text_field"):
        read_corpus(tmp_path / "a.parquet", tokenizer, max_length=16)


@pytest.mark.parametrize(
    ("setting", "message"), [({"max_bad": 5.0}, "share from 0 to 1"), ({"max_length": 2}, "at least 3")]
)
def test_settings_that_cannot_work(tmp_path, tokenizer, setting, message):
    path = jsonl(tmp_path / "a.jsonl", {"text": "good"})
    with pytest.raises(ValueError, match=message):
        read_corpus(path, tokenizer, **({"max_length": 16} | setting))


def test_duplicates_are_dropped_and_counted_and_their_answers_kept(tmp_path, tokenizer):
    path = jsonl(
        tmp_path / "a.jsonl",
        {"text": "Ann is 30", "answer_spans": [[0, 3]]},
        {"text": "other"},
        {"text": " Ann is 30\n", "answer_spans": [[8, 10]]},
    )
    corpus = read_corpus([path, tmp_path, str(path)], tokenizer, max_length=16)
    assert (corpus.files, corpus.documents, corpus.duplicates) == (1, 2, 1)
    assert corpus.rows[0].source == f"{path}:1"
    assert answers(corpus.rows[0]) == ["Ann", "30"]


def test_answers_mark_the_tokens_they_touch(tmp_path):
    path = jsonl(
        tmp_path / "a.jsonl",
        {"text": "  born in Bern now", "answer_spans": [[9, 15]]},
        {"text": "nothing asked", "answer_spans": []},
        {"text": "plain"},
        {"text": "in Bernese land", "answer_spans": [[3, 7]]},
    )
    rows = read_corpus(path, word_tokenizer(), max_length=16, max_bad=0.5).rows
    assert [row.columns.get("answer") for row in rows] == [(0, 0, 1, 0), (0, 0), (0, 1, 0)]


MARKED = [
    {"text": " Ann of Bern and Bo", "name_spans": [[1, 4], [17, 19]], "answer_spans": [[8, 12]], "other": 1},
    {"text": "Cy of Rome or Oslo", "answer_spans": [[6, 10], [14, 18]], "answer_groups": ["town", "city"]},
    {"text": "Di is here", "name_spans": None},
]


@pytest.mark.parametrize("source", ["jsonl", "parquet", "hub"])
def test_every_key_of_spans_is_a_column_whatever_the_format(tmp_path, monkeypatch, source):
    path = tmp_path / f"a.{source}"
    if source == "jsonl":
        jsonl(path, *MARKED)
    if source == "parquet":
        pq.write_table(pa.Table.from_pylist([{**dict.fromkeys(MARKED[1]), **line} for line in MARKED]), path)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda name, split: MARKED))
    rows = read_corpus("hub:marked" if source == "hub" else path, word_tokenizer(), max_length=16).rows
    assert dict(rows[0].columns) == {"name": (1, 0, 0, 0, 1), "answer": (0, 0, 1, 0, 0)}
    assert dict(rows[1].columns) == {
        "answer": (0, 0, 1, 0, 1), "answer:town": (0, 0, 1, 0, 0), "answer:city": (0, 0, 0, 0, 1),
    }  # fmt: skip
    assert rows[2].columns == {}


def test_a_long_document_is_cut_at_sentence_ends_then_lines_then_words_then_tokens(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text(
        "\nOne. Two.\nThree is a title\nwithout an end of sentence abcdefghijklmnopqrstuvwxyz\n", encoding="utf-8"
    )
    rows = read_corpus(tmp_path / "a.txt", tokenizer, max_length=20).rows
    assert [(row.text, row.source.rpartition(":")[2]) for row in rows] == [
        ("One. Two.", "2"),
        ("Three is a title", "3"),
        ("without an end of", "4"),
        ("sentence", "4"),
        ("abcdefghijklmnopqrst", "4"),
        ("uvwxyz", "4"),
    ]
    assert [row.input_ids[-1] == 1 for row in rows] == [False] * 5 + [True]


def test_answers_move_with_their_part_and_are_not_torn_when_they_fit(tmp_path, tokenizer):
    text = "He met Ann B. Lee in Bern. Later he left for the far away town of Rome."
    spans = [[text.index(a), text.index(a) + len(a)] for a in ("Ann B. Lee", "far away town", "Rome")]
    path = jsonl(tmp_path / "a.jsonl", {"text": text, "answer_spans": spans})
    rows = read_corpus(path, tokenizer, max_length=16).rows
    assert [row.text for row in rows] == [
        "He met",
        "Ann B. Lee in",
        "Bern.",
        "Later he left",
        "for the",
        "far away town of",
        "Rome.",
    ]
    assert [answers(row) for row in rows] == [[], ["Ann B. Lee"], [], [], [], ["far away town"], ["Rome"]]
    torn = read_corpus(path, tokenizer, max_length=8).rows
    assert squeezed("".join("".join(answers(row)) for row in torn)) == "AnnB.LeefarawaytownRome"


def test_rows_that_repeat_are_left_out_and_told(tmp_path, tokenizer):
    path = jsonl(tmp_path / "a.jsonl", {"text": "Same here. Same here. Other.", "answer_spans": [[5, 9], [11, 15]]})
    corpus = read_corpus(path, tokenizer, max_length=14)
    assert [row.text for row in corpus.rows] == ["Same here.", "Other."]
    assert (corpus.repeated, corpus.split, corpus.documents) == (1, 1, 1)
    assert answers(corpus.rows[0]) == ["Same", "here"]


def test_a_text_of_one_token_cannot_be_learned_and_is_told(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"text": "word"}, {"text": "two words"})
    corpus = read_corpus(path, word_tokenizer(), max_length=4, max_bad=0.5)
    assert [row.text for row in corpus.rows] == ["two words"]
    assert (corpus.documents, corpus.bad[0].line, corpus.bad[0].excerpt) == (1, 1, "word")
    assert "1 token(s)" in corpus.bad[0].reason


def test_a_text_the_tokenizer_drops_is_told(tmp_path):
    tokenizer = byte_tokenizer(bos=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("x", "")
    path = jsonl(tmp_path / "a.jsonl", {"text": "xxx"}, {"text": "ax"})
    corpus = read_corpus(path, tokenizer, max_length=8, max_bad=0.5)
    assert [row.text for row in corpus.rows] == ["ax"]
    assert "no token of this text" in corpus.bad[0].reason


def test_a_document_of_which_a_part_fits_no_row_is_not_a_bad_document(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    path = jsonl(tmp_path / "a.jsonl", {"text": "ab \ufdfa cd \ufdfa"})
    corpus = read_corpus(path, tokenizer, max_length=8, max_bad=0.0)
    assert (corpus.documents, corpus.quarantined) == (1, 2)


def test_no_row_is_left_with_a_single_token_by_a_cut(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"text": "one two three four five"})
    corpus = read_corpus(path, word_tokenizer(), max_length=4)
    assert [row.text for row in corpus.rows] == ["one two three", "four five"]


def test_a_character_that_is_longer_than_a_row_is_told(tmp_path):
    backend = byte_tokenizer()
    backend.backend_tokenizer.normalizer = normalizers.NFKC()
    path = jsonl(tmp_path / "a.jsonl", {"text": "ab \ufdfa cd"})
    corpus = read_corpus(path, backend, max_length=8, max_bad=1.0)
    assert [row.text for row in corpus.rows] == ["ab", "cd"]
    assert "one character of" in corpus.bad[0].reason


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It rained. She left! Why? He stayed.", ["It rained.", "She left!", "Why?", "He stayed."]),
        (
            "Dr. Lee, i.e. Ann B. Lee of the U.S. Army, left. It was 3.5 m.",
            ["Dr. Lee, i.e. Ann B. Lee of the U.S. Army, left.", "It was 3.5 m."],
        ),
        (
            "Sold by Foo Inc. Ltd. and others in Jan. 1990. Then no more.",
            ["Sold by Foo Inc. Ltd. and others in Jan. 1990.", "Then no more."],
        ),
        ('"Stop!" he said. "Go." (It was late.) Yes.', ['"Stop!" he said.', '"Go."', "(It was late.)", "Yes."]),
        (
            "Wait... what? 12 came. Wait... No? See no. 12.",
            ["Wait... what?", "12 came.", "Wait...", "No?", "See no. 12."],
        ),
        ("Am 3. Mai kam er. Dann z.B. Anna.", ["Am 3. Mai kam er.", "Dann z.B. Anna."]),
        ("東京は首都です。「本当？」はい！", ["東京は首都です。", "「本当？」", "はい！"]),  # noqa: RUF001
        ("यह है। वह था।", ["यह है।", "वह था।"]),
        *(
            (f"Built by Lund.{note} It has two halls.", [f"Built by Lund.{note}", "It has two halls."])
            for note in ("[1]", "^[1]", "[^note-1]", "¹²", "[3][4]")
        ),
        ("工場です。[1]次はこれ。", ["工場です。[1]", "次はこれ。"]),
        (
            "Das kostet 1,2 Mio. Euro. In der Hauptstr. 5 nach § 5 Abs. 2.",
            ["Das kostet 1,2 Mio. Euro.", "In der Hauptstr. 5 nach § 5 Abs. 2."],
        ),
        ("« À Lyon ! » répondit-il. « Bien. » Il part.", ["« À Lyon ! » répondit-il.", "« Bien. »", "Il part."]),
        ("彼は「止まれ。」と言った。「はい。」", ["彼は「止まれ。」と言った。", "「はい。」"]),
        ("A title\n \nA text\nof two lines.", ["A title", "A text\nof two lines."]),
        ("see a.b.c and x.y", ["see a.b.c and x.y"]),
    ],
)
def test_sentence_ends(text, sentences):
    bounds = [0, *sentence_ends(text), len(text)]
    parts = [text[a:b].strip() for a, b in pairwise(bounds)]
    assert [part for part in parts if part] == sentences


def test_sentence_ends_take_linear_time():
    assert sentence_ends("." * 200_000 + "x") == []
    assert len(sentence_ends(("." + ")" * 1000) * 200)) == 0
    assert len(sentence_ends(". " * 100_000)) > 0


def test_cuts_by_hand():
    starts = list(range(12))
    assert cuts("ab cd ef gh.", starts, Room(5, 5)) == [5, 8]
    assert cuts("ab cd ef gh.", starts, Room(12, 12)) == []
    assert cuts("abcdefghijkl", starts, Room(5, 5)) == [5, 10]
    assert cuts("abcdefghijkl", starts, Room(11, 11, 2, 2)) == [10]
    assert cuts("ab cd ef gh.", starts, Room(5, 5), [(3, 8)]) == [2, 8]


PIECES = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["One two. ", "Dr. No\n", "\n\n", "東京。", "naïve ", "👩‍👩‍👧", "1.5 ", "?! ", " \u3000", "</s>"]
)


LONELY = [
    "Start here  \u3000000 \x80",
    ". é👩",
    "1👩\n1\n01",
    "1\u3000\x80\x80\x80",
    "0👩000",
]
"""Texts without which a careless cut leaves one token alone: characters and white space of several tokens."""


@pytest.mark.parametrize("text", LONELY)
@pytest.mark.parametrize("max_length", [8, 10])
@pytest.mark.parametrize("eos", [False, True])
def test_no_cut_leaves_one_token_alone_where_another_cut_does_not(tmp_path, text, max_length, eos):
    path = jsonl(tmp_path / "a.jsonl", {"text": text})
    corpus = read_corpus(path, byte_tokenizer(eos=eos), max_length=max_length)
    assert corpus.bad == ()
    assert "".join(squeezed(row.text) for row in corpus.rows) == squeezed(text)


@settings(max_examples=120, deadline=None)
@given(
    text=st.lists(PIECES, max_size=12).map(lambda pieces: "Start here " + "".join(pieces)),
    drawn=st.lists(st.tuples(st.integers(0, 150), st.integers(0, 150)).map(sorted), max_size=4),
    bos=st.booleans(),
    eos=st.booleans(),
    max_length=st.integers(8, 24),
)
@example(text=LONELY[0], drawn=[], bos=False, eos=True, max_length=8)
def test_no_text_and_no_answer_is_lost(tmp_path_factory, text, drawn, bos, eos, max_length):
    inside = ((min(start, len(text)), min(end, len(text))) for start, end in drawn)
    spans = [span for span in inside if text[slice(*span)].strip()]
    path = jsonl(tmp_path_factory.mktemp("c") / "a.jsonl", {"text": text, "answer_spans": spans})
    corpus = read_corpus(path, byte_tokenizer(bos, eos), max_length=max_length, max_bad=0.0)
    if corpus.bad:  # a token that no cut found joins to another; without BOS it is no row, and quarantine holds it
        assert not bos
        assert text != LONELY[0]
        assert all(bad.reason.startswith("1 token") for bad in corpus.bad)
        held = [row.text for row in corpus.rows] + [bad.excerpt for bad in corpus.bad]
        assert corpus.repeated or sorted(squeezed("".join(held))) == sorted(squeezed(text))
        return
    rows = corpus.rows
    assert all(2 <= len(row) <= max_length for row in rows)
    assert len({row.row_id for row in rows}) == len(rows)
    assert all(set(row.columns) == {"answer"} for row in rows)
    if not corpus.repeated:
        assert "".join(squeezed(row.text) for row in rows) == squeezed(text)
        wanted = {i for start, end in spans for i in range(start, end) if not text[i].isspace()}
        letters = [i for i, c in enumerate(text) if not c.isspace()]
        got, passed = set(), 0
        for row in rows:
            inner = {c: i for i, c in enumerate(k for k, c in enumerate(row.text) if not c.isspace())}
            for (a, b), on in zip(row.offsets, row.columns["answer"], strict=True):
                got |= {letters[passed + inner[c]] for c in range(a, b) if on and c in inner}
            passed += len(inner)
        assert got >= wanted
        assert "</s>" in text or got == wanted


def test_rows_come_back_from_disk_as_they_were(tmp_path):
    rows = [
        Row("a", (1, 2), "hé", ((0, 1), (1, 2)), {"answer": (0.0, 1.0), "nll": (0.1, float("inf"))}, "f:1"),
        Row("b", (3,)),
        Row("c", (4, 5), columns={"answer": (0.0, 0.25)}),
    ]
    path = tmp_path / "new" / "rows.parquet"
    write_rows(rows, path)
    assert [row for row in read_rows(path) if row.offsets] == rows[:1]
    assert read_rows(path) == rows
    write_rows(rows[:1], path)
    assert read_rows(path) == rows[:1]
    assert [file.name for file in path.parent.iterdir()] == ["rows.parquet"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.parquet"
    write_rows([Row("a", (1, 2))], path)
    with pytest.raises(UnicodeEncodeError):
        write_rows([Row("a", (1, 2), text="\ud800")], path)
    assert read_rows(path) == [Row("a", (1, 2))]
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_file_that_holds_no_rows_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"a\.parquet: expected rows as parquet"):
        read_rows(tmp_path / "a.parquet")
    pq.write_table(pa.table({"row_id": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="without source, text"):
        read_rows(tmp_path / "b.parquet")


def test_a_fingerprint_is_computed_once(monkeypatch, tokenizer):
    before, sorting = tokenizer_fingerprint(tokenizer), []
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda *given, **how: sorting.append(1) or dumps(*given, **how))
    assert tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(byte_tokenizer()) == before
    assert not sorting
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # in place, the same size
    assert tokenizer_fingerprint(tokenizer) != before
    assert sorting == [1]


def test_the_fingerprint_is_of_behaviour(tmp_path, tokenizer):
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "abc"], padding=True, truncation=True, max_length=2)
    assert tokenizer_fingerprint(tokenizer) == before == tokenizer_fingerprint(byte_tokenizer())
    tokenizer.save_pretrained(tmp_path / "elsewhere")
    assert tokenizer_fingerprint(PreTrainedTokenizerFast.from_pretrained(tmp_path / "elsewhere")) == before
    assert tokenizer_fingerprint(byte_tokenizer(bos=True)) != before
    tokenizer.add_tokens(["newword"])
    assert tokenizer_fingerprint(tokenizer) != before
    assert row_id("a", before) != row_id("b", before) != row_id("b", before[::-1])
    assert len(row_id("a", before)) == 16
    with pytest.raises(ValueError, match="fast tokenizer"):
        tokenizer_fingerprint(SlowTokenizer())


class SlowTokenizer(PreTrainedTokenizerFast):
    """A tokenizer that says it has no fast backend."""

    def __init__(self) -> None:
        super().__init__(tokenizer_object=byte_tokenizer().backend_tokenizer)

    @property
    def is_fast(self) -> bool:
        return False


def test_padding_and_truncation_left_set_do_not_change_rows(tmp_path, tokenizer):
    path = jsonl(tmp_path / "a.jsonl", {"text": "good"}, {"text": "much longer"})
    before = read_corpus(path, tokenizer, max_length=16).rows
    tokenizer(["a", "abc"], padding="max_length", truncation=True, max_length=3)
    assert read_corpus(path, tokenizer, max_length=16).rows == before


def test_hub_data_sets(monkeypatch, tokenizer):
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        return [{"text": "one", "answer_spans": [[0, 3]]}, {"text": "two", "answer_spans": None}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    corpus = read_corpus("hub:someone/facts:test", tokenizer, max_length=16)
    read_corpus("hub:facts", tokenizer, max_length=16)
    assert asked == [("someone/facts", "test"), ("facts", "train")]
    assert [row.source for row in corpus.rows] == ["hub:someone/facts:test:1", "hub:someone/facts:test:2"]
    assert [bool(row.columns) for row in corpus.rows] == [True, False]


def test_hub_without_the_package_says_how_to_get_it(monkeypatch, tokenizer):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'foci\[hub\]'"):
        read_corpus("hub:facts", tokenizer, max_length=16)


def test_spans_that_overlap_become_one():
    assert union([(5, 9), (0, 3)], [(2, 4), (9, 10)]) == ((0, 4), (5, 9), (9, 10))
