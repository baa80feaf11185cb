"""Controls and tables, worked by hand."""

import math
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foci.probes import (
    Answer,
    Probe,
    balanced,
    balanced_majority,
    counted_by,
    majority,
    read_answers,
    span_perplexity,
    summarise,
    write_answers,
)

COLUMNS = (
    "probe_id, role, kind, group, prompt, answer, predicted, correct, accuracy, exact_match, f1, nll, counted, "
    "held_out, squad_exact_match, squad_f1"
)


def asked(*pairs: str) -> list[Probe]:
    """Probes from "group:answer"."""
    return [
        Probe(str(i), "learn", "cloze", "x", pair.split(":")[1], group=pair.split(":")[0])
        for i, pair in enumerate(pairs)
    ]


def said(name: str, accuracy: float, role: str = "learn", kind: str = "cloze", **more) -> Answer:
    fields = {"group": "g", "answer": "a", "exact_match": None, "f1": None, "nll": 1.0} | more
    correct = accuracy == 1.0
    return Answer(
        probe_id=name, role=role, kind=kind, prompt="p", predicted="x", correct=correct, accuracy=accuracy,
        counted=role == "learn" or correct, **fields,
    )  # fmt: skip


# Group city: Bern 3, Paris 1, Rome 1 -> Bern. Group job: painter 1, poet 1 -> either one.
PROBES = asked("city:Bern", "city:Bern", "city:Bern", "city:Paris", "city:Rome", "job:painter", "job:poet")


def test_majority_is_right_where_the_answer_is_the_groups_most_frequent():
    assert majority(PROBES) == pytest.approx((3 + 1) / 7)


def test_groups_are_apart():
    assert majority(asked("a:x", "a:x", "b:y", "b:y")) == 1.0
    assert majority(asked("a:x", "a:x", "a:y", "a:z")) == 0.5


def test_balanced_gives_every_answer_of_a_group_the_same_say():
    scores = [1.0, 0.5, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert balanced(PROBES, scores) == pytest.approx((0.5 + 1.0 + 0.0 + 1.0 + 0.0) / 5)
    assert balanced(asked("a:x", "b:x"), [1.0, 0.0]) == 0.5  # the same word in two groups: two answers
    assert balanced(asked("a:x", "a:x", "b:x"), [1.0, 1.0, 0.0]) == 0.5


def test_the_majority_answer_scores_little_when_balanced():
    assert balanced_majority(PROBES) == pytest.approx(2 / 5)


def test_controls_need_probes():
    for control in (majority, balanced_majority):
        with pytest.raises(ValueError, match="at least one probe, got none"):
            control([])
    with pytest.raises(ValueError, match=r"one score per probe \(7\), got 1"):
        balanced(PROBES, [1.0])


def test_a_table_comes_back_as_it_was(tmp_path):
    answers = [
        said("1", 0.5, group="", answer="naïve\n"),
        said("2", 1.0, "retain", "qa", exact_match=1.0, f1=0.25),
        said("3", 0.0, "retain", "span"),
    ]
    path = tmp_path / "probes" / "step-000000.parquet"
    write_answers(path, answers)
    assert read_answers(path) == answers
    table = pq.read_table(path)
    assert table.column_names == COLUMNS.split(", ")
    assert table.schema.field("exact_match").type == pa.float64()
    assert table.column("exact_match").to_pylist() == [None, 1.0, None]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_empty_table_has_its_columns(tmp_path):
    write_answers(tmp_path / "t.parquet", [])
    assert read_answers(tmp_path / "t.parquet") == []
    assert pq.read_table(tmp_path / "t.parquet").column_names == COLUMNS.split(", ")


def test_the_frozen_baseline_decides_what_counts(tmp_path):
    baseline = [said("1", 1.0, "retain"), said("2", 0.0, "retain"), said("1", 0.0)]
    later = [said("1", 1.0), said("2", 1.0, "retain"), said("1", 0.0, "retain")]  # in another order
    assert [a.counted for a in counted_by(baseline, later)] == [True, False, True]
    write_answers(tmp_path / "t.parquet", later, baseline)
    assert [a.counted for a in read_answers(tmp_path / "t.parquet")] == [True, False, True]


def test_tables_of_other_probes_are_refused(tmp_path):
    one, two = said("1", 1.0), said("2", 1.0)
    with pytest.raises(ValueError, match="only one side has learn 2; ask both the same probes"):
        counted_by([one], [one, two])
    with pytest.raises(ValueError, match="only one side has retain 1"):
        counted_by([one, replace(one, role="retain")], [one])
    with pytest.raises(ValueError, match="a probe stands twice"):
        counted_by([one, one], [one])
    with pytest.raises(ValueError, match="a probe stands twice"):
        counted_by([one], [one, one])
    with pytest.raises(FileNotFoundError, match="no probe table"):
        read_answers(tmp_path / "t.parquet")
    pq.write_table(pa.table({"probe_id": ["1"]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"expected the columns probe_id, role, .* got probe_id;"):
        read_answers(tmp_path / "t.parquet")


def test_summary_by_hand():
    before = [
        said("1", 0.0, nll=4.0, answer="Bern"),
        said("2", 0.5, nll=2.0, answer="Bern"),
        said("3", 1.0, nll=1.0, answer="Rome"),
        said("4", 0.0, kind="qa", exact_match=0.0, f1=0.2, nll=3.0, answer="Paris"),
        said("5", 1.0, "retain"),
        said("6", 1.0, "retain"),
        said("7", 0.0, "retain"),  # the untouched model did not know it
    ]
    after = [
        said("7", 1.0, "retain"),
        said("6", 0.5, "retain"),
        said("5", 1.0, "retain"),
        said("4", 0.5, kind="qa", exact_match=1.0, f1=0.6, nll=1.0, answer="Paris", squad_exact_match=1.0),
        said("3", 1.0, nll=0.5, answer="Rome"),
        said("2", 1.0, nll=0.25, answer="Bern"),
        said("1", 0.5, nll=0.75, answer="Bern"),
    ]
    summary = summarise(before, after)
    assert summary == {
        "learned_whole": {"before": 1 / 4, "after": 2 / 4},
        "retained_whole": {"before": 1.0, "after": 0.5},
        "learned": {"before": 1.5 / 4, "after": 3.0 / 4},
        "retained": {"before": 1.0, "after": 0.75},
        "learned_by_kind": {
            "cloze": {
                "whole": {"before": pytest.approx(1 / 3), "after": pytest.approx(2 / 3)},
                "accuracy": {"before": 0.5, "after": pytest.approx(2.5 / 3)},
                "nll": {"before": pytest.approx(7 / 3), "after": 0.5},
            },
            "qa": {
                "whole": {"before": 0.0, "after": 0.0},
                "accuracy": {"before": 0.0, "after": 0.5},
                "nll": {"before": 3.0, "after": 1.0},
                "exact_match": {"before": 0.0, "after": 1.0},
                "f1": {"before": 0.2, "after": 0.6},
                "squad_exact_match": {"before": 0.0, "after": 1.0},
            },
        },
        "span_perplexity": span_perplexities(before, after),
        "retained_probes": 2,
        "retain_asked": 3,
        "learn_probes": 4,
        "controls": {
            "majority": 0.5,
            "balanced": {"before": pytest.approx((0.25 + 1.0 + 0.0) / 3), "after": pytest.approx((0.75 + 1 + 0.5) / 3)},
            "balanced_whole": {"before": pytest.approx(1 / 3), "after": pytest.approx((0.5 + 1 + 0) / 3)},
            "balanced_majority": pytest.approx(1 / 3),
            "untouched_model": 1.5 / 4,
        },
    }


def span_perplexities(before, after):
    return {
        side: {how: {"before": was[how], "after": is_now[how]} for how in ("micro", "macro")}
        for (side, was), is_now in zip(span_perplexity(before).items(), span_perplexity(after).values(), strict=True)
    }


def test_span_perplexity_by_hand():
    """Updated: NLL 1, 2 of relation P, 6 of Q: exp(3), and exp(((1 + 2) / 2 + 6) / 2) = exp(3.75). Every unchanged
    probe counts, whether the untouched model was right or not: exp(3). Probes without a group are groups of one.
    """
    answers = [
        said("1", 0.0, nll=1.0, group="P"), said("2", 0.0, nll=2.0, group="P"), said("3", 0.0, nll=6.0, group="Q"),
        said("4", 0.0, "retain", nll=4.0, group=""), said("5", 1.0, "retain", nll=2.0, group=""),
    ]  # fmt: skip
    found = span_perplexity(answers)
    assert found["updated"] == {"micro": pytest.approx(math.exp(3)), "macro": pytest.approx(math.exp(3.75))}
    assert found["unchanged"] == {"micro": pytest.approx(math.exp(3)), "macro": pytest.approx(math.exp(3))}
    assert span_perplexity(answers[:3])["unchanged"] is None
    broken = span_perplexity([said("1", 0.0, nll=800.0, group="P")])["updated"]
    assert broken["micro"] == broken["macro"] == math.exp(700), "of a model that diverged"
    assert summarise(answers[3:], answers[3:])["span_perplexity"]["updated"] is None


def test_a_side_without_probes_is_null():
    learn = summarise([said("1", 0.0)], [said("1", 1.0)])
    assert (learn["retained"], learn["retained_probes"], learn["retain_asked"]) == (None, 0, 0)
    forgot = [said("1", 0.0, "retain")]
    retain = summarise(forgot, forgot)
    assert (retain["learned"], retain["retained"], retain["controls"]) == (None, None, None)
    assert (retain["learned_by_kind"], retain["retain_asked"]) == ({}, 1)


def test_a_table_of_an_earlier_version_says_what_is_held_out_by_id(tmp_path):
    path = tmp_path / "old.parquet"
    write_answers(path, [said("held_out/a", 1.0), said("b", 0.0)])
    pq.write_table(pq.read_table(path).drop_columns(["held_out"]), path)
    assert [answer.held_out for answer in read_answers(path)] == [True, False]
    write_answers(path, [said("a", 1.0, kind="qa", exact_match=1.0, f1=0.5)])
    pq.write_table(pq.read_table(path).drop_columns(["squad_exact_match", "squad_f1"]), path)
    (old,) = read_answers(path)
    assert (old.squad_exact_match, old.squad_f1) == (1.0, 0.5)  # exact match was SQuAD's
