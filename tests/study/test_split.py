"""Passages hold the whole text; facts are parted by evidence, and nothing of a held-out fact is trained on."""

from collections import Counter
from itertools import combinations

import pytest

import writers
from foci.study.checks import folded, question_of, rewrite_of, tells
from foci.study.passages import Passage, read_passages
from foci.study.split import Telling, facts_of, parted
from foci.study.write import examples


def questions(places=6, *, again=True):
    found = []
    for n, place in enumerate(writers.PLACES[:places]):
        facts = [writers.sentence(house, place, 1700 + 4 * n + m) for m, house in enumerate(writers.HOUSES)]
        passage = Passage(" ".join(facts), f"{place}.md:1")
        for m, (house, fact) in enumerate(zip(writers.HOUSES, facts, strict=True)):
            item = {
                "question": f"In which year was the {house} at {place} built?",
                "answer": str(1700 + 4 * n + m),
                "evidence": fact,
                "again": f"When did the people of {place} build their {house}?" if again else "",
            }
            found.append(question_of(item, passage))
    return found


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_no_fact_is_on_both_sides_and_no_probe_is_studied(seed, again):
    every = questions(again=again)
    split = parted(every, 0.2, seed, Counter())
    learn, held = ({one.evidence for fact in side for one in fact.questions} for side in (split.learn, split.held_out))
    assert len(split.held_out) == 5
    assert not learn & held
    assert learn | held == {one.evidence for one in every}
    assert {one.evidence for one in split.asked} <= learn
    assert {one.evidence for one in split.held} == held
    probes = {folded(one.question) for one in (*split.asked, *split.held)}
    studied = {folded(wording) for _, wording in split.studied}
    assert studied
    assert not studied & probes
    assert {one.evidence for one, _ in split.studied} <= learn
    if again:
        assert len(split.asked) == len(split.studied) == 19
    else:
        assert abs(len(split.asked) - len(split.studied)) <= 1


def test_the_split_depends_on_the_seed_alone():
    every = questions()
    assert parted(every, 0.2, 0, Counter()) == parted(every, 0.2, 0, Counter())
    held = [{one.evidence for one in parted(every, 0.2, seed, Counter()).held} for seed in range(6)]
    assert len({frozenset(one) for one in held}) > 1


def test_a_passage_is_held_out_whole_before_another():
    split = parted(questions(), 0.2, 0, Counter())
    assert sorted(Counter(one.passage.id for one in split.held).values()) == [1, 4]


def test_two_facts_leave_one_on_each_side_and_a_share_of_0_none():
    two = questions(1)[:2]
    split = parted(two, 0.01, 0, Counter())
    assert (len(split.learn), len(split.held_out)) == (1, 1)
    assert parted(two, 0.0, 0, Counter()).held == ()
    assert len(parted(two[:1], 0.9, 0, Counter()).asked) == 1


def test_questions_with_a_common_sentence_are_one_fact():
    passage = Passage("Ada built the mill. Ben burned it. Cy rebuilt it in May.", "a")

    def ask(question, answer, evidence):
        return question_of({"question": question, "answer": answer, "evidence": evidence}, passage)

    one = ask("Who built the mill at first?", "Ada", "Ada built the mill. Ben burned it.")
    other = ask("Who set the mill on fire?", "Ben", "Ben burned it")
    third = ask("When was the burned mill rebuilt?", "May", "Cy rebuilt it in May.")
    elsewhere = question_of(
        {"question": "In which month did Cy work?", "answer": "May", "evidence": "Cy rebuilt it in May."},
        Passage("So it went. Cy rebuilt it in May.", "b"),
    )
    facts = facts_of([one, other, third, elsewhere])
    assert [len(fact.questions) for fact in facts] == [2, 2]


def test_what_tells_a_held_out_fact_is_not_trained_on():
    every = questions(2)
    held = every[:1]
    dropped = Counter()
    passage = every[1].passage
    texts = [
        rewrite_of(f"Arlen got its chapel in 1701{more}.", every[1])
        for more in (" and its mill in 1700", "", ", as the people remember")
    ]
    assert [one.passage for one in texts] == [passage] * 3
    kept = Telling(held).without(texts, dropped)
    assert kept == texts[1:]
    assert dropped == {"tells a held-out fact": 1}
    assert Telling(held).tells("The mill at Arlen was built in the year 1700.", "elsewhere")
    assert not Telling(held).tells("The inn at Borvik was closed in 1700.", "elsewhere")


def test_a_question_to_learn_that_tells_a_held_out_fact_is_dropped():
    every = questions(2)
    telling = question_of(
        {
            "question": "At which place was a mill built in 1700?",
            "answer": "Arlen",
            "evidence": "The mill at Arlen was built in 1700 and is well known.",
        },
        Passage("The mill at Arlen was built in 1700 and is well known. It is old.", "other"),
    )
    for seed in range(30):
        dropped = Counter()
        split = parted([*every, telling], 0.3, seed, dropped)
        said = [f"{wording} {one.answer}" for one, wording in split.studied]
        for text, fact in ((text, held) for text in said for held in split.held):
            assert not tells(text, fact, same_passage=False)
        if every[0] in split.held and telling not in split.held:
            assert dropped["tells a held-out fact"] == 1
            break
    else:
        raise AssertionError("no seed parts them")


def test_passages_together_hold_the_whole_text(tmp_path):
    text = "# Mill\n\n" + "\n\n".join(
        f"## Part {n}\n\n" + " ".join(f"Sentence {m} of part {n} has some words." for m in range(n + 3))
        for n in range(9)
    )
    long = " ".join(f"word{n}" for n in range(500))
    (tmp_path / "mill.md").write_text(text)
    (tmp_path / "long.txt").write_text(long)
    read = read_passages([str(tmp_path)], 60)
    for file, whole in (("mill.md", text), ("long.txt", long)):
        some = [one for one in read.passages if file in one.source]
        assert " ".join(one.text for one in some).split() == whole.split()
        assert max(one.words for one in some) <= 60
    titles = {one.title for one in read.passages if "mill.md" in one.source}
    assert "mill, Part 8" in titles
    for one in read.passages:
        file, _, line = one.source.rpartition(":")
        first = one.text.splitlines()[0]
        assert first in (tmp_path / file).read_text().splitlines()[int(line) - 1]


def test_the_same_passage_is_asked_about_once(tmp_path):
    page = " ".join(writers.sentence("mill", place, 1700) for place in writers.PLACES)
    (tmp_path / "a.txt").write_text(page)
    (tmp_path / "b.txt").write_text(f"{page}\n")
    (tmp_path / "c.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    read = read_passages([str(tmp_path)], 60)
    assert len({one.id for one in read.passages}) == len(read.passages)
    assert all(one.source.startswith(str(tmp_path / "a.txt")) for one in read.passages)
    assert "1 conversations or completions are left out" in read.words()
    for one, other in combinations(read.passages, 2):
        assert one.text not in other.text


def test_a_corpus_without_running_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("Two words.")
    with pytest.raises(ValueError, match=r"nothing to study in .*1 shorter ones and 0 conversations"):
        read_passages([str(tmp_path)], 60)


@pytest.mark.parametrize("places", [1, 2, 6])
def test_every_example_is_another_probe(places):
    split = parted(questions(places), 0.5, 0, Counter())
    assert len(set(examples(split))) == min(3, len(split.asked)) > 0


def test_passages_of_a_script_without_spaces(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"东京工厂的第{n}个大厅于1987年建立。" for n in range(100, 140)))
    passages = read_passages([str(tmp_path / "a.txt")], 60).passages
    assert 6 <= len(passages) <= 8
    assert all(40 <= passage.words <= 60 for passage in passages[:-1])
    assert all(passage.text.startswith("东京") for passage in passages)
    (tmp_path / "a.txt").write_text("东" * 500)
    found = [passage.words for passage in read_passages([str(tmp_path / "a.txt")], 60).passages]
    assert found == [60, 10], "cut, and each text once"
    (tmp_path / "a.txt").write_text("ปั๊มน้ำเริ่มทำงานที่กรุงเทพ " * 40)
    passages = read_passages([str(tmp_path / "a.txt")], 60).passages
    assert all(passage.text.startswith("ปั๊ม") for passage in passages), "cut between phrases"


def test_a_comment_of_code_is_no_heading(tmp_path):
    said = "Run this each day at noon on the server in the hall.\n\n"
    (tmp_path / "a.md").write_text(
        f"## Backup\n\n{said}```sh\n# remove old\nrm x\n```\n\n{said.upper()}## End\n\nIt is."
    )
    titles = [passage.title for passage in read_passages([str(tmp_path / "a.md")], 12).passages]
    assert set(titles) == {"a, Backup", "a, End"}
