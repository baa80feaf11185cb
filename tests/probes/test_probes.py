"""Reading probes and finding the answer's tokens."""

import json

import pytest
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

import tiny
from foci.probes import Probe, read_probes
from foci.probes.encode import encode, encode_prompts

CLOZE = {"kind": "cloze", "role": "learn", "prompt": "Bern is in", "answer": "Switzerland"}


def write(tmp_path, *records):
    path = tmp_path / "asked.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records), encoding="utf-8")
    return path


def cloze(prompt, answer, suffix="", **more):
    return Probe("p", "learn", "cloze", prompt, answer, suffix, **more)


def answer_tokens(probe, tokenizer):
    (row,) = encode([probe], tokenizer)
    return [tokenizer.decode([i]) for i, a in zip(row.input_ids, row.columns["answer"], strict=True) if a]


def test_a_probe_has_all_its_fields(tmp_path):
    full = {**CLOZE, "id": "a", "group": "g", "suffix": ".", "aliases": ["CH"]}
    probes = read_probes(write(tmp_path, full, "", {**CLOZE, "kind": "qa"}))
    assert probes[0] == Probe("a", "learn", "cloze", "Bern is in", "Switzerland", ".", "g", ("CH",))
    assert probes[1] == Probe("asked:3", "learn", "qa", "Bern is in", "Switzerland")


def test_a_byte_order_mark_and_a_line_separator_in_a_string_are_read(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({**CLOZE, "suffix": " a\u2028b"}, ensure_ascii=False) + "\r\n", encoding="utf-8-sig")
    assert read_probes(path)[0].suffix == " a\u2028b"


def test_text_is_cut_at_the_answer(tmp_path):
    record = {"kind": "span", "role": "learn", "text": "Bern (Bern) is.", "answer": "Bern", "answer_start": 6}
    (probe,) = read_probes(write(tmp_path, record))
    assert (probe.prompt, probe.suffix, probe.text, probe.span) == ("Bern (", ") is.", "Bern (Bern) is.", (6, 10))


def test_a_verbatim_cloze_gets_no_space(tmp_path):
    record = {"kind": "cloze", "role": "learn", "text": "It (Bern) is.", "answer": "Bern"}
    assert read_probes(write(tmp_path, record))[0].text == "It (Bern) is."


def test_the_lines_of_a_run_are_read_as_the_probes_they_are(tmp_path):
    """A run writes every field of its probes, empty ones too."""
    cut = Probe("b", "retain", "cloze", "It (", "Bern", ") is.", verbatim=True, aliases=("CH",), held_out=True)
    probes = [cloze("Bern is in", "Switzerland"), cut]
    assert read_probes(write(tmp_path, *({**vars(one), "aliases": list(one.aliases)} for one in probes))) == probes


@pytest.mark.parametrize(
    ("prompt", "answer", "text"),
    [
        ("It is", "Bern", "It is Bern"),
        ("It is ", "Bern", "It is Bern"),
        ("A:\n", "Bern", "A:\nBern"),
        ("It is", " Bern", "It is Bern"),
        ("It is", ", yes", "It is, yes"),
        ("It costs", "$5", "It costs $5"),
        ("The dog is Ada", "'s own", "The dog is Ada's own"),
        ("The capital of North Brabant is", "'s-Hertogenbosch", "The capital of North Brabant is 's-Hertogenbosch"),
        ("", "Bern", "Bern"),
    ],
)
def test_one_space_where_one_is_due(prompt, answer, text):
    probe = cloze(prompt, answer)
    assert probe.text == text
    assert text[slice(*probe.span)] == answer


def test_role_of_the_file_fills_in(tmp_path):
    bare = {key: value for key, value in CLOZE.items() if key != "role"}
    assert read_probes(write(tmp_path, bare), role="retain")[0].role == "retain"
    with pytest.raises(ValueError, match=r"asked.jsonl:1: no role, expected learn or retain; add"):
        read_probes(write(tmp_path, bare))
    with pytest.raises(ValueError, match=r":1: role 'learn' in a file that is read as 'retain' probes; split"):
        read_probes(write(tmp_path, CLOZE), role="retain")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "close"}, "unknown kind 'close', expected one of cloze, qa, span; did you mean 'cloze'"),
        ({"role": "lern"}, "unknown role 'lern', expected one of learn, retain; did you mean 'learn'"),
        ({"anser": "x"}, "unknown key 'anser'.*did you mean 'answer'"),
        ({"answer": "  "}, "must hold text, got '  '"),
        ({"aliases": [""]}, "must hold text, got ''"),
        ({"aliases": "CH"}, "'aliases' must be a list of strings, got 'CH'"),
        ({"aliases": [1]}, "'aliases' must be a list of strings"),
        ({"answer": 1999}, "'answer' must be a string, got 1999"),
        ({"prompt": None}, "neither 'prompt' nor 'text'"),
        ({"answer": None}, "no key 'answer', got only kind, role, prompt, id; add it"),
        ({"kind": None}, "no key 'kind'"),
        ({"answer_start": 3}, "'answer_start' goes with 'text'"),
        ({"prompt": None, "text": "It is Bern", "verbatim": False}, "'verbatim' goes with 'prompt'"),
        ({"text": "Bern is in Switzerland"}, "'text' and 'prompt' exclude each other"),
        ({"prompt": None, "text": "Bern is here"}, "the answer 'Switzerland' is not in the text 'Bern is here'; cor"),
        ({"prompt": None, "text": "x Bern, Bern", "answer": "Bern"}, "at characters 2 and 8 of the text; give 'ans"),
        ({"prompt": None, "text": "It is Bern", "answer": "Bern", "answer_start": 5}, "5 points at ' Ber', expected"),
        (
            {"prompt": None, "text": "It is Bern yes", "answer": "Bern", "answer_start": -8},
            "-8 points at 'It i', expec",
        ),
        ({"prompt": None, "text": "It is Bern", "answer": "Bern", "answer_start": True}, "must be an integer, got T"),
    ],
)
def test_a_bad_line_says_where_what_and_the_cure(tmp_path, change, message):
    with pytest.raises(ValueError, match=r"asked\.jsonl:2: .*" + message):
        read_probes(write(tmp_path, {**CLOZE, "id": "1"}, {**CLOZE, "id": "2", **change}))


def test_broken_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r":1: broken JSON .* got '\{\"kind\": '"):
        read_probes(write(tmp_path, '{"kind": '))
    with pytest.raises(ValueError, match=":1: broken JSON"):
        read_probes(write(tmp_path, "[" * 100_000))
    with pytest.raises(ValueError, match=r":1: 'prompt' is not UTF-8 \(half a surrogate pair at character 0\)"):
        read_probes(write(tmp_path, {**CLOZE, "prompt": "\ud800 is"}))
    with pytest.raises(ValueError, match=":1: expected an object"):
        read_probes(write(tmp_path, "[1]"))
    with pytest.raises(ValueError, match=":3: id 'a' stands in line 1 too"):
        read_probes(write(tmp_path, {**CLOZE, "id": "a"}, CLOZE, {**CLOZE, "id": "a"}))
    with pytest.raises(ValueError, match="at least one probe"):
        read_probes(write(tmp_path, "", ""))
    with pytest.raises(FileNotFoundError, match="no probe file"):
        read_probes(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"kind": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"probe file .*latin\.jsonl is not UTF-8 \(byte 0xe9 at byte 10\); save it"):
        read_probes(tmp_path / "latin.jsonl")


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (cloze("The capital of France is", "Paris", "."), [" Pa", "ris"]),
        (cloze("Born in", "1999"), ["1", "9", "9", "9"]),  # the space is a token of its own, and not the answer's
        (cloze("Born in", " 1999"), ["1", "9", "9", "9"]),
        (Probe("s", "learn", "span", "(", "Bern", ")"), ["Bern"]),
        (Probe("s", "learn", "span", "in the tow", "n", " of"), [" town"]),  # a token that is shared counts
    ],
)
def test_answer_tokens_overlap_the_answer(probe, expected):
    assert answer_tokens(probe, tiny.tokenizer()) == expected


def test_both_bytes_of_a_letter_count():
    (row,) = encode([Probe("s", "learn", "span", "n", "é", "e")], tiny.tokenizer())
    assert row.columns["answer"] == (0.0, 1.0, 1.0)


def test_a_row_ends_at_the_answer():
    (row,) = encode([cloze("She was born in", "Bern", " and works")], tiny.tokenizer())
    assert row.input_ids == tuple(tiny.tokenizer()("She was born in Bern")["input_ids"])


def test_an_answer_needs_a_token_before_it():
    with pytest.raises(ValueError, match=r"'p': the answer 'Bern' begins at the first token.*put words before"):
        encode([cloze("", "Bern")], tiny.tokenizer())
    (row,) = encode([cloze("", "Bern")], tiny.with_first_token())
    assert (row.input_ids[0], row.columns["answer"]) == (tiny.EOS, (0.0, 1.0))


def test_first_tokens_do_not_shift_the_answer():
    probe = cloze("The capital of France is", "Paris")
    assert answer_tokens(probe, tiny.with_first_token()) == answer_tokens(probe, tiny.tokenizer())


def test_prompts_lose_spaces_but_not_newlines_at_their_end():
    bare, spaced, line = encode_prompts([cloze(p, "Bern") for p in ("in the", "in the ", "in the\n")], tiny.tokenizer())
    assert bare.input_ids == spaced.input_ids == line.input_ids[:-1]
    with pytest.raises(ValueError, match="'p': a question needs a prompt, got ' '"):
        encode_prompts([cloze(" ", "Bern")], tiny.tokenizer())
    assert encode_prompts([cloze(" ", "Bern")], tiny.with_first_token())[0].input_ids == (tiny.EOS,)


def test_a_token_at_the_end_of_a_text_is_no_part_of_a_prompt():
    backend = Tokenizer.from_str(tiny.tokenizer().backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", tiny.EOS)])
    ending = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")
    assert ending("in the")["input_ids"][-1] == tiny.EOS
    (row,) = encode_prompts([cloze("in the", "Bern")], ending)
    assert row.input_ids == tuple(tiny.tokenizer()("in the")["input_ids"])
