"""Converters read the published formats as they are, say what they left out, and write suites that foci can run."""

import hashlib
import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import tiny
from foci import models
from foci.cli.main import app
from foci.corpus import read_corpus
from foci.data import ecbd, lama_ckl, published_biographies, sources, templama, temporalwiki
from foci.data.ecbd import Ecbd
from foci.data.lama_ckl import LamaCkl, place
from foci.data.published_biographies import PublishedBiographies
from foci.data.suite import Document, LeftOut, Suite, joined, merged
from foci.data.templama import TempLama
from foci.data.temporalwiki import TemporalWiki
from foci.probes import Answer, Probe, answer, read_probes
from foci.seeds import drawn
from paths import PUBLISHED


def jsonl(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def left(suite):
    return {(r["what"], r["why"]): r["count"] for r in suite.record()["left_out"]}


def published(name):
    if not (PUBLISHED / name).is_dir():
        pytest.skip(f"the published files of {name} are not at ../shared/data/{name}")
    return PUBLISHED / name


# ---- lama-ckl


def unit(id, subject, object, evidence, *, relation="P106", invariant=False, after=" by profession ."):
    """A line of the published form; `evidence` has [MASK] where the object stands."""
    return {
        "relation_code": relation,
        "uuid": id,
        "task_descriptive": f"{subject} is a {object}{after}",
        "task_schematic": f"Guess the object. \n  subject is {subject} , relation is r , object is {object}",
        "subject": subject,
        "relation_label": "r",
        "object": object,
        "masked_evidence": evidence,
        "evidence": evidence.replace("[MASK]", object),
        "position": 0.5,
        "invariant": invariant,
        "scores": {},
    }


VARIANT = [
    unit("v1", "Ada Low", "poet", "In May the [MASK] Ada Low met the smith Bo Arn."),
    unit("v2", "Bo Arn", "smith", "In May the poet Ada Low met the [MASK] Bo Arn."),  # the same document
    unit("v3", "Cy Dun", "judge", "Cy Dun, a [MASK], was no judge of wine."),
    unit("v4", "Cy Dun", "baker", "Cy Dun was once a [MASK]."),  # the same question as v3
    unit("v5", "Di Eck", "miner", "Di Eck is a [MASK]."),  # the model knows half of it
    unit("v6", "Ed Fox", "actor", "Ed Fox is a [MASK].", relation="P19"),  # no variant relation
    unit("v7", "Flo Gay", "pilot", "Flo Gay never flew."),  # not in the evidence
    unit("v1", "Gus Hay", "cook", "Gus Hay is a [MASK]."),  # v1 again
    unit("v8", "Ada Low", "mayor", "Ada Low is a [MASK].", relation="P39"),
]
INVARIANT = [
    unit("i1", "Thailand", "Thai", "In Thailand people speak [MASK].", relation="P37", invariant=True, after=" ."),
    unit("i2", "Honda Civic", "Honda", "[MASK] makes the Honda Civic.", relation="P176", invariant=True, after=" ."),
    unit("i3", "Kent", "Hugo", "The county of Kent, of [MASK].", relation="P36", invariant=True, after=" ."),
    unit("i4", "Oslo", "town", "In May the poet Ada Low met the smith Bo Arn.", relation="P31", invariant=True),
    unit("i5", "Rome", "city", "Rome is a [MASK].", relation="P31", invariant=True),
]
ACCURACY = {"v5": 0.5, "i1": 1.0, "i2": 1.0, "i3": 0.0, "i5": 1.0}


def answers(probes, accuracy=ACCURACY):
    made = []
    for p in probes:
        share = accuracy.get(p.id, 0.0)
        made.append(
            Answer(p.id, p.role, p.kind, p.group, p.prompt, p.answer, "", share == 1, share, None, None, 2.0, True)
        )
    return made


@pytest.fixture
def lama(tmp_path):
    folder = tmp_path / "lama"
    jsonl(folder / "variant.jsonl", VARIANT)
    jsonl(folder / "invariant_descriptive.jsonl", INVARIANT)
    jsonl(folder / "invariant_schematic.jsonl", INVARIANT[:2])
    return folder


def selected(folder, **settings):
    out = LeftOut()
    facts = lama_ckl.read_facts([folder / name for name in lama_ckl.FILES], out)
    return lama_ckl.select(facts, LamaCkl(**settings), answers, out)


def test_lama_takes_unknown_variant_and_known_invariant_facts(lama):
    suite = selected(lama, learn=9, retain=9, held_out=0)
    asked = {probe.id for probe in suite.learn}
    assert {"v1", "v2", "v8"} < asked
    assert len(asked & {"v3", "v4"}) == 1
    assert len(asked) == 4
    assert {probe.id for probe in suite.retain} == {"i1", "i2", "i5"}
    assert suite.held_out == ()
    assert left(suite) == {
        ("variant facts", "its relation is none of the 13 variant ones"): 1,
        ("variant facts", "the object does not occur in the evidence"): 1,
        ("variant facts", "an earlier line or file has the same fact"): 1,
        ("variant facts", "the model has a part of the answer (accuracy above 0)"): 1,
        ("variant facts", "same subject and relation as another one, with another object"): 1,
        ("invariant facts", "the object does not occur in the evidence"): 1,  # i4
        ("invariant facts", "an earlier line or file has the same fact"): 2,
        ("invariant facts", "the model has not all of the answer (accuracy below 1)"): 1,
    }
    assert suite.measured["asked"]["invariant"] == {"facts": 4, "accuracy_0": 1, "accuracy_1": 3}
    assert "9 facts to learn were asked for, 4 qualify" in suite.notes


def test_lama_probes_are_the_sentence_up_to_the_object(lama):
    suite = selected(lama, learn=9, retain=9, held_out=9)
    probe = next(p for p in suite.learn if p.id == "v1")
    assert (probe.prompt, probe.answer, probe.suffix) == ("Ada Low is a", "poet", " by profession .")
    assert (probe.role, probe.kind, probe.group) == ("learn", "cloze", "P106")
    again = next(p for p in suite.held_out if p.id == "v1/schematic")
    assert again.prompt == "Guess the object. \n  subject is Ada Low , relation is r , object is"
    assert again.answer == "poet"
    assert again.suffix == ""


def test_lama_corpus_marks_every_fact_that_is_asked_and_merges_documents(lama):
    suite = selected(lama, learn=9, retain=9)
    both = next(document for document in suite.documents if "Bo Arn" in document.text)
    assert [both.text[a:b] for a, b in both.spans] == ["poet", "smith"]
    assert len(suite.documents) == 3
    marked = {document.text[a:b] for document in suite.documents for a, b in document.spans}
    assert marked == {probe.answer for probe in suite.learn}
    v3 = next(unit for unit in VARIANT if unit["uuid"] == "v3")
    fact = next(d for d in lama_ckl.read_facts([lama / "variant.jsonl"], LeftOut()) if d.id == "v3").document
    assert fact.spans == ((10, 15),)
    assert v3["evidence"][10:15] == "judge"


@pytest.mark.parametrize("seed", range(8))
def test_lama_held_out_and_units_share_nothing_with_the_reported_probes(lama, seed):
    suite = selected(lama, learn=1, retain=1, held_out=1, seed=seed)
    reported = {probe.id for probe in (*suite.learn, *suite.retain)}
    held = [probe for probe in suite.held_out if probe.role == "retain"]
    assert len(suite.learn) == len(suite.retain) == len(held) == 1
    assert held[0].id not in reported
    assert {p.id for p in suite.held_out if p.role == "learn"} == {f"{suite.learn[0].id}/schematic"}
    units = {unit["id"] for unit in suite.units}
    assert units
    assert not units & (reported | {held[0].id})
    taught = {document.text for document in suite.documents}
    assert not taught & {unit["text"] for unit in suite.units}
    subject = next(unit["subject"] for unit in VARIANT if unit["uuid"] == suite.learn[0].id)
    assert not any(unit["prompt"].startswith(f"Guess the object. \n  subject is {subject} ") for unit in suite.units)


def test_a_known_fact_whose_evidence_is_learned_is_not_retained(lama):
    known = unit(
        "i9", "Bo Arn", "May", "In [MASK] the poet Ada Low met the smith Bo Arn.", relation="P1", invariant=True
    )
    jsonl(lama / "invariant_schematic.jsonl", [known])
    out = LeftOut()
    facts = lama_ckl.read_facts([lama / name for name in lama_ckl.FILES], out)
    suite = lama_ckl.select(facts, LamaCkl(learn=9), lambda p: answers(p, {**ACCURACY, "i9": 1.0}), out)
    assert "i9" not in {probe.id for probe in (*suite.retain, *suite.held_out)}
    assert left(suite)["invariant facts", "its evidence is in the corpus"] == 1


@pytest.mark.parametrize(
    ("sentence", "subject", "object", "expected"),
    [
        ("Cy plays jazz music .", "Cy", "jazz", 9),
        ("Honda Civic is produced by Honda .", "Honda Civic", "Honda", 27),
        ("The language of Thailand is Thai .", "Thailand", "Thai", 28),
        ("Panama City is the capital of Panama .", "Panama City", "Panama", 30),
        ("The capital of Guatemala is Guatemala City .", "Guatemala", "Guatemala City", 28),
        ("Bern is where Ada lives .", "Ada", "Bern", 0),
        ("Honda makes cars .", "Honda", "Honda", None),
        ("Thailand is big .", "Thailand", "Thai", None),
    ],
)
def test_the_object_is_told_from_the_subject(sentence, subject, object, expected):
    found = place(sentence, subject, object)
    assert found == (None if expected is None else (expected, expected + len(object)))


def test_lama_asks_the_model_at_hand(lama, tmp_path):
    model = tiny.save_model(tmp_path / "model")
    told = []
    suite = lama_ckl.convert(lama, LamaCkl(model=str(model), learn=2, batch_size=2), told.append)
    loaded = models.load(str(model))
    asked = answer(loaded.model, loaded.tokenizer, suite.learn)
    assert [a.accuracy for a in asked] == [0.0, 0.0]
    assert suite.measured["learn"]["nll"] == pytest.approx(sum(a.nll for a in asked) / 2, abs=1e-5)
    assert suite.measured["model"]["fingerprint"] == loaded.fingerprint
    assert told[-1] == "asked 2 of 2"
    assert any("of 10" in line for line in told)
    folder = suite.write(tmp_path / "suite")
    corpus = read_corpus([folder / "corpus.jsonl"], loaded.tokenizer, max_length=128)
    assert corpus.documents == len(suite.documents)
    assert not corpus.bad
    row = corpus.rows[0]
    marked = [i for i, mark in zip(row.input_ids, row.columns["answer"], strict=True) if mark]
    assert loaded.tokenizer.decode(marked).strip() in {probe.answer for probe in suite.learn}


def test_what_is_drawn_does_not_hang_on_what_else_is_there():
    items = [f"fact-{n}" for n in range(40)]
    order = drawn(items, 3, str)
    assert drawn(items[::-1], 3, str) == order != drawn(items, 4, str)
    rest = [item for item in items if item != order[7]]
    assert drawn(rest, 3, str) == [item for item in order if item != order[7]]


# ---- temporalwiki

CHANGED = [
    {"subject": "Ada", "relation": "occupation", "object": "poet"},
    {"subject": "Ada", "relation": "occupation", "object": "judge"},
    {"subject": "Bo", "relation": "country", "object": "Peru"},
    {"subject": "Bo", "relation": "country", "object": "Peru"},
    {"subject": "Cy", "relation": "country", "object": " "},
]
UNCHANGED = [{"subject": "Di", "relation": "country", "object": "Chad"}, CHANGED[2]]


@pytest.fixture
def wiki(tmp_path):
    jsonl(tmp_path / "wiki/0901-1001_changed.jsonl", CHANGED)
    jsonl(tmp_path / "wiki/0901-1001_unchanged.jsonl", UNCHANGED)
    return tmp_path / "wiki"


def test_temporalwiki_asks_subject_relation_object(wiki, tmp_path):
    suite = temporalwiki.convert([wiki], TemporalWiki(held_out=0))
    assert [(p.text, p.role, p.group) for p in (*suite.learn, *suite.retain)] == [
        ("Ada occupation poet", "learn", "occupation"),
        ("Ada occupation judge", "learn", "occupation"),
        ("Bo country Peru", "learn", "country"),
        ("Di country Chad", "retain", "country"),
    ]
    assert left(suite) == {
        ("changed triples", "an earlier line or file has the same triple"): 1,
        ("changed triples", "subject, relation or object is empty"): 1,
        ("unchanged triples", "an earlier line or file has the same triple"): 1,
    }
    assert any("--corpus" in note for note in suite.notes)
    assert any(note.startswith("2 probes to learn share their question") for note in suite.notes)
    folder = suite.write(tmp_path / "out")
    assert not (folder / "corpus.jsonl").exists()
    assert not (folder / "held_out.jsonl").exists()


def test_temporalwiki_marks_objects_in_the_users_text(wiki, tmp_path):
    lines = [{"text": "Bo moved to Peru. Peru!"}, {"text": "Peru is far."}, {"text": "Peru is far."}, {"no": 1}]
    text = jsonl(tmp_path / "diff.jsonl", lines)
    suite = temporalwiki.convert([*wiki.iterdir()], TemporalWiki(held_out=0), [text])
    assert [d.spans for d in suite.documents] == [((12, 16), (18, 22)), ()]  # no subject, no mark
    assert suite.measured == {"changed_in_corpus": 1, "changed": 3}
    assert sum(count for (what, _), count in left(suite).items() if what.startswith("corpus")) == 2


def test_temporalwiki_wants_one_file_of_each_kind(wiki):
    (wiki / "1001-1101_changed.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"one file of changed triples, got 0901-1001_changed\.jsonl, 1001"):
        temporalwiki.convert([wiki], TemporalWiki())
    assert temporalwiki.files_of([wiki / "0901-1001_changed.jsonl"])[1] == wiki / "0901-1001_unchanged.jsonl"
    with pytest.raises(
        ValueError, match=r"expected 'changed' or 'unchanged' in the name of a file, got triples\.jsonl"
    ):
        temporalwiki.files_of([wiki.joinpath("0901-1001_changed.jsonl").rename(wiki / "triples.jsonl")])
    with pytest.raises(FileNotFoundError, match=r"no file .*1001-1101_unchanged\.jsonl.*TemporalWiki/eval"):
        temporalwiki.convert([wiki / "1001-1101_changed.jsonl"], TemporalWiki())


def test_probes_that_share_a_question_are_held_out_together(tmp_path):
    triples = [{"subject": f"S{n // 2}", "relation": "r", "object": f"o{n}"} for n in range(40)]
    files = [jsonl(tmp_path / "changed.jsonl", triples), jsonl(tmp_path / "unchanged.jsonl", UNCHANGED)]
    for held_out in (5, 9, 16):
        suite = temporalwiki.convert(files, TemporalWiki(held_out=held_out))
        held = {p.prompt for p in suite.held_out if p.role == "learn"}
        assert held_out - 1 <= 2 * len(held) <= held_out
        assert not held & {p.prompt for p in suite.learn}
        assert len(suite.learn) == 40 - 2 * len(held)


# ---- templama


def lived(fact, year, *names, relation="P54", query="Ada plays for _X_."):
    people = [{"wikidata_id": f"Q{name}", "name": name} for name in names]
    return {
        "query": query,
        "answer": people,
        "date": str(year),
        "id": f"{fact}_{relation}_{year}",
        "relation": relation,
    }


YEARS = [
    *(lived("Q1", 2019, "Ajax"), lived("Q1", 2020, "Ajax", "Lech")),
    *(lived("Q2", year, "Lech", query="Bo plays for _X_.") for year in (2019, 2020)),
    *(lived("Q3", 2019, "A", "B", query="Cy plays for _X_."), lived("Q3", 2020, "B", query="Cy plays for _X_.")),
    *(lived("Q4", 2018, "A", query="Di plays for _X_."), lived("Q4", 2020, "B", query="Di plays for _X_.")),
    *(lived("Q5", year, "Ed", relation="P6", query="_X_ is the head of Rome.") for year in (2019, 2020)),
]


def test_templama_learns_what_changed_and_retains_what_did_not(tmp_path):
    file = jsonl(tmp_path / "train.jsonl", YEARS)
    suite = templama.convert(tmp_path, TempLama(held_out=0))
    first, second = suite.learn
    assert (first.prompt, first.answer, first.suffix, first.aliases) == ("Ada plays for", "Lech", ".", ("Ajax",))
    assert (second.id, second.answer) == ("Q3_P54_2020", "B")
    assert [(p.text, p.group) for p in suite.retain] == [("Bo plays for Lech.", "P54")]
    assert [(d.text, d.spans) for d in suite.documents] == [
        ("Ada plays for Ajax.", ((14, 18),)),
        ("Ada plays for Lech.", ((14, 18),)),
        ("Bo plays for Lech.", ((13, 17),)),
        ("Cy plays for B.", ((13, 14),)),
    ]
    assert left(suite) == {
        ("facts of 2020", "no record of 2019 to compare with"): 1,
        ("facts of 2020", "relation P6: its sentence does not end in the object"): 1,
    }
    assert suite.measured["object_final"] == {"facts": 3, "changed": 2}
    assert suite.measured["all_relations"] == {"facts": 4, "changed": 2}
    fresh = templama.convert(file, TempLama(held_out=0, new_only=True, corpus="changed"))
    assert [p.id for p in fresh.learn] == ["Q1_P54_2020"]
    assert len(fresh.documents) == 2
    assert left(fresh)["changed facts", "no new answer (new_only): one of several has ended"] == 1


def test_templama_names_the_years_it_has(tmp_path):
    with pytest.raises(ValueError, match="no facts of 2031; its years are 2018, 2019, 2020"):
        templama.convert(jsonl(tmp_path / "train.jsonl", YEARS), TempLama(year=2031))


# ---- ecbd


def entity(id, definition, target, sentence, label):
    mask = "<extra_id_0> {} <extra_id_1>"
    probes = {"template_0": {"probe_sentence": sentence, "label": mask.format(label)}}
    return {"ex_id": id, "definition": definition, "def_target": mask.format(target), "probe_sentences": probes}


ENTITIES = [
    entity("a", "Foo is a <extra_id_0>.", "new town", "Foo lies in <extra_id_0>, far away.", "the north"),
    entity("b", "Foo <extra_id_0> town.", "is a new", "The anti-<extra_id_0> of Foo.", "hero"),
    entity("c", "Bar is <extra_id_0>", "old.", "<extra_id_0> likes Bar.", "Nobody"),
    entity("d", "Bar is gone.", "old", "Bar is <extra_id_0>", "here."),
]


def test_ecbd_puts_the_span_back_and_marks_it(tmp_path):
    file = tmp_path / "new.json"
    file.write_text(json.dumps(ENTITIES))  # one list, not lines
    popular = jsonl(tmp_path / "popular.json", [entity("p", "x <extra_id_0>", "y", "Rome is <extra_id_0>.", "old")])
    suite = ecbd.convert(file, Ecbd(held_out=0), popular)
    assert [(p.prompt, p.answer, p.suffix, p.kind) for p in suite.learn] == [
        ("Foo lies in ", "the north", ", far away.", "span"),
        ("The anti-", "hero", " of Foo.", "span"),
        ("Bar is ", "here.", "", "span"),
    ]
    assert [(p.text, p.role) for p in suite.retain] == [("Rome is old.", "retain")]
    assert [(d.text, d.spans) for d in suite.documents] == [
        ("Foo is a new town.", ((4, 17),)),  # "is a new" and "new town" overlap
        ("Bar is old.", ((7, 11),)),
    ]
    assert left(suite) == {
        ("definitions", "its sentence has 0 masks, not 1"): 1,
        ("probe sentences of new entities", "the span opens the sentence: a causal model needs words before it"): 1,
    }
    line = read(suite.write(tmp_path / "out") / "learn.jsonl")[0]
    assert line["text"] == "Foo lies in the north, far away."
    assert line["answer_start"] == 12


# ---- published biographies

TAGGED = (
    "<name>{name}</name> was born on <date>May 1</date>. She lived in <city>Rome</city>. Shee met "
    "<university>Bern</university>. She knew <major>law</major>. She had <company>Ox Ltd</company>."
)


def test_biographies_lose_their_tags_and_keep_their_words(tmp_path):
    rows = [TAGGED.format(name=name) for name in ("Ada Low", "Bo Arn", "Ada Low")] + ["<name>Cy</name> is new."]
    lines = "".join(f'"{row}"\n' for row in rows)
    (tmp_path / "biography_synthetic.csv").write_text("text\n" + lines)
    suite = published_biographies.convert(tmp_path, PublishedBiographies(held_out=0))
    document = suite.documents[0]
    assert document.text.startswith("Ada Low was born on May 1. She lived in Rome. Shee met Bern.")
    assert [document.text[a:b] for a, b in document.spans] == ["May 1", "Rome", "Bern", "law", "Ox Ltd"]
    assert len(suite.documents) == 2
    assert len(suite.learn) == 2 * 5 * 2
    assert "2 texts have the typing error 'Shee' of the published file; it is kept" in suite.notes
    assert left(suite) == {
        ("biographies", "an earlier one is of the same name"): 1,
        ("biographies", "no <date>"): 1,
    }
    fields = ("date", "city", "major", "university", "company")
    prompts = "".join(f'"{field}","Which {field} has {{name}}?\nAnswer:"\n' for field in fields)
    (tmp_path / "prompts.csv").write_text("field,prompt\n" + prompts)
    known = tmp_path / "known.csv"
    known.write_text("text\n" + f'"{TAGGED.format(name="Di Eck")}"\n')
    suite = published_biographies.convert(tmp_path, PublishedBiographies(held_out=0), known)
    asked = [p.prompt for p in (*suite.learn, *suite.retain) if p.kind == "qa" and p.group == "city"]
    assert asked == [f"Which city has {name}?\nAnswer:" for name in ("Ada Low", "Bo Arn", "Di Eck")]
    assert {p.role for p in suite.retain} == {"retain"}
    assert len(suite.documents) == 2
    held = published_biographies.convert(tmp_path, PublishedBiographies(held_out=7))
    assert len(held.held_out) == 6  # three facts, each asked twice
    assert not {p.id.rpartition("/")[0] for p in held.held_out} & {p.id.rpartition("/")[0] for p in held.learn}


@pytest.mark.parametrize("text", ["<a>x", "<a>x</b>", "x</a>", "<a>x<b>y</b></a>", "<a>x</a><a>y</a>"])
def test_tags_that_do_not_fit_are_refused(text):
    with pytest.raises(ValueError, match=r"expected <"):
        published_biographies.untagged(text)


# ---- sources and folders


@pytest.mark.parametrize("suite", sources.SOURCES)
def test_a_missing_file_is_told_with_its_place_and_licence(suite, tmp_path):
    source = sources.SOURCES[suite][0]
    with pytest.raises(FileNotFoundError) as error:
        sources.located(suite, tmp_path)
    assert source.name in str(error.value)
    assert source.published in str(error.value)
    assert f"licence: {source.licence}" in str(error.value)
    assert f"foci data {suite}" in str(error.value)


def test_a_file_of_another_checksum_is_told_and_used(tmp_path):
    file = jsonl(tmp_path / "train.jsonl", YEARS)
    suite = templama.convert(file, TempLama())
    (used,) = suite.record()["sources"]
    assert used["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not used["tested"]
    assert any(used["sha256"] in note and "train.jsonl" in note for note in suite.record()["notes"])
    known = replace(sources.SOURCES["templama"][0], sha256=used["sha256"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sources.SOURCES, "templama", (known,))
        assert sources.used("templama", file).tested


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"subject": "a", "relation": "b", "object": "c"}\n{"subject"', r":2: broken JSON"),
        (b'{"subject": "a", "relation": "b"}', r":1: expected 'object' as str, got no such key"),
        (b'{"subject": "a", "relation": "b", "object": 3}', r":1: expected 'object' as str, got 3"),
        (b"[1]", r":1: expected a JSON object, got '1'"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"\xff\xfea\0", r"_changed\.jsonl is UTF-16, not UTF-8; save it .* published at"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(content, message, wiki):
    (wiki / "0901-1001_changed.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        temporalwiki.convert([wiki], TemporalWiki())


def small(**parts):
    probes = (Probe("1", "learn", "cloze", "Ada is a", "poet", " .", "P106", ("bard",)),)
    return Suite("small", {}, (), documents=(Document("d", "Ada is a poet.", ((9, 13),)),), learn=probes, **parts)


def test_a_written_suite_reads_back_and_is_the_same_again(tmp_path):
    span = Probe("s", "retain", "span", "Rome is ", "old", ".", verbatim=True)
    question = Probe("q", "retain", "qa", "Who?\nAnswer:", "Ada", group="g")
    suite = small(retain=(span, question), held_out=(question,))
    folder = suite.write(tmp_path / "a")
    assert read_probes(folder / "learn.jsonl") == list(suite.learn)
    assert read_probes(folder / "retain.jsonl", "retain") == [span, question]
    assert read(folder / "corpus.jsonl") == [{"id": "d", "text": "Ada is a poet.", "answer_spans": [[9, 13]]}]
    record = json.loads((folder / "suite.json").read_text())
    assert record["used"] == {"corpus.jsonl": 1, "learn.jsonl": 1, "retain.jsonl": 2, "held_out.jsonl": 1}
    for name, digest in record["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    suite.write(tmp_path / "b")
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_an_older_suite_is_replaced_and_nothing_else_is(tmp_path):
    folder = small(held_out=(Probe("h", "retain", "cloze", "a", "b"),)).write(tmp_path / "s")
    (folder / "notes.txt").write_text("mine")
    small().write(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["corpus.jsonl", "learn.jsonl", "notes.txt", "suite.json"]
    other = jsonl(tmp_path / "mine/corpus.jsonl", [{"text": "mine"}])
    with pytest.raises(FileExistsError, match=r"no suite.json"):
        small().write(other.parent)
    assert "mine" in other.read_text()


def test_what_makes_no_suite_is_refused():
    left_out = LeftOut()
    left_out.add("facts", "too old", 3)
    with pytest.raises(ValueError, match="expected probes to learn, got none \\(3 facts left out: too old\\)"):
        Suite("empty", {}, (), left_out=left_out)
    twice = (Probe("1", "learn", "cloze", "a", "b"),) * 2
    with pytest.raises(ValueError, match="the id '1' twice"):
        Suite("twice", {}, (), learn=twice)
    with pytest.raises(ValueError, match="within 0 to 3"):
        Document("d", "abc", ((2, 4),))
    with pytest.raises(ValueError, match="held_out must be at least 0"):
        Ecbd(held_out=-1)
    with pytest.raises(ValueError, match="learn must be at least 1, got 0"):
        LamaCkl(learn=0)


def test_documents_of_one_text_become_one():
    made = merged([Document("a", "abcdef", ((4, 5),)), Document("b", "x"), Document("c", "abcdef", ((0, 2), (4, 6)))])
    assert made == (Document("a", "abcdef", ((0, 2), (4, 6))), Document("b", "x"))
    assert joined([(3, 4), (1, 3)]) == ((1, 3), (3, 4))  # neighbours stay two answers


def test_the_command_writes_a_folder_and_says_what_is_in_it(tmp_path):
    jsonl(tmp_path / "train.jsonl", YEARS)
    result = CliRunner().invoke(
        app, ["data", "templama", str(tmp_path), "--out", str(tmp_path / "s"), "--held-out", "1"]
    )
    assert result.exit_code == 0, result.output
    assert "learn.jsonl" in result.output
    assert "no record of 2019" in result.output
    assert "SHA-256" in result.output
    assert json.loads((tmp_path / "s/suite.json").read_text())["settings"]["held_out"] == 1


# ---- the published files, where they are


def test_published_lama_ckl():
    folder = published("lama_ckl")
    out = LeftOut()
    facts = lama_ckl.read_facts([folder / name for name in lama_ckl.FILES], out)
    assert sum(fact.variant for fact in facts) == 500
    assert len(facts) == 1434
    assert {fact.relation for fact in facts if fact.variant} == lama_ckl.VARIANT
    assert out.records() == [
        {"what": "invariant facts", "why": "an earlier line or file has the same fact", "count": 66}
    ]
    for fact in facts:
        text, (start, end) = fact.sentences["descriptive"]
        assert text[start:end] == fact.object
        assert fact.probe("learn").text == text
        assert [fact.document.text[a:b] for a, b in fact.document.spans] == [fact.object]
    assert all(sources.used("lama-ckl", folder / name).tested for name in lama_ckl.FILES)


def test_published_temporalwiki():
    suite = temporalwiki.convert([published("temporalwiki")], TemporalWiki())
    assert suite.record()["used"] == {"learn.jsonl": 1668, "retain.jsonl": 7026, "held_out.jsonl": 128}
    assert all(source.tested for source in suite.sources)
    assert left(suite) == {}


@pytest.mark.parametrize(("year", "facts", "changed"), [(2018, 669, 166), (2019, 669, 142), (2020, 641, 95)])
def test_published_templama(year, facts, changed):
    suite = templama.convert(published("templama"), TempLama(year=year, held_out=0))
    assert suite.measured["object_final"] == {"facts": facts, "changed": changed}
    assert (len(suite.learn), len(suite.retain)) == (changed, facts - changed)
    marked = {document.text[a:b] for document in suite.documents for a, b in document.spans}
    assert {probe.answer for probe in suite.learn} <= marked


def test_published_ecbd():
    suite = ecbd.convert(published("ecbd"), Ecbd(held_out=0))
    assert (len(suite.documents), len(suite.learn)) == (149, 492)
    assert not any("extra_id" in text for text in [d.text for d in suite.documents] + [p.text for p in suite.learn])


def test_published_biographies():
    folder = published("biographies")
    suite = published_biographies.convert(
        folder, PublishedBiographies(held_out=0), folder / "biography_real.csv"
    )  # fmt: skip
    assert (len(suite.documents), len(suite.learn), len(suite.retain)) == (100, 1000, 100)
    assert all(source.tested for source in suite.sources)
    assert suite.notes == ("51 texts have the typing error 'Shee' of the published file; it is kept",)
