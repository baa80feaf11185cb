"""Pairs of encyclopedic documents and later tasks: the answer stands in one and is asked for in new words."""

import hashlib
import json
import random
import re
from collections import Counter
from functools import cache

import pytest

import runs
import tiny
from foci.data import encyclopedia, encyclopedia_path
from foci.data.encyclopedia import MAX_COUNT, WORDS, generate, write
from foci.data.entity import Entity
from foci.methods.train_attention.pairs import read_pairs

SOURCE = json.loads(encyclopedia_path().read_text(encoding="utf-8"))
RELATIONS, KINDS = SOURCE["relations"], SOURCE["kinds"]
EACH = 14
COUNT = EACH * len(RELATIONS)


class Zero(random.Random):
    """Chooses the first of everything."""

    def random(self):
        return 0.0


@cache
def pattern(task, relation):
    """What prompts of a task look like, with the entity's name as group 1."""
    labels = "|".join(map(re.escape, RELATIONS[relation]["labels"]))
    said = re.escape(task).replace(r"\{label\}", f"(?:{labels})").replace(r"\{S\}", r"\{name\}")
    return re.compile(
        said.replace(r"\{name\}", "(.+?)", 1).replace(r"\{name\}", ".+?") + "(?: the| an?)?", re.IGNORECASE
    )


@pytest.fixture(scope="module")
def records():
    return generate(COUNT, seed=3)


def test_the_same_settings_give_the_same_bytes_everywhere(tmp_path):
    """The pinned hash changes only when the wordings or pools change: then old numbers no longer compare."""
    random.seed(1)
    first = write(400, 0, tmp_path / "a" / "deep" / "pairs.jsonl").read_bytes()
    random.seed(2)
    assert first.startswith(write(61, 0, tmp_path / "b.jsonl").read_bytes())
    assert hashlib.sha256(first).hexdigest() == "ebfaca106bbf5c8704c694c8fcd32196be23d054068601b6e9ff0e45790c944c"


def test_fewer_pairs_are_the_first_of_more(records):
    assert generate(70, seed=3) == records[:70] != generate(70, seed=4)


def test_every_fact_of_a_document_is_asked_for():
    """The documents are those of the pairs without it; answers stand where they are marked and in no question."""
    alone, every = generate(300, seed=3), generate(300, seed=3, every=True)
    documents = {}
    for record in every:
        documents.setdefault(record["text"], []).append(record)
    assert list(documents) == list(dict.fromkeys(record["text"] for record in alone))[: len(documents)]
    assert max(map(len, documents.values())) >= 4
    assert 1.8 < len(every) / len(documents) < 6
    assert len({(record["text"], record["prompt"]) for record in every}) == 300
    for some in documents.values():
        assert len({record["group"] for record in some}) == len(some)
        for record in some:
            assert {record["text"][a:b] for a, b in record["answer_spans"]} == {record["answer"]}
            assert record["answer"].lower() not in record["prompt"].lower()
    assert generate(150, seed=3, every=True) == every[:150]


def test_spans_are_exactly_the_answer_as_whole_words(records):
    for record in records:
        text, answer = record["text"], record["answer"]
        found = [list(m.span()) for m in re.finditer(rf"(?<!\w){re.escape(answer)}(?!\w)", text)]
        assert found == record["answer_spans"] != []
        assert answer == answer.strip()
        assert not re.match(r"(the|an?) ", answer)


def test_no_document_has_the_words_of_a_task(records):
    documents = "\n".join(record["text"] for record in records).lower()
    for task in [*(plain for given in RELATIONS.values() for plain in given["plain"]), *SOURCE["layouts"]]:
        piece = max((piece.strip() for piece in re.split(r"\{\w+\}", task.lower())), key=len)
        assert piece not in documents or not re.search(r"\w", piece), task
    assert not any(record["prompt"].lower() in documents for record in records)
    assert not any("guess the object" in record["prompt"].lower() for record in records)


def test_half_of_the_tasks_are_sentences_and_each_names_the_entity_and_not_the_answer(records):
    used, schemas = set(), 0
    for record in records:
        plain = RELATIONS[record["group"]]["plain"]
        tasks = [*plain, *SOURCE["layouts"]]
        found = {task: pattern(task, record["group"]).fullmatch(record["prompt"]) for task in tasks}
        names = {task: re.sub("^[Tt]he ", "", match[1]) for task, match in found.items() if match}
        assert any(name.lower() in record["text"].lower() for name in names.values()), record
        assert record["answer"].lower() not in record["prompt"].lower()
        used |= set(names)
        schemas += not any(task in plain for task in names)
    assert used == {plain for given in RELATIONS.values() for plain in given["plain"]} | set(SOURCE["layouts"])
    assert abs(schemas - COUNT / 2) <= len(RELATIONS) / 2


def test_documents_are_short_whole_sentences(records):
    lengths = [len(record["text"].split()) for record in records]
    assert min(lengths) >= WORDS[0]
    assert max(lengths) <= WORDS[1]
    assert max(lengths) - min(lengths) > 40
    assert {min(re.subn(r"(?<! [A-Z])\.(?= |$)", "", r["text"])[1], 5) for r in records} == {1, 2, 3, 4}
    for record in records:
        assert record["text"].endswith(".")
        assert not re.search(r"[{}\[\]|]|\n|  | [,.;]|,,|\.\.", record["text"])
        assert not re.search(r"\b(\w+) \1\b", record["text"])
        assert not re.search(r"\b[Aa] [aio]\w+|\b[Aa]n [^aeiouAEIOUÉ]|\bthe the\b", record["text"] + record["prompt"])
        assert not re.search(r"[{}]", record["prompt"])


def test_answers_stand_at_the_start_the_middle_and_the_end(records):
    places = Counter(int(3 * record["answer_spans"][0][0] / len(record["text"])) for record in records)
    assert min(places[third] for third in range(3)) > COUNT / 6


def test_pairs_are_unique_and_relations_take_turns(records):
    assert len({record["id"] for record in records}) == COUNT
    assert len({(record["text"], record["prompt"]) for record in records}) == COUNT
    assert Counter(record["group"] for record in records) == dict.fromkeys(RELATIONS, EACH)
    assert len({record["text"] for record in records}) > 0.99 * COUNT
    for relation in RELATIONS:
        answers = [record["answer"] for record in records if record["group"] == relation]
        assert len(set(answers)) >= 6, relation


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_relation_has_six_sentences_and_each_can_be_asked_about(relation):
    places = encyclopedia._asked(SOURCE, relation)
    assert len(places) == len(set(places)) >= 6
    rng = random.Random(1)
    for kind, template in places:
        tries = (
            encyclopedia._record(f"{relation}/0", Entity(SOURCE, kind, rng), template, "{name}:") for _ in range(40)
        )
        assert next(filter(None, tries), None), template


@pytest.mark.parametrize("kind", KINDS)
def test_every_sentence_of_a_kind_is_used_and_an_opening_comes_first(kind):
    first, later, facts = (KINDS[kind][name] for name in ("first", "later", "facts"))
    asked = [template for template in (*first, *later) if set(re.findall(r"\{(\w+)\}", template)) & set(facts)]
    rng, used = random.Random(1), set()
    for number in range(150):
        templates = encyclopedia._templates(KINDS[kind], asked[number % len(asked)], rng)
        assert 1 <= len(templates) == len(set(templates)) <= 4
        assert not set(templates[1:]) & set(first)
        stated = [slot for t in templates for slot in set(re.findall(r"\{(\w+)\}", t)) if slot in facts]
        assert len(stated) == len(set(stated))
        used |= set(templates)
    assert used == {*first, *later}


def test_a_person_is_she_or_he_throughout(records):
    seen = Counter()
    for sex, others in (("woman", r"\b(he|his|him|himself)\b"), ("man", r"\b(she|her|herself)\b")):
        for text in [
            r["text"] for r in records if r["text"].startswith(tuple(SOURCE["pools"][f"{sex}_given"].split("|")))
        ]:
            seen[sex] += 1
            assert not re.search(others, text, re.IGNORECASE), text
    assert min(seen["woman"], seen["man"]) > 20


LONG = (
    "{S} is a thing that words and words and words and more words and words and words say to be " + "made of a {stuff}"
)


@pytest.mark.parametrize(
    ("template", "task", "spans"),
    [
        (f"{LONG} and it is.", "{name}:", [[102, 105]]),
        (f"{LONG} or cloak oaken.", "{name}:", [[102, 105]]),
        (f"{LONG} is a {{stuff}}.", "{name}:", [[102, 105], [112, 115]]),
        (f"{LONG}.", "{name}:", None),
        (f"{LONG} and an oak.", "{name}:", None),
        (f"{LONG} and an Oak.", "{name}:", None),
        (f"{LONG.replace('{S}', 'It')} and it is.", "{name}:", None),
        (f"{LONG} and it is.", "The soaked {name}:", None),
    ],
)
def test_a_document_that_is_too_short_or_says_the_answer_elsewhere_is_none(template, task, spans):
    kind = {"name": "Zed", "article": "", "called": ["it"], "facts": {"stuff": "oak"}, "first": [template], "later": []}
    made = Entity({"pronouns": {}, "demonyms": {}, "pools": {}, "kinds": {"thing": kind}}, "thing", Zero())
    record = encyclopedia._record("stuff/0", made, template, task)
    assert (record and record["answer_spans"]) == spans
    assert record is None or record["text"][102:105] == record["answer"] == "oak"


def test_a_pair_that_has_been_made_is_made_anew(monkeypatch):
    rest = {"id": "", "answer": "", "answer_spans": [], "group": ""}
    made = [{"text": "a", "prompt": prompt, **rest} for prompt in "bbc"]
    monkeypatch.setattr(encyclopedia, "_record", lambda *_: made.pop(0))
    assert [record["prompt"] for record in generate(2)] == ["b", "c"]


def test_an_entity_by_hand():
    made = Entity(SOURCE, "river", Zero())
    assert (made.name, made.full) == ("Skele", "the Skele")
    said = made.text(
        ["{S} is a [slow|long] river.", "The [bed|bank] of {O} is {P} {ordinal}.", "A {colour_name} bird."]
    )
    assert said == "The Skele is a slow river; the bed of the river is its first; a yellow bird."
    assert made.polished("a owl, a uniform and A eel") == "An owl, a uniform and An eel"
    person = Entity(SOURCE, "writer", Zero())
    assert person.text(["{S} and {O} and {P} {mother_tongue}."]) == "Maren Skelvik and Skelvik and her Finnish."
    software = Entity(SOURCE, "software", Zero())
    assert software.text(["{S} is {P} own."]) == f"{software.name} is its own."
    assert software.name == "libkumb"


def test_a_fact_stays_and_draws_differ():
    made = Entity(SOURCE, "river", random.Random(5))
    said = made.text(["{country}/{country}/{country_other}/{place}/{3-3}/{1,000-1,000}."])
    country, again, *others = said[:-1].split("/")
    assert country == again == made.facts["country"]
    assert country not in others
    assert others[2:] == ["3", "1,000"]
    assert made.said["country"] == 2


@pytest.mark.parametrize("count", [0, -1, MAX_COUNT + 1])
def test_a_count_that_cannot_be_is_refused(count):
    with pytest.raises(ValueError, match=f"count must be 1 to {MAX_COUNT}, got {count}; choose another --count"):
        generate(count)


def test_the_command_writes_what_read_pairs_reads(tmp_path, capsys):
    file = tmp_path / "made" / "pairs.jsonl"
    said = runs.told(["data", "pairs", "--count", 61, "--seed", 4, "--out", file], capsys)
    assert f"61 pairs in {file}" in said
    assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == generate(61, 4)
    pairs = read_pairs(file, tiny.tokenizer(), max_length=1024)
    assert len(pairs) == 61
    assert all(any(pair.document.columns["answer"]) for pair in pairs)
