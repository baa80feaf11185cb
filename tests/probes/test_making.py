"""Probes that are made by rule: what is asked, in which words, what is left out, and which are held out."""

import json
from dataclasses import replace

import pytest

import handbook
from foci.corpus.sentences import known_names, one_line
from foci.focus import Row
from foci.probes import Probe, line_of, majority, read_probes
from foci.probes.making import make
from foci.probes.making.facts import facts_of, plain
from foci.probes.making.make import make_probes
from foci.probes.making.wording import wordings
from foci.seeds import generator

ASKED = [
    ("The lathe was bought in 1994 and is old.", "1994", "In which year was the lathe bought?"),
    ("Our hall has been heated since May 2011.", "May 2011", "Since which month has our hall been heated?"),
    ("Ada Bell was elected on 3 May 1999.", "3 May 1999", "On which date was Ada Bell elected?"),
    ("Ada Bell founded the club in a barn.", "Ada Bell", "Who or what founded the club in a barn?"),
    ("The house has 12 rooms on two floors.", "12", "The house has how many rooms on two floors?"),
    ("Fourteen bees and 12 old wasps live here today.", "12", None),
    ("A hotel may cost up to $145 a night.", "$145", "A hotel may cost up to how much money a night?"),
    ("The oldest book was printed in Rome in 1783.", "1783", "In which year was the oldest book printed in Rome?"),
    ("On Fridays the building closes early for all.", "Fridays", "The building closes early for all on"),
    ("In 1994, the old museum moved to Bern.", "1994", "The old museum moved to Bern in"),
    ("The holiday calendar is kept by Yusuf Demir.", "Yusuf Demir", "The holiday calendar is kept by"),
    ("Hand in all receipts within 21 days after the trip.", "21", None),  # "within" alone could be anything
    ("Send the form back within 30 days.", "30", "Send the form back within"),
    ("The trains were old, and on 3 May 1999, they were sold.", "3 May 1999", None),
    ("It was opened by Ada Bell.", "Ada Bell", None),  # nobody knows what it is
    ("The final was a game on 4 May 1990.", "4 May 1990", "The final was a game on which date?"),
    ("The towns are Bern, Basel and Zug.", "Zug", None),
    ("Nobody from the Commission on Zoological Names came.", "Zoological Names", None),
    ("Say how much you want, and the most is $350 a year.", "$350", None),
    (
        "The price (in the shop it is lower) is shown by (as said) Ada Bell",
        "Ada Bell",
        "The price (in the shop it is lower) is shown by (as said)",
    ),
    ("The blue form (which is kept by Ada Bell) is long.", "Ada Bell", None),
    ("Now Ada Bell keeps all the old keys.", "Ada Bell", None),
    ("The desk used for the visit is Desk Lima.", "Desk Lima", "The desk used for the visit is"),
    ("Endpoint Lima used for the storage of all files.", "Endpoint Lima", None),
    ("Since Bern is near, the shop keeps its cheese cool.", "Bern", None),
    ("The Cascade weighs 12 kg with its box.", "12", "The Cascade weighs how many kg with its box?"),
    ("Carry no more than 12 kg at once.", "12", None),
    ("Never lift more than 15 kg.", "15", "Never lift more than"),
    ("The flag hangs between 1994 and 1996 in the hall.", "1994", None),
    ("The house has 12 rooms and two kitchens.", "12", None),
    ("The house has 12 rooms and stands in Bern.", "12", "The house has how many rooms and stands in Bern?"),
    ("Visitors may enter in May and June.", "May", None),
    ("The clock was repaired in 1994 and again in 2005.", "1994", None),
]


@pytest.mark.parametrize(("sentence", "answer", "prompt"), ASKED)
def test_a_sentence_is_asked_about_by_hand(sentence, answer, prompt):
    known = frozenset({"Ada", "Yusuf"})
    found = [fact for fact in facts_of(sentence, known) if fact.answer == answer]
    made = wordings(found[0])[0] if found and wordings(found[0]) else None
    assert (made and one_line(made.prompt).removeprefix("Question: ").removesuffix(" Answer:")) == prompt


def test_marks_of_markdown_are_no_words():
    assert plain("1. **Note**: call [Ada](x.md) at `5` (#12).") == "Note: call Ada at 5."
    assert plain("It is 5 metres² wide.² So^[1] old,[^a-1] too.[3][4]") == "It is 5 metres² wide. So old, too."
    assert plain("* :func:`~a.sum` is *new* ([#4](http://x)).") == "a.sum is new."
    assert plain("- :issue:`12`: See `__init__.py` of :pep:`8` and NumPy_.") == "See __init__.py of pep 8 and NumPy."
    found = facts_of("The switch is set by `max_pool` alone.", frozenset())
    assert [(fact.answer, fact.kind) for fact in found] == [("max_pool", "term")]


def rows(*texts: str) -> list[Row]:
    return [Row(str(n), (1, 2), text, source=f"page.md:{n}") for n, text in enumerate(texts, start=1)]


def unknown(probes):
    return [""] * len(probes)


def test_each_probe_can_be_answered_from_its_sentence_and_from_no_other():
    made = make_probes(handbook.rows(), unknown)
    assert len(made.probes) > 35
    text = one_line("\n".join(row.text for row in handbook.rows()))
    for probe in made.probes:
        assert text.count(probe.evidence) == 1
        assert probe.answer in plain(probe.evidence)
        assert text.lower().count(probe.answer.lower()) == 1 or probe.answer.isdigit()
        assert probe.answer.lower() not in probe.prompt.lower()
        assert probe.source.partition(" (")[0].rpartition(":")[0].endswith(".md")
    assert len({probe.evidence for probe in made.probes}) == len(made.probes)
    assert made.sentences == len(made.probes) + sum(made.left_out.values())
    assert majority(made.probes) == 3 / len(made.probes)  # guessing gains nothing where each answer stands once


def test_a_share_is_held_out_and_nothing_depends_on_the_order_of_rows():
    made = make_probes(handbook.rows(), unknown, 3)
    held = {probe.evidence for probe in made.probes if probe.held_out}
    assert len(held) == round(0.2 * len(made.probes))
    shuffled = [handbook.rows()[n] for n in generator(0, "order").permutation(len(handbook.rows()))]
    again = make_probes(shuffled, unknown, 3)
    assert {probe.evidence for probe in again.probes if probe.held_out} == held
    assert {(p.prompt, p.answer) for p in again.probes} == {(p.prompt, p.answer) for p in made.probes}
    other = make_probes(handbook.rows(), unknown, 4)
    assert {probe.evidence for probe in other.probes if probe.held_out} != held
    assert not any(probe.held_out for probe in make_probes(handbook.rows(), unknown, held_out=0.0).probes)


def test_the_most_are_made_and_all_others_are_counted():
    made = make_probes(handbook.rows(), unknown, most=10)
    assert len(made.probes) == 10
    assert made.left_out["more than needed"] > 20
    assert made.sentences == 10 + sum(made.left_out.values())
    assert "10 probes made by rule, one each from 10 of" in made.words()


def test_every_example_is_another_probe():
    for count in (1, 2, 3, 7):
        probes = tuple(Probe(str(n), "learn", "cloze", f"Prompt {n}", "x") for n in range(count))
        shown = make.Made(probes, count, {}).examples()
        assert len(set(shown)) == len(shown) == min(count, 3)


def test_what_the_model_knows_or_cannot_read_is_left_out():
    known = make_probes(handbook.rows(), lambda probes: ["known to all"] + [""] * (len(probes) - 1))
    assert known.left_out["known to all"] == 1
    none = make_probes(handbook.rows(), lambda probes: ["known to all"] * len(probes))
    assert not none.probes
    assert none.words().startswith("no probes made by rule from")
    assert "known to all" in none.words()


LEFT_OUT = {
    "the answer stands twice": "The club was founded by Ada Bell. The bread was baked by Ada Bell.",
    "the prompt holds a word of the answer": "The museum of Bern is run by the Bern Society.",
    "the prompt holds its stem": "The Norwegian house in town was sold to Norway.",
    "the sentences are one but for a number": "The blue house cost 12 francs. The blue house cost 14 francs.",
    "there is no full stop": "The holiday calendar is kept by Yusuf Demir",
    "it is a table": "| The calendar | is kept by | Yusuf Demir |",
    "it is code": "The call f(x) = {'a': [1, 2], 'b': <3>} returns 17.",
    "it is German": "Das alte Haus wurde im Jahr 1994 von Ada Bell gebaut. Seit 2011 wohnt dort niemand mehr.",
    "it is French": "La maison a été construite en 1994 par Ada Bell. Elle appartient au village depuis 2011.",
    "it is Dutch": "Het huis is in 1994 gebouwd door Ada Bell. De molen was van Jan Smit en is verkocht.",
    "it is Chinese": "图书馆于1994年由李明创办。它有12个房间。",
    "it is Arabic": "تأسست المكتبة عام 1994 على يد أحمد. فيها 12 غرفة.",
    "it is Hindi": "पुस्तकालय 1994 में खुला। इसमें 12 कमरे हैं।",
    "it is empty": " \n\n ",
    "it is one word": "1994",
}  # fmt: skip


@pytest.mark.parametrize("text", LEFT_OUT.values(), ids=LEFT_OUT)
def test_no_probe_is_made(text):
    made = make_probes(rows(text), unknown)
    assert not made.probes
    assert made.words().startswith("no probes made by rule from")


def test_sentences_that_are_nearly_the_same_are_asked_once():
    text = "The grey wolf of the northern woods was seen by Ada Bell. "
    text += "The grey wolf of the northern woods was seen by Otto Lang."
    made = make_probes(rows(text), unknown)
    assert [len(made.probes), made.left_out["like another sentence"]] == [1, 1]


def test_names_and_headings_are_those_of_the_page():
    made = make_probes(
        rows("# Garden\n\nThe roses are cut by Otto Lang.", "All pears are picked by Ida Moor."), unknown
    )
    assert [probe.source for probe in made.probes] == ["page.md:1 (Garden)", "page.md:2 (Garden)"]
    assert known_names(["- Then Otto came.\n- Bread is baked by Otto."]) == {"Otto"}


def test_a_probe_file_says_how_a_probe_was_made(tmp_path):
    probes = list(make_probes(handbook.rows(), unknown).probes)
    file = tmp_path / "made.jsonl"
    file.write_text("\n".join(json.dumps(line_of(probe)) for probe in probes))
    assert read_probes(file, "learn") == probes
    assert any(probe.held_out for probe in probes)
    bad = line_of(probes[0]) | {"held_out": 1}
    file.write_text(json.dumps(bad))
    with pytest.raises(ValueError, match="'held_out' must be true or false, got 1"):
        read_probes(file, "learn")
    assert replace(probes[0], held_out=False) == read_probes_of(file, line_of(probes[0]) | {"held_out": False})


def read_probes_of(file, line):
    file.write_text(json.dumps(line))
    return read_probes(file, "learn")[0]


def test_of_a_large_corpus_a_part_is_looked_at_and_all_of_it_is_counted(monkeypatch):
    """A name that stands in a row that is not looked at, too, is asked for nowhere."""
    some = rows(
        "The roses are cut by Otto Lang.", "All pears are picked by Ida Moor.", "The soup is made by Otto Lang."
    )
    monkeypatch.setattr(make, "LOOKED_AT", 40)
    found = [make_probes(some, unknown, seed) for seed in range(8)]
    assert {made.sentences for made in found} == {1}
    assert {probe.answer for made in found for probe in made.probes} == {"Ida Moor"}
    assert {len(made.probes) for made in found} == {0, 1}


def test_a_written_answer_may_be_a_number_as_a_word_or_a_day():
    made = make_probes(
        rows("The oven has 12 old racks on wheels.", "The shop in Bern is closed on Sundays in May."), unknown
    )
    assert {probe.answer: probe.aliases for probe in made.probes} == {"12": ("twelve",), "Sundays": ("Sunday",)}


ODD = {
    "emphasis": "**a " * 9000, "underscores": "_a _" * 9000, "code": "`a " * 9000, "links": "[a](" * 9000,
    "one word": "x" * 50000, "items": "- a\n" * 3000, "abbreviations": "a. " * 9000, "brackets": "(" * 30000,
    "names": "Ada Bell " * 9000, "mixed": ("**a _b `c [d]( " * 120 + "\n\n") * 9,
    "clauses": ("The " + "was in " * 250 + ".\n") * 9, "control": "\x00\x01 It was built in 1994.\x7f\u2028",
    "headings": "# " * 9000 + "x", "fences": "```\nThe house was built in 1994.\n",
}  # fmt: skip


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_text_gives_no_probe_and_every_sentence_is_counted(text):
    """Patterns that would be tried again and again on such text would never end."""
    made = make_probes(rows(text), unknown)
    assert not made.probes
    assert made.sentences == sum(made.left_out.values())
