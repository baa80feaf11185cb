"""Pages of many kinds and questions about them: answers stand where they are marked and are asked in new words."""

import hashlib
import json
import random
import re
from collections import Counter

import pytest

import runs
import tiny
from foci.data import biography_asides_path, biography_pools_path, pages
from foci.data.encyclopedia import generate as encyclopedia
from foci.data.entity import Entity
from foci.data.pages import ASIDES, FACTS, MAX_COUNT, WORDS, generate, write
from foci.methods.train_attention.pairs import read_pairs

SOURCE = pages.read_source()
KINDS = SOURCE["kinds"]
COUNT = 1000


@pytest.fixture(scope="module")
def records():
    return generate(COUNT, seed=3)


@pytest.fixture(scope="module")
def documents(records):
    """The records of each page."""
    found = {}
    for record in records:
        found.setdefault(record["text"], []).append(record)
    return found


def test_the_same_settings_give_the_same_bytes_everywhere(tmp_path):
    """The pinned hash changes only when the wordings or pools change: then old numbers no longer compare."""
    random.seed(1)
    first = write(400, 0, tmp_path / "a" / "deep" / "pages.jsonl").read_bytes()
    random.seed(2)
    assert first.startswith(write(61, 0, tmp_path / "b.jsonl").read_bytes())
    assert generate(70, seed=3) != generate(70, seed=4)
    assert hashlib.sha256(first).hexdigest() == "08f50ee6c7ab15e4dfb3a82beff79ab07a9985ad5a67789cc5308d653c8ed36d"


def test_spans_are_exactly_the_answer_as_whole_words(records):
    for record in records:
        text, answer = record["text"], record["answer"]
        found = [list(m.span()) for m in re.finditer(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE)]
        assert found == record["answer_spans"] != []
        assert answer in {text[start:end] for start, end in found}
        assert answer == answer.strip()
        assert not re.match(r"(the|an?) ", answer, re.IGNORECASE)
        assert answer.lower() not in record["prompt"].lower()


def test_every_kind_has_its_turn_and_a_page_is_asked_about_three_to_six_times(records, documents):
    kinds = Counter(some[0]["kind"] for some in documents.values())
    assert set(kinds) == set(KINDS)
    assert len(KINDS) == 10
    assert max(kinds.values()) - min(kinds.values()) <= 2
    for some in list(documents.values())[:-1]:  # the last page may be cut
        assert FACTS[0] <= len(some) <= FACTS[1]
        assert len({record["prompt"] for record in some}) == len(some)
        assert len({record["id"].rpartition("/")[0] for record in some}) == 1
    assert len({(record["text"], record["prompt"]) for record in records}) == COUNT
    assert {record["group"] for record in records} == {f"{k}/{fact}" for k in KINDS for fact in KINDS[k]["told"]}


def test_no_page_has_the_words_of_a_question(records, documents):
    together = "\n".join(documents).lower()
    for kind in KINDS.values():
        for fact in kind["told"].values():
            for template in fact["asked"]:
                piece = max((piece.strip() for piece in re.split(r"\{\w+\}", template.lower())), key=len)
                assert piece not in together or len(piece) < 9, template
    assert not any(record["prompt"].lower() in together for record in records)
    assert not any("guess the object" in record["prompt"].lower() for record in records)


def test_half_of_the_questions_begin_a_sentence(records):
    forms = Counter(
        "?" in record["prompt"] or 2 * record["prompt"].endswith((":", "|", "=", ">", ";")) for record in records
    )
    assert 0.4 < forms[False] / COUNT < 0.6
    assert 0.25 < forms[True] / COUNT < 0.45
    assert 0.08 < forms[2] / COUNT < 0.22
    assert not any(re.search(r"[{}\[\]]", record["prompt"]) for record in records)


def test_pages_are_clean_and_of_different_lengths(documents):
    lengths = [len(text.split()) for text in documents]
    assert min(lengths) >= WORDS[0]
    assert max(lengths) <= WORDS[1]
    assert max(lengths) > 150
    assert min(lengths) < 50
    for text in documents:
        assert not re.search(r"[{}|\[\]]|  | [,.;]|,,|\.\.", text.replace("`load_", ""))
        assert not re.search(r"\b(\w+) \1\b", text), text
        assert not re.search(r"\b[Aa] [aeio]\w+|\b[Aa]n [^aeiouAEIOU]|\bthe the\b", text), text
        assert not re.search(r"\b(of|from|about|lent|taken) s?he\b", text), text


def test_a_person_is_she_or_he_throughout(documents):
    letters = [text for text, some in documents.items() if some[0]["kind"] == "letter"]
    women = set(SOURCE["pools"]["woman_given"].split("|"))
    told = 0
    for text in letters:
        both = bool(re.search(r"\b(she|her)\b", text)), bool(re.search(r"\b(he|his|him)\b", text))
        told += sum(both)
        assert not all(both) or "\n\n" in text, text  # of two people, each in a part of its own
    assert told > 20
    assert women


def test_a_third_of_the_pages_are_about_two_things(documents):
    two = sum(len({r["id"] for r in some}) == len(some) and len(text.split()) > 120 for text, some in documents.items())
    assert two > 0.1 * len(documents)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_says_each_fact_in_three_ways_asks_in_others_and_draws_from_pools_that_exist(kind):
    told = KINDS[kind]["told"]
    assert len(told) >= 7
    slots = {*told, *SOURCE["pools"], "S", "O", "P", "name", "short", "he", "his", "him"}
    every = [KINDS[kind]["name"], *KINDS[kind]["heading"], *KINDS[kind]["asides"]]
    for fact in told.values():
        assert len(fact["said"]) >= 3
        assert len(fact["asked"]) >= 2
        assert fact["questions"]
        assert fact["labels"]
        every += [fact["value"], *fact["said"]]
        assert all("{S}" in template for template in (*fact["asked"], *fact["questions"]))
    assert all("{name}" in layout and "{label}" in layout for layout in SOURCE["layouts"])
    pools = [value for pool in SOURCE["pools"].values() for value in pool.split("|")]
    for text in [*every, *pools]:
        names = set(re.findall(r"\{([^}]*)\}", text)) - {"person"}
        assert not {name for name in names - slots if not re.fullmatch(r"[\d,]+-[\d,]+", name)}, text
    assert len(KINDS[kind]["asides"]) >= ASIDES[1]


def test_nothing_of_the_biographies_is_in_the_pages(documents, records):
    """They are the test of a weigher that learned from pages."""
    pools = json.loads(biography_pools_path().read_text(encoding="utf-8"))
    asides = json.loads(biography_asides_path().read_text(encoding="utf-8"))
    names = [
        *pools["women"],
        *pools["men"],
        *pools["surnames"],
        *pools["university"],
        *pools["company"],
        *pools["city"],
    ]
    together = "\n".join([*documents, *(record["prompt"] for record in records)])

    def plain(text):
        return " ".join(["", *re.findall(r"\w+", text), ""])

    words = plain(together)
    assert [name for name in names if plain(name) in words] == []
    aside = re.compile(rf"\b({'|'.join(asides['what'])}) ({'|'.join(asides['thing'])})\b")
    assert aside.search(together) is None
    assert not {r["text"] for r in encyclopedia(100)} & set(documents)


def test_a_page_by_hand_and_what_makes_it_none():
    """Answers that stand elsewhere too, or in the question, are not asked for; below three there is no page."""
    words = "and so on and on " * 9
    told = {
        name: {
            "value": value,
            "labels": ["x"],
            "said": [said],
            "asked": ["Of {S} one says"],
            "questions": ["What, {S}?"],
        }
        for name, value, said in [
            ("a", "the red oak", "{S} has {a}."),
            ("b", "blue", f"There is {{b}} in {{O}} {words}."),
            ("c", "green", "It is {c}."),
            ("d", "big", "A big one is {d}."),
        ]
    }
    kind = {
        "name": "Zed", "article": "", "called": ["Zed"], "heading": ["# {name}\n\n"], "join": "\n", "asides": ["Well."],
        "told": told, "facts": {name: fact["value"] for name, fact in told.items()},
    }  # fmt: skip
    source = {
        "pronouns": {},
        "demonyms": {},
        "pools": {},
        "layouts": ["{name}: {label}"],
        "openings": [],
        "kinds": {"k": kind},
    }
    found = [some for seed in range(40) if (some := pages.page(source, "k", "k-1", random.Random(seed)))]
    assert found
    for some in found:
        assert [record["group"] for record in sorted(some, key=lambda r: r["group"])] == ["k/a", "k/b", "k/c"]
        assert some[0]["text"].startswith("# Zed\n\n")
        (oak,) = [record for record in some if record["group"] == "k/a"]
        assert oak["answer"] == "red oak"
        assert oak["prompt"] in ("Of Zed one says the", "What, Zed?", "Question: What, Zed?\nAnswer:", "Zed: x")
        assert oak["text"][slice(*oak["answer_spans"][0])] == "red oak"
    told["c"]["value"] = kind["facts"]["c"] = "blue"
    assert not any(pages.page(source, "k", "k-1", random.Random(seed)) for seed in range(40))


def test_a_sentence_that_cannot_be_placed_keeps_its_stop():
    made = Entity({**SOURCE, "kinds": {"k": {**KINDS["notice"], "name": "Fair"}}}, "k", random.Random(0))
    assert pages._filled(made, "we meet [|] .\n\n") == "We meet.\n\n"
    assert pages._filled(made, "") == ""


@pytest.mark.parametrize("count", [0, -1, MAX_COUNT + 1])
def test_a_count_that_cannot_be_is_refused(count):
    with pytest.raises(ValueError, match=f"count must be 1 to {MAX_COUNT}, got {count}; choose another --count"):
        generate(count)


def test_the_command_writes_what_read_pairs_reads(tmp_path, capsys):
    file = tmp_path / "made" / "pages.jsonl"
    said = runs.told(["data", "pages", "--count", 61, "--seed", 4, "--out", file], capsys)
    assert f"61 pairs in {file}" in said
    assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == generate(61, 4)
    pairs = read_pairs(file, tiny.tokenizer(), max_length=2048)
    assert len(pairs) == 61
    assert all(any(pair.document.columns["answer"]) for pair in pairs)
    assert {pair.kind for pair in pairs} <= set(KINDS)
