"""Study rows: what is asked for, in which form, and that only answers have weight."""

from dataclasses import replace

import pytest
import torch

import small
import tiny
from foci.corpus.sentences import known_names, names_of, spans_of
from foci.focus import UNWEIGHTED, Batch, Context, Plan, Row
from foci.methods.lwf import Lwf
from foci.methods.study import Study
from foci.seeds import generator
from foci.training.dataset import MixedDataset, RowDataset
from foci.training.plan import update_weights

TEXT = "Ada Lovelace lives in New York. She was born on 10 December 1815! It rained."


def row(text: str = TEXT, heavy: tuple[str, ...] = ("York", "10"), name: str = "train_attention") -> Row:
    encoded = tiny.tokenizer()(text, return_offsets_mapping=True)
    spans = [(text.index(word), text.index(word) + len(word)) for word in heavy]
    weights = tuple(float(any(a < e and b > s for s, e in spans)) for a, b in encoded.offset_mapping)
    return Row("r", tuple(encoded.input_ids), text, tuple(map(tuple, encoded.offset_mapping)), {name: weights})


def prepared(tmp_path, rows, asked=frozenset(), **settings):
    context = Context(tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer(), rows, tmp_path, 0, asked)
    return Study(**{"spans": "weigher", **settings}).prepare(context)[0]


def questions(method, epoch: int = 0) -> list[str]:
    """The study row's text, a line each, with weighted tokens between brackets."""
    (made,) = method.mix(epoch, generator(0, epoch))
    text, inside = "", False
    for token, unweighted in zip(made.input_ids, made.columns[UNWEIGHTED], strict=True):
        if bool(unweighted) == inside:
            text, inside = text + ("[" if not inside else "]"), not inside
        text += tiny.tokenizer().decode([token])
    return sorted((text + ("]" if inside else "")).splitlines())


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("blank", ["Answer:[ 10 December 1815", "Answer:[ New York", "Question: Ada Lovelace lives in ____.",
                   "Question: She was born on ____!"]),
        ("what", ["Answer:[ 10 December 1815", "Answer:[ New York", "Question: Ada Lovelace lives in what?",
                  "Question: She was born on what?"]),
        ("statement", ["Ada Lovelace lives in [New York].", "She was born on [10 December 1815]!"]),
    ],
)  # fmt: skip
def test_each_form_by_hand(tmp_path, form, expected):
    """A row has room for a part of the questions; all of them come in time."""
    method = prepared(tmp_path, [row()], forms=(form,))
    found = {line.removeprefix("]") for epoch in range(9) for line in questions(method, epoch) if line != "]"}
    assert sorted(found) == expected


def test_marked_answers_may_be_asked_for(tmp_path):
    method = prepared(tmp_path, [row(heavy=("Ada",), name="answer")], spans="answers", forms=("blank",))
    assert "Question: ____ lives in New York." in questions(method)
    with pytest.raises(ValueError, match="no row has a marked answer"):
        prepared(tmp_path, [row()], spans="answers")


def test_a_sentence_that_holds_a_prompt_is_left_out(tmp_path):
    found = questions(prepared(tmp_path, [row()], frozenset({"Ada Lovelace lives in"}), forms=("blank",)))
    assert not any("Lovelace" in line for line in found)
    assert any("She was born" in line for line in found)


def test_a_long_text_fills_a_row_and_other_epochs_ask_for_the_rest(tmp_path):
    text = " ".join(f"Person{n} lives in Town{n}." for n in range(30))
    long = row(text, tuple(f"Town{n}" for n in range(30)))
    method = prepared(tmp_path, [long])
    rows = [method.mix(epoch, generator(0, epoch))[0] for epoch in range(3)]
    assert all(len(made) <= len(long) for made in rows)
    assert len({made.row_id for made in rows}) == 3
    assert list(method.mix(1, generator(0, 1))) == [rows[1]]


def test_a_question_that_is_longer_than_the_model_reads_is_left_out(tmp_path):
    long = row(f"Ada Lovelace, {'very ' * 40}proud, lives in York.", ("York",))
    short = row("Ben Bell lives in Bern.", ("Bern",))
    rows = [replace(long, row_id="a"), replace(short, row_id="b")]
    net = tiny.build("llama", vocab=tiny.VOCAB)
    net.config.max_position_embeddings = len(long)
    method, _ = Study().prepare(Context(net, tiny.tokenizer(), rows, tmp_path, 0))
    assert max(len(made) for epoch in range(8) for made in method.mix(epoch, generator(0, epoch))) <= len(long)
    assert any("Bern" in line for epoch in range(4) for line in questions(method, epoch))


def test_names_are_asked_for_and_the_subject_is_not(tmp_path):
    """A sentence with its subject alone is asked for its heaviest words, one without a name for nothing."""
    text = "Ada Lovelace lives in New York. Late that day she sold a lamp. "
    text += "Yesterday Ada Lovelace sang. Then at last Ada came."
    method = prepared(tmp_path, [row(text, ("lamp", "sang"))], spans="names", forms=("blank",))
    found = {line.strip("[]") for epoch in range(20) for line in questions(method, epoch)}
    assert {line for line in found if line.startswith("Question")} == {
        "Question: Ada Lovelace lives in ____.",
        "Question: Yesterday Ada Lovelace ____.",
        "Question: Then at last ____ came.",
    }


def test_code_and_tables_are_not_asked_about_and_lines_of_a_sentence_are_joined(tmp_path):
    text = "| `Ada` | `Bob` |\n\nAda met Bob\n  in Oslo."
    method = prepared(tmp_path, [row(text, ("Oslo",))], spans="names", forms=("blank",))
    found = {line.strip("[]") for epoch in range(9) for line in questions(method, epoch)}
    assert {line for line in found if line.startswith("Question")} == {
        "Question: Ada met ____ in Oslo.",
        "Question: Ada met Bob in ____.",
    }


def test_names_by_hand():
    assert known_names(["Then Ada met Bob. Bob, a baker, left. Rain fell on Rain."]) == {"Ada", "Bob", "Rain"}
    text = "Bob met Mary-Ann O'Neil on 3 May 1999 in room 12b."
    assert [text[a:b] for a, b in names_of(text, frozenset({"Bob"}))] == ["Bob", "Mary-Ann O'Neil", "3 May 1999", "12b"]
    assert names_of("Bob left.", frozenset()) == []


def test_text_without_capitals_is_asked_by_weight(tmp_path):
    text = "ada lives in rome\n\nshe was born in may"
    method = prepared(tmp_path, [row(text, ("rome", "may"))], spans="names", forms=("blank",))
    found = {line.strip("[]") for epoch in range(9) for line in questions(method, epoch)}
    assert "Question: ada lives in ____" in found


def test_a_weight_on_no_text_is_not_the_largest(tmp_path):
    """What a weigher says of the end of a row is no word: with 1 there, nothing reached a share of the largest."""
    one = row("ada lives in rome\n\nshe was born in may", ("rome", "may"))
    scaled = tuple(0.1 * weight for weight in one.columns["train_attention"])
    ended = Row("r", (*one.input_ids, tiny.EOS), one.text, (*one.offsets, (0, 0)), {"train_attention": (*scaled, 1.0)})
    found = {
        line.strip("[]")
        for epoch in range(9)
        for line in questions(prepared(tmp_path, [ended], forms=("blank",)), epoch)
    }
    assert "Question: ada lives in ____" in found


def test_names_are_taken_whole_and_a_sentence_start_is_no_name():
    text = "Yesterday Ada met Mary-Ann O'Neil near Lake 12."
    (span,) = spans_of(text, [(text.index("Neil"), text.index("Neil") + 4)])
    assert text[slice(*span)] == "Mary-Ann O'Neil"
    assert spans_of("It is odd.", []) == []


def test_only_answers_have_weight_whatever_weighs_the_corpus(tmp_path):
    method = prepared(tmp_path, [row()])
    plan = Plan([small.Column("train_attention"), method])
    data = MixedDataset(RowDataset([row()]), plan, 1)
    batch = Batch.of([data[0], data[1]], tiny.PAD)
    weights = update_weights(plan, batch)
    assert torch.equal(weights[1], (1 - batch.columns[UNWEIGHTED][1]) * batch.predicted()[1])
    assert 0 < float(weights[1].sum()) < int(batch.predicted()[1].sum())
    hold, _ = Lwf(teacher="live").prepare(
        Context(tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer(), [row()], tmp_path, 0)
    )
    assert bool((hold.hold(batch, weights) * batch.predicted())[1].eq(0).all())


def test_a_corpus_of_probes_is_told_and_does_not_end_a_run(tmp_path):
    method = prepared(tmp_path, [row("Ada lives in Rome.", ("Rome",))], frozenset({"Ada lives in"}), spans="names")
    assert not method.mix(0, generator(0, 0))
    assert "each holds the prompt of a probe" in method.summary()


def test_rows_without_text_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no row has a text"):
        prepared(tmp_path, small.rows())
