"""Biographies say what their settings say, spans are exact, held-out wordings stay held out; facts are sound."""

import hashlib
import json
import random
import re
from collections import Counter, defaultdict

import pytest

from foci.data import biographies
from foci.data.biographies import FIELDS, SENTENCES, Biographies, generate, people, write
from foci.probes import read_probes
from foci.probes.general import general_facts_path, general_text, general_text_path

LAYOUTS = [
    Biographies(),
    Biographies(order="shuffled", distance=9, seed=3),
    Biographies(people=60, texts=3, templates=2, names="always", distance=4, seed=1),
]


def values_of(document):
    return [document["text"][start:end] for start, end in document["answer_spans"]]


def words_before_values(document, name):
    """Words between each value and the last full name before it."""
    text = document["text"]
    return [
        len(text[text.rindex(name, 0, start) + len(name) : start].lstrip(",").split())
        for start, _ in document["answer_spans"]
    ]


def field_of(person):
    return {value: field for field, value in person.values.items()}


@pytest.mark.parametrize("settings", LAYOUTS, ids=repr)
def test_spans_are_exactly_the_five_values(settings):
    documents, _ = generate(settings)
    persons = people(settings)
    assert len(documents) == settings.people * settings.texts
    for number, document in enumerate(documents):
        person = persons[number // settings.texts]
        assert sorted(values_of(document)) == sorted(person.values.values())
        assert document["text"].startswith(person.name)


@pytest.mark.parametrize("settings", LAYOUTS, ids=repr)
def test_every_answer_stands_in_that_persons_texts_and_no_prompt_does(settings):
    documents, probes = generate(settings)
    corpus = "\n".join(document["text"] for document in documents)
    texts = defaultdict(list)
    for document in documents:
        texts[document["id"].split("/")[0]].append(document["text"])
    assert len(probes) == settings.people * 5 * 2
    for probe in probes:
        assert list(probe) == ["id", "role", "kind", "group", "prompt", "answer"]
        person = probe["id"].split("/")[0]
        own = texts[person]
        assert len(own) == settings.texts
        assert all(probe["answer"] in text for text in own)
        assert probe["prompt"] not in corpus
        assert probe["answer"] not in probe["prompt"]


def test_held_out_wordings_share_no_phrase_with_the_corpus_wordings():
    for field in FIELDS:
        assert len(set(SENTENCES[field])) == biographies.TEMPLATES
        for prompt in (biographies.CLOZES[field], biographies.QUESTIONS[field]):
            pieces = [p.strip() for p in re.split(r"\{name\}|Question:|\nAnswer:|[,?]", prompt)]
            for phrase in filter(None, pieces):
                if len(phrase.split()) > 1:
                    assert not any(phrase in s for s in SENTENCES[field]), phrase


def test_each_probe_is_unique_and_has_a_cloze_and_a_question_per_field():
    _, probes = generate(Biographies(people=30))
    assert len({p["id"] for p in probes}) == len({p["prompt"] for p in probes}) == 300
    assert Counter((p["kind"], p["group"]) for p in probes) == {
        (kind, field): 30 for kind in ("cloze", "qa") for field in FIELDS
    }
    assert all(p["role"] == "learn" for p in probes)


@pytest.mark.parametrize("count", [20, 24, 48, 100])
def test_the_majority_answer_is_worth_little(count):
    _, probes = generate(Biographies(people=count))
    for field in FIELDS:
        answers = Counter(p["answer"] for p in probes if p["group"] == field and p["kind"] == "cloze")
        assert max(answers.values()) <= -(-count // 48)  # pools hold at least 48 values, each used in turn


def test_distance_is_the_number_of_words_added_between_name_and_value():
    near, _ = generate(Biographies(people=5, order="shuffled", names="always"))
    persons = people(Biographies(people=5))
    for distance in (1, 2, 3, 4, 5, 11, 120):
        far, _ = generate(Biographies(people=5, order="shuffled", names="always", distance=distance))
        for number, (a, b) in enumerate(zip(near, far, strict=True)):
            name = persons[number // 4].name
            before, after = words_before_values(a, name), words_before_values(b, name)
            assert [y - x for x, y in zip(before, after, strict=True)] == [distance] * 5


def test_names_once_or_always():
    for names, count in (("once", 1), ("always", 5)):
        documents, _ = generate(Biographies(people=3, names=names, distance=6))
        persons = people(Biographies(people=3))
        for number, document in enumerate(documents):
            person = persons[number // 4]
            assert document["text"].count(person.name) == count
            assert document["text"].count(", who ") == count


def test_order_is_fixed_or_drawn_for_each_text():
    persons = people(Biographies())
    orders = {}
    for order in ("fixed", "shuffled"):
        documents, _ = generate(Biographies(order=order))
        orders[order] = [
            tuple(field_of(persons[n // 4])[value] for value in values_of(d)) for n, d in enumerate(documents)
        ]
    assert set(orders["fixed"]) == {FIELDS}
    assert len(set(orders["shuffled"])) > 40  # of 96 texts, 120 orders
    assert {order[0] for order in orders["shuffled"]} == set(FIELDS)
    assert all(sorted(order) == sorted(FIELDS) for order in orders["shuffled"])


def test_templates_limit_the_wordings_and_texts_of_a_person_differ():
    one, _ = generate(Biographies(people=4, texts=2, templates=1))
    assert all(a["text"] == b["text"] for a, b in zip(one[::2], one[1::2], strict=True))
    assert all(" was born on " in d["text"] for d in one)
    six, _ = generate(Biographies(people=4, texts=6))
    assert len({d["text"] for d in six}) == 24


def test_pronouns_agree_with_the_person():
    settings = Biographies(people=40, texts=6)
    documents, _ = generate(settings)
    persons = people(settings)
    seen = Counter()
    for number, document in enumerate(documents):
        person = persons[number // 6]
        seen[person.pronoun] += 1
        words = set(re.findall(r"[a-z]+", document["text"].lower()))
        mine, others = ({"she", "her"}, {"he", "his"}) if person.pronoun == "she" else ({"he", "his"}, {"she", "her"})
        assert words & mine
        assert not words & others
        assert "{" not in document["text"]
        assert re.fullmatch(r"([A-Z][^.]+\. )*[A-Z][^.]+\.", document["text"])
    assert seen["she"] == seen["he"]


def test_the_seed_alone_decides_who_the_people_are():
    base = people(Biographies(people=30))
    assert people(Biographies(people=8, order="shuffled", distance=5, texts=9, templates=1)) == base[:8]
    assert people(Biographies(people=30, seed=1)) != base
    assert len({p.name for p in people(Biographies(people=400))}) == 400
    assert all(len(p.name.split()) == 2 for p in base)


def test_the_same_settings_give_the_same_bytes_everywhere(tmp_path):
    """The pinned hash changes only when the wordings or pools change: then old numbers no longer compare."""
    settings = Biographies(people=7, texts=2, order="shuffled", distance=5, seed=11)
    random.seed(1)
    first = write(settings, tmp_path / "a" / "deep")
    random.seed(2)
    second = write(settings, tmp_path / "b")
    names = ["corpus.jsonl", "learn.jsonl"]
    assert sorted(p.name for p in first.iterdir()) == [*names, "suite.json"]
    contents = [(first / name).read_bytes() for name in names]
    assert contents == [(second / name).read_bytes() for name in names]
    assert (first / "suite.json").read_bytes() == (second / "suite.json").read_bytes()
    lines = [json.loads(line) for line in contents[0].splitlines()]
    bare = [{key: line[key] for key in ("id", "text", "answer_spans")} for line in lines]
    texts = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in bare).encode()
    assert (
        hashlib.sha256(texts + contents[1]).hexdigest()
        == "ccd7f9db0559a2e1c912985cc7646287d41377fc2159f2263b1f1e163d6dfe19"
    )


def test_names_and_fields_are_told():
    documents, _ = generate(Biographies(people=5, texts=2, order="shuffled", names="always", distance=7))
    folk = people(Biographies(people=5))
    for number, document in enumerate(documents):
        person = folk[number // 2]
        assert [document["text"][a:b] for a, b in document["name_spans"]] == [person.name] * len(FIELDS)
        values = [document["text"][a:b] for a, b in document["answer_spans"]]
        assert values == [person.values[field] for field in document["answer_groups"]]
    (once,) = {len(document["name_spans"]) for document in generate(Biographies(people=3))[0]}
    assert once == 1


def test_written_files_are_what_was_generated(tmp_path):
    settings = Biographies(people=3, texts=2)
    write(settings, tmp_path)
    documents, probes = generate(settings)
    for name, records in (("corpus.jsonl", documents), ("learn.jsonl", probes)):
        assert [json.loads(line) for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()] == records
    record = json.loads((tmp_path / "suite.json").read_text(encoding="utf-8"))
    assert record["suite"] == "biographies"
    assert Biographies(**record["settings"]) == settings
    assert record["used"] == {"corpus.jsonl": 6, "learn.jsonl": 30}
    assert (record["sources"], record["left_out"]) == ([], [])
    for name, digest in record["files"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert record["files"].keys() == record["used"].keys()
    assert record["controls"]["majority"] == pytest.approx(1 / 3)  # three people, three values a field


def test_written_probes_are_read_back(tmp_path):
    write(Biographies(people=2, texts=1), tmp_path)
    _, probes = generate(Biographies(people=2, texts=1))
    read = read_probes(tmp_path / "learn.jsonl", "learn")
    assert [(p.id, p.kind, p.prompt, p.answer, p.group) for p in read] == [
        (p["id"], p["kind"], p["prompt"], p["answer"], p["group"]) for p in probes
    ]


def test_a_corpus_that_is_asked_holds_every_probe_with_its_answer(tmp_path):
    settings = Biographies(people=3, texts=2)
    plain, probes = generate(settings)
    write(Biographies(people=3, texts=2, asked=True), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[: len(plain)] == plain
    for line, probe in zip(lines[len(plain) :], probes, strict=True):
        ((start, end),) = line["answer_spans"]
        assert line["text"] == f"{probe['prompt']} {probe['answer']}."
        assert (line["text"][start:end], line["answer_groups"]) == (probe["answer"], [probe["group"]])


def test_known_people_are_retained_and_never_made(tmp_path):
    known = people(Biographies(people=1000, seed=1))
    by_chance = {p.name for p in people(Biographies(people=200))} & {p.name for p in known}
    assert by_chance  # or the next line would show nothing
    apart = people(Biographies(people=200, known=1))
    assert not {p.name for p in apart} & {p.name for p in known}
    assert len({p.name for p in apart}) == 200
    write(Biographies(people=4, texts=1, known=1), tmp_path)
    retain = read_probes(tmp_path / "retain.jsonl", "retain")
    _, told = generate(Biographies(people=4, texts=1, seed=1))
    assert [(p.prompt, p.answer) for p in retain] == [(p["prompt"], p["answer"]) for p in told]
    assert {p.role for p in retain} == {"retain"}
    with pytest.raises(ValueError, match="known=3 are the people of this seed"):
        Biographies(seed=3, known=3)


def test_biographies_with_the_older_record_are_replaced_and_nothing_else_is(tmp_path):
    for name in ("corpus.jsonl", "learn.jsonl", "biographies.json", "notes.txt"):
        (tmp_path / name).write_text("an older file")
    write(Biographies(people=2, texts=1), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus.jsonl", "learn.jsonl", "notes.txt", "suite.json"]
    assert "an older file" not in (tmp_path / "corpus.jsonl").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "corpus.jsonl").write_text("mine")
    with pytest.raises(FileExistsError, match=r"no suite\.json"):
        write(Biographies(people=2, texts=1), tmp_path / "mine")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"people": 0}, "people must be 1 to 1000, got 0"),
        ({"people": 1001}, "got 1001"),
        ({"texts": 0}, "texts must be"),
        ({"templates": 7}, "templates must be 1 to 6, got 7"),
        ({"distance": -1}, "distance must be 0 to 120, got -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Biographies(**wrong)


@pytest.mark.parametrize(("name", "wrong"), [("order", "random"), ("names", "never")])
def test_choices_that_do_not_exist_are_refused(name, wrong):
    settings = Biographies()
    object.__setattr__(settings, name, wrong)  # past beartype, which is not there outside of pytest
    with pytest.raises(ValueError, match=f"{name} is one of .*got '{wrong}'"):
        settings.__post_init__()


def test_general_facts_are_valid_unique_and_balanced():
    facts = [json.loads(line) for line in general_facts_path().read_text(encoding="utf-8").splitlines()]
    assert len(facts) >= 300
    assert len({f["id"] for f in facts}) == len({f["prompt"].lower() for f in facts}) == len(facts)
    answers = defaultdict(Counter)
    for fact in facts:
        assert set(fact) == {"id", "role", "kind", "group", "prompt", "answer"}
        assert (fact["role"], fact["kind"]) == ("retain", "cloze")
        assert fact["prompt"] == fact["prompt"].strip()
        assert fact["answer"] == fact["answer"].strip()
        assert 1 <= len(fact["answer"].split()) <= 3
        answers[fact["group"]][fact["answer"].lower()] += 1
    assert set(answers) == {"geography", "science", "language", "history", "everyday"}
    for counts in answers.values():
        assert counts.total() >= 40
        assert max(counts.values()) / counts.total() <= 0.06


def test_general_text_is_a_page_of_plain_prose():
    text = general_text()
    assert text == general_text_path().read_text(encoding="utf-8")
    assert 700 <= len(text.split()) <= 1000
    assert text.isascii()
    assert text.endswith(".\n")
    assert not {f for f in ("biograph", "licence", "license", "foci") if f in text.lower()}


def test_asides_are_sentences_that_no_probe_asks_for():
    """The same people and values; `asides` more sentences per text, each with words of every pool; spans exact."""
    plain, probes = generate(Biographies(people=4, texts=3))
    longer, same = generate(Biographies(people=4, texts=3, asides=7))
    assert probes == same
    seen = set()
    for short, text in zip(plain, longer, strict=True):
        values = [text["text"][a:b] for a, b in text["answer_spans"]]
        assert values == [short["text"][a:b] for a, b in short["answer_spans"]]
        extra = text["text"].count(".") - short["text"].count(".")
        assert extra == 7
        seen.add(text["text"])
    assert len(seen) == 12


def test_too_many_asides_are_refused():
    with pytest.raises(ValueError, match="asides must be 0 to 40, got 41"):
        Biographies(asides=41)
