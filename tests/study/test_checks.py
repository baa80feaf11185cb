"""What passes of a writer's words, and why the rest is dropped."""

from collections import Counter

import pytest

from foci.study.checks import (
    Question,
    holds,
    place_of,
    question_of,
    repeats,
    rewrite_of,
    stands_alone,
    tells,
    without_repeats,
)
from foci.study.passages import Passage
from foci.study.replies import questions_in, rewrite_in

TEXT = (
    "The Old Mill at Arlen was built in 1712 by Ada Bell, a baker.\nIt burned down twice. In 1802 the town "
    "rebuilt it for 3,400 francs. Visitors say “come back” when they leave."
)
PASSAGE = Passage(TEXT, "mill.md:3", "mill")
GOOD = {
    "question": "Who built the Old Mill at Arlen?",
    "again": "By whom was the mill at Arlen built?",
    "answer": "Ada Bell",
    "evidence": "The Old Mill at Arlen was built in 1712 by Ada Bell",
}


def made(**changes):
    return question_of({**GOOD, **changes}, PASSAGE)


def test_a_good_question_passes_with_the_whole_sentence_as_its_evidence():
    one = made()
    assert one.wordings == (GOOD["question"], GOOD["again"])
    assert one.evidence == "The Old Mill at Arlen was built in 1712 by Ada Bell, a baker."
    assert TEXT[slice(*one.span)] == one.evidence


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"evidence": "The Old Mill at Arlen was built in 1713 by Ada Bell"}, "evidence not in the passage"),
        ({"evidence": "the old mill at arlen was built"}, "evidence not in the passage"),
        ({"evidence": "..."}, "evidence not in the passage"),
        ({"evidence": '"'}, "evidence not in the passage"),
        ({"answer": "Ben Low"}, "answer not in the evidence"),
        ({"answer": "1802"}, "answer not in the evidence"),
        ({"answer": "171"}, "answer not in the evidence"),
        ({"answer": "..."}, "empty answer"),
        ({"answer": "The Old Mill at Arlen was built in 1712 by Ada Bell, a baker"}, "answer too long"),
        ({"question": "Which baker called Ada Bell built the Old Mill?"}, "the question holds the answer"),
        ({"question": "Who, Bell or Ada, built the Old Mill?"}, "the question holds the answer"),
        ({"question": "Who built it?"}, "does not stand alone"),
        ({"question": "Who built the mill according to the text?"}, "does not stand alone"),
        ({"question": "Who is named in the passage as builder?"}, "does not stand alone"),
        ({"question": "The Old Mill was built by whom"}, "not a question"),
        ({"question": "Who?"}, "not a question"),
    ],
)
def test_a_bad_question_is_dropped_for_its_reason(changes, reason):
    assert made(**changes) == reason


def test_a_bad_second_wording_is_left_out_and_the_question_stays():
    for again in ("Who built it?", "Did Ada Bell build the mill?", GOOD["question"].upper(), "a mill", ""):
        assert made(again=again).wordings == (GOOD["question"],)


def test_white_space_and_quotes_of_evidence_do_not_count():
    assert place_of("by  Ada Bell, a baker. It\nburned down", TEXT) == (0, TEXT.index(" In 1802"))
    assert TEXT[slice(*place_of('Visitors say "come back"', TEXT))].startswith("Visitors")
    assert place_of("3,400 francs", TEXT) is not None
    assert place_of("3.400 francs", TEXT) is None
    assert place_of("", TEXT) is None


@pytest.mark.parametrize(
    "question",
    [
        "When was it built?", "What did he do next?", "In which year was it opened?", "What is its name?",
        "What does the author think?", "What is this process called?", "What happened in the given passage?",
        "What is described in the paragraph?", "What do they sell?",
        "How many people are mentioned in the text?",
        "What is the main idea of this article?",
        "According to the document, who pays?", "What were these rules for?", "What is the former called?",
        "When was it moved to Bern?", "How many days did it stay?", "In which year did they leave for Rome?",
    ],
)  # fmt: skip
def test_questions_that_need_their_text_do_not_stand_alone(question):
    assert not stands_alone(question)


@pytest.mark.parametrize(
    "question",
    [
        "When did Ada Bell leave her village?", "How long does it take to renew a parking permit?",
        "What does the canteen serve when it opens?", "Is it allowed to smoke in the workshop?",
        "Which documents do visitors bring to the front desk?",
        "Which forms do visitors fill in when they arrive?", "Wie viele Räume hat das Haus Lind?",
        "What colour are the doors of the library at Arlen?",
    ],
)  # fmt: skip
def test_questions_with_a_name_of_their_own_stand_alone(question):
    assert stands_alone(question)


def test_an_answer_is_looked_for_as_whole_words():
    assert holds("It costs $5, or 4.50 euros.", "$5")
    assert holds("They drank (iced) tea.", "iced")
    assert not holds("It costs 4.50 euros.", "4.5")
    assert holds("1915年に東京で生まれた。", "東京")
    assert holds("东京工厂于1987年由汉森建立。", "1987年")
    assert not holds("东京工厂于1987年由汉森建立。", "87年")
    assert holds("이 공장은 1987년에 베른에서 문을 열었다.", "베른")
    assert holds("이 공장은 1987년에 베른에서 문을 열었다.", "1987년")
    assert not holds("이 공장은 1987년에 베른에서 문을 열었다.", "87년")
    assert holds("ผู้อำนวยการคือฮันเซน", "ฮันเซน")
    assert not holds("Anything", " ")


def test_what_is_asked_twice_goes_and_other_facts_stay():
    def ask(question, answer="1712"):
        return question_of({**GOOD, "question": question, "answer": answer, "again": ""}, PASSAGE)

    dropped = Counter()
    kept = without_repeats(
        [
            ask("In which year was the Old Mill at Arlen built?"),
            ask("In what year was the old mill at Arlen built?"),
            ask("In which year was the Old Mill at Arlen built exactly?"),
            ask("Who built the Old Mill at Arlen?", "Ada Bell"),
            ask("What did the builder of Arlen's mill do for a living?", "baker"),
        ],
        dropped,
    )
    assert [one.answer for one in kept] == ["1712", "Ada Bell", "baker"]
    assert dropped == {"like another question": 2}


def test_a_question_with_two_answers_stands_alone_nowhere():
    one = made(question="What is the phone number?", answer="1712", again="")
    other = made(question="What is the  phone number?", answer="Ada Bell", again="")
    dropped = Counter()
    assert without_repeats([one, other], dropped) == []
    assert dropped == {"asked with different answers": 2}


def test_questions_on_other_names_and_numbers_are_other_questions():
    texts = [f"The fee of group {n} for swimming lessons in the big pool is {n}0 francs." for n in (1, 2)]
    found = [
        question_of(
            {
                "question": f"What is the fee of group {n} for swimming lessons in the big pool?",
                "answer": f"{n}0 francs",
                "evidence": text,
            },
            Passage(text, "a"),
        )
        for n, text in enumerate(texts, 1)
    ]
    assert without_repeats(found, Counter()) == found


REWRITE = "Ada Bell, who baked bread, put up the Old Mill at Arlen in 1712."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("***", "empty"),
        ("I'm sorry, but I cannot rewrite it.", "the writer refused"),
        ("As an AI language model, I cannot do so.", "the writer refused"),
        (f"{REWRITE} " * 9, "much too long"),
        (TEXT, "the passage itself"),
        (TEXT.upper(), "the passage itself"),
        (TEXT.replace("twice", "once"), "the passage itself"),
        ("The Old Mill at Arlen was built in 1712 by Ada Bell, a baker.", "the passage itself"),
        ("A mill was built at Arlen by a baker.", "the answer is not in it"),
        (f"{REWRITE} It had 12 rooms.", "a number that the passage does not have"),
    ],
)
def test_a_bad_rewrite_is_dropped_for_its_reason(text, reason):
    assert rewrite_of(text, made()) == reason


def test_a_good_rewrite_passes_once():
    one = rewrite_of(REWRITE, made())
    assert one.text == REWRITE
    dropped = Counter()
    assert repeats([one, one], dropped) == [one]
    assert dropped == {"like another rewrite": 1}


def test_a_text_tells_a_fact_by_its_answer_and_its_words():
    question = made()
    assert tells("Ada Bell made bread.", question, same_passage=True)
    assert not tells("Ada Bell made bread.", question, same_passage=False)
    assert tells("The Old Mill at Arlen: Ada Bell built that.", question, same_passage=False)
    assert tells("By whom was the mill at Arlen built? Nobody knows.", question, same_passage=False)
    assert not tells("The Old Mill at Arlen is old.", question, same_passage=True)


ITEM = '{"question": "Q?", "answer": "A", "evidence": "E"}'


@pytest.mark.parametrize(
    ("reply", "count", "wrong"),
    [
        (f"[{ITEM}, {ITEM}]", 2, []),
        (f"```json\n[{ITEM}]\n```\nI hope that this helps!", 1, []),
        (f"Here they are:\n```\n{ITEM}\n{ITEM}\n", 2, []),
        (f"<think>{ITEM} maybe</think>{ITEM}", 1, []),
        (f"{ITEM} maybe\n</think>\n\n{ITEM}", 1, []),  # the template wrote <think> into the prompt
        (f"First:\n```json\n{ITEM}\n```\nand then\n```json\n{ITEM}\n```", 2, []),
        (f'{{"questions": [{ITEM}]}}', 1, []),
        (f"{ITEM}\n{ITEM}", 2, []),
        (f'[{ITEM}, {{"question": "Half', 1, ["half a JSON object"]),
        ('{"question": "Q?", "answer": 12, "quote": "E"}', 1, []),
        ('{"question": "Q?", "answer": null, "evidence": "E"}', 0, ["no question, answer or evidence"]),
        ('{"question": ["Q?"], "answer": "A", "evidence": "E"}', 0, ["no question, answer or evidence"]),
        ("I'm sorry, but I can't help with that.", 0, ["the writer refused"]),
        ("The mill is old.", 0, ["no questions in the reply"]),
        ("", 0, ["no questions in the reply"]),
        ("1. **Question:** Q?\n   **Answer:** A\n   **Evidence:** E\n2. Question: R?\nAnswer: B\nEvidence: F", 2, []),
        ("[" * 100_000, 0, ["no questions in the reply"]),
        ('{"a":' * 3000, 0, ["half a JSON object"]),
    ],
)
def test_questions_are_found_in_any_reply(reply, count, wrong):
    found = questions_in(reply)
    assert (len(found.items), found.wrong) == (count, wrong)
    for item in found.items:
        assert {"question", "answer", "evidence"} <= item.keys()


@pytest.mark.parametrize(
    "reply",
    [
        "It is old.", "```\nIt is old.\n```", '"It is old."', "Here is the rewritten text:\n\nIt is old.",
        "<think>Hm.</think>\nIt is old.", "==========\nIt is old.\n==========", "Sure! Here you go:\nIt is old.",
        "It says 1931. I shall rewrite it.\n</think>\n\nIt is old.", "```\nIt is old.\n",
        "Here is the text:\n```text\nIt is old.\n```",
    ],
)  # fmt: skip
def test_a_rewrite_is_freed_of_what_is_around_it(reply):
    assert rewrite_in(reply) == "It is old."


@pytest.mark.parametrize(
    "reply",
    [
        "To install it, Ada runs:\n```sh\npip install it\n```\nAfter that she starts it.",
        "```sh\npip install it\n```\nThen she runs:\n```sh\nit\n```",
    ],
)
def test_a_block_of_code_inside_a_rewrite_is_a_part_of_it(reply):
    assert rewrite_in(reply) == reply


TIMES = (
    "The U.S. office opens at 5 p.m. on Mondays. Acme Inc. runs it with Ada Bell. "
    "It closes at 9 p.m. Ada lives in Bern."
)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("5 p.m.", "5 p.m."),
        ("9 p.m.", "9 p.m."),
        ("Acme Inc.", "Acme Inc."),
        ("Ada Bell.", "Ada Bell"),
        ("Bern.", "Bern"),
    ],
)
def test_the_dot_of_an_abbreviation_stays(answer, kept):
    found = question_of(
        {"question": "What of the town hall of Arlen?", "answer": answer, "evidence": TIMES},
        Passage(TIMES, "a.md:1", ""),
    )
    assert found.answer == kept


def test_an_answer_is_no_piece_of_a_number_and_has_the_capitals_of_its_evidence():
    passage = Passage("The mill of Otto Arlenson had 1,931 men from 1931-1950.", "mill.md:1")
    for answer, kept in (("931", None), ("1,931", "1,931"), ("1950", "1950"), ("otto arlenson", "Otto Arlenson")):
        item = {
            "question": "Who worked in the mill at Arlen for many years?",
            "answer": answer,
            "evidence": passage.text,
        }
        found = question_of(item, passage)
        assert (found.answer if isinstance(found, Question) else None) == kept, found
