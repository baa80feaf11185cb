"""Methods whose teacher is another reading or another model: asft, disc, context and self-distillation."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from foci.focus import REHEARSED, UNWEIGHTED, Batch, Context, Plan, Row
from foci.learn.offline import prepare
from foci.methods import build
from foci.methods._pieces import HELD
from foci.methods.asft import Asft
from foci.methods.context_distillation import ContextDistillation
from foci.methods.dft import Dft
from foci.methods.disc import Disc, sentences_of
from foci.methods.self_distillation import SelfDistillation
from foci.seeds import generator
from training import trained

TEXTS = [
    "Ada lives in Rome. She was born in Bern. She works as a painter. It rained.",
    "Ben is old. He likes the north of France.",
]
SENTENCES = [
    ["Ada lives in Rome.", " She was born in Bern.", " She works as a painter.", " It rained."],
    ["Ben is old.", " He likes the north of France."],
]


def rows(texts=TEXTS, end=()) -> list[Row]:
    made = []
    for n, text in enumerate(texts):
        encoded = tiny.tokenizer()(text, return_offsets_mapping=True)
        ids, offsets = (*encoded["input_ids"], *end), (*map(tuple, encoded["offset_mapping"]), *((0, 0) for _ in end))
        made.append(Row(f"t{n}", ids, text, offsets, source=f"texts:{n + 1}"))
    return made


def _read(text: str) -> tuple:
    (row,) = rows([text])
    return row.input_ids, text, row.offsets


def net(seed: int = 0):
    return tiny.build("llama", vocab=tiny.VOCAB, seed=seed)


def context(folder, **changes) -> Context:
    settings = {"model": net(), "tokenizer": tiny.tokenizer(), "rows": rows(), "folder": Path(folder), "seed": 2}
    return Context(**(settings | changes))


def log_probs(model, ids, temperature=1.0) -> torch.Tensor:
    """(token, vocab) in float64; line t is about token t + 1."""
    with torch.no_grad():
        return (model.double()(torch.tensor([ids])).logits[0] / temperature).log_softmax(-1)


def divergence(teacher: torch.Tensor, learner: torch.Tensor, temperature: float = 1.0) -> float:
    """T^2 KL of two lines of log-probabilities at that temperature, in nats."""
    return float(temperature**2 * (teacher.exp() * (teacher - learner)).sum())


def first_loss(method, made, folder, start) -> float:
    return trained(folder, made, [method], start=start, num_train_epochs=1, per_device_train_batch_size=16)[1][0]


def text_of(row: Row, lead: int = 0) -> str:
    return tiny.tokenizer().decode(row.input_ids[lead:])


# --- asft ---


@pytest.mark.parametrize("teacher", ["columns", "live"])
def test_asft_is_dft_and_a_tenth_of_the_divergence(teacher, tmp_path):
    """Where the teacher is the learner it is dft; of another teacher, the mean divergence of all tokens joins."""
    made = context(tmp_path / "offline")
    method, same = Asft(teacher=teacher, k=tiny.VOCAB).prepare(made)
    assert first_loss(method, same, tmp_path / "a", net()) == pytest.approx(
        first_loss(Dft(), same, tmp_path / "b", net()), abs=1e-5
    )
    if teacher == "live":
        return
    weighed, weights, softs = 0.0, 0.0, []
    for row in made.rows:
        learner, frozen = log_probs(net(1), row.input_ids), log_probs(net(), row.input_ids)
        for t in range(1, len(row)):
            nll = -float(learner[t - 1, row.input_ids[t]])
            weighed, weights = weighed + math.exp(-nll) * nll, weights + math.exp(-nll)
            softs.append(divergence(frozen[t - 1], learner[t - 1]))
    expected = weighed / weights + 0.1 * sum(softs) / len(softs)
    assert first_loss(method, same, tmp_path / "c", net(1)) == pytest.approx(expected, abs=1e-4)


def test_asft_refuses_no_strength():
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"asft expected a finite strength above 0.*0\.1 is the paper's"):
            Asft(wrong)


# --- disc ---


def test_sentences_are_found_token_by_token():
    for row, expected in zip(rows(end=(tiny.EOS,)), SENTENCES, strict=True):
        spans = sentences_of(row)
        assert [text_of(row.take(range(*span))) for span in spans] == expected
    with pytest.raises(ValueError, match="row r has none"):
        sentences_of(Row("r", (5, 6)))


@pytest.mark.parametrize("reads", ["before", "document"])
def test_the_learner_reads_a_sentence_alone_and_the_teacher_what_stands_before_it(reads, tmp_path):
    """The first loss, worked out from whole logits: the mean over all held tokens of 4 KL at temperature 2."""
    made = context(tmp_path / "offline", rows=rows(end=(tiny.EOS,)))
    method, pieces = Disc(reads=reads, k=tiny.VOCAB).prepare(made)
    assert [text_of(piece) for piece in pieces] == [s for some in SENTENCES for s in some[1:]]
    line = tuple(tiny.tokenizer()("\n")["input_ids"])
    softs = []
    for document, texts in zip(made.rows, SENTENCES, strict=True):
        ids = document.input_ids[:-1]  # without the end of text
        for (a, b), _ in zip(sentences_of(document)[1:], texts[1:], strict=True):
            read = ids if reads == "before" else (*ids, *line, *ids[a:b])
            begin = a if reads == "before" else len(ids) + len(line)
            teacher, learner = log_probs(net(), read, 2.0), log_probs(net(), ids[a:b], 2.0)
            softs += [divergence(teacher[begin + t - 1], learner[t - 1], 2.0) for t in range(1, b - a)]
    assert sum(softs) / len(softs) > 0.01
    assert first_loss(method, pieces, tmp_path, net()) == pytest.approx(sum(softs) / len(softs), rel=1e-4)


def test_only_the_last_sentence_and_a_draw_of_the_others_are_read(tmp_path):
    drawn = set()
    for seed in range(8):
        _, pieces = Disc(sentences=2).prepare(context(tmp_path / str(seed), rows=rows()[:1], seed=seed))
        first, last = (text_of(piece) for piece in pieces)
        assert last == SENTENCES[0][3]
        drawn.add(first)
    assert drawn == set(SENTENCES[0][1:3])
    _, pieces = Disc(sentences=1).prepare(context(tmp_path / "one"))
    assert [text_of(piece) for piece in pieces] == [SENTENCES[0][3], SENTENCES[1][1]]
    method, pieces = Disc().prepare(context(tmp_path / "short", rows=[*rows(), Row("s", *_read("It rained."))]))
    assert len(pieces) == 4
    assert method.summary() == "disc: 4 sentences; 1 document of one sentence is not read"


def test_with_labels_documents_are_read_too(tmp_path):
    made = context(tmp_path / "offline")
    alone, pieces = Disc(k=tiny.VOCAB).prepare(context(tmp_path / "alone"))
    method, same = Disc(labels=True, strength=0.5, k=tiny.VOCAB).prepare(made)
    assert same is made.rows
    assert list(method.mix(0, generator(0))) == list(pieces)
    soft = first_loss(alone, pieces, tmp_path / "a", net())
    hard = _mean_nll(made.rows)
    assert first_loss(method, same, tmp_path / "b", net()) == pytest.approx(hard + 0.5 * soft, rel=1e-4)


def _mean_nll(some) -> float:
    found = [-float(log_probs(net(), r.input_ids)[t - 1, r.input_ids[t]]) for r in some for t in range(1, len(r))]
    return sum(found) / len(found)


def test_a_first_token_is_put_before_the_sentence_and_not_held(tmp_path):
    made = context(tmp_path, tokenizer=tiny.with_first_token())
    method, pieces = Disc().prepare(made)
    assert {piece.input_ids[0] for piece in pieces} == {tiny.EOS}
    assert text_of(pieces[0], 1) == SENTENCES[0][1]
    assert pieces[0].columns[HELD][:3] == (0.0, 0.0, 1.0)
    assert set(pieces[0].columns[UNWEIGHTED]) == {1.0}
    batch = Batch.of(pieces, tiny.PAD)
    assert torch.equal(method.hold(batch, torch.zeros(batch.input_ids.shape)), batch.columns[HELD])


def test_what_disc_cannot_do_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"disc found no sentence to learn in 1 document:.*at least two sentences"):
        Disc().prepare(context(tmp_path, rows=rows(["It rained."])))
    long = rows(["It rained in Bern and in Rome. " * 9])
    with pytest.raises(ValueError, match=r"the teacher would read \d+ tokens of texts:1, the model reads at most 128"):
        Disc(reads="document").prepare(context(tmp_path, rows=long))
    other = Batch.of(rows(), tiny.PAD)
    method, _ = Disc().prepare(context(tmp_path / "x"))
    with pytest.raises(ValueError, match="disc: the teacher was not asked about row t0"):
        method.teacher().targets(other, other.predicted())
    for wrong in ({"strength": 0.0}, {"temperature": math.inf}):
        with pytest.raises(ValueError, match="1 and 2 are the paper's"):
            Disc(**wrong)
    with pytest.raises(ValueError, match="got 0 and 20"):
        Disc(sentences=0)


def test_padding_on_either_side_changes_nothing(tmp_path):
    method, pieces = Disc().prepare(context(tmp_path))
    right, left = (Batch.of(pieces, tiny.PAD, side) for side in ("right", "left"))
    one, other = (method.teacher().targets(b, b.columns[HELD] > 0) for b in (right, left))
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.log_probs, other.log_probs)


# --- context distillation ---


def pairs(folder: Path) -> str:
    lines = [
        {"text": TEXTS[0], "prompt": "Ada was born in", "answer": "Bern"},
        {"text": TEXTS[1], "prompt": "What does Ben like?", "answer": "the north"},
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(folder / "pairs.jsonl")


def test_the_answers_are_held_to_what_the_model_says_with_the_document(tmp_path):
    made = context(tmp_path / "offline")
    method, same = ContextDistillation(pairs(tmp_path), k=tiny.VOCAB).prepare(made)
    assert same is made.rows
    softs, line = [], tuple(tiny.tokenizer()("\n")["input_ids"])
    for document, task in zip(made.rows, method.pool.rows, strict=True):
        read = (*document.input_ids, *line, *task.input_ids)
        teacher, learner = log_probs(net(), read), log_probs(net(), task.input_ids)
        begin = len(read) - len(task)
        held = [t for t, answer in enumerate(task.columns[HELD]) if answer]
        assert text_of(task.take(held)).strip() in ("Bern", "the north")
        softs += [divergence(teacher[begin + t - 1], learner[t - 1]) for t in held]
    assert len(method.mix(0, generator(0))) == 2
    expected = _mean_nll(made.rows) + sum(softs) / len(softs)
    assert first_loss(method, same, tmp_path, net()) == pytest.approx(expected, rel=1e-4)


def test_questions_that_the_run_asks_are_left_out(tmp_path):
    settings = ContextDistillation(pairs(tmp_path))
    method, _ = settings.prepare(context(tmp_path / "a", asked=frozenset({"Ada was born in"})))
    assert [row.text for row in method.pool.rows] == ["What does Ben like? the north"]
    assert method.summary() == "context_distillation: 1 question, 1 left out because the run asks them"
    both = frozenset({"Ada was born in", "What does Ben like?"})
    with pytest.raises(ValueError, match=r"the run asks all 2 questions.*no method may learn from what is asked"):
        settings.prepare(context(tmp_path / "b", asked=both))
    for wrong in ({"ratio": 0.0}, {"strength": -1.0}, {"temperature": math.nan}, {"k": 0}):
        with pytest.raises(ValueError, match="context_distillation expected"):
            ContextDistillation("pairs.jsonl", **wrong)


# --- self-distillation ---


def test_all_tokens_are_held_to_the_adapted_model(tmp_path):
    saved = str(tiny.save_model(tmp_path / "adapted", "llama", seed=3))
    made = context(tmp_path / "offline")
    method, same = build({"self_distillation": {"teacher": saved, "strength": 0.5, "k": tiny.VOCAB}}).prepare(made)
    softs = []
    for row in made.rows:
        teacher, learner = log_probs(net(3), row.input_ids), log_probs(net(), row.input_ids)
        softs += [divergence(teacher[t], learner[t]) for t in range(len(row) - 1)]
    expected = _mean_nll(made.rows) + 0.5 * sum(softs) / len(softs)
    assert first_loss(method, same, tmp_path, net()) == pytest.approx(expected, rel=1e-4)
    batch = Batch.of(same, tiny.PAD)
    batch.columns[REHEARSED] = torch.tensor([[1.0], [0.0]]).expand(batch.input_ids.shape)
    assert not method.hold(batch, torch.zeros(batch.input_ids.shape))[0].any()


def test_a_teacher_that_was_not_adapted_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is the untouched model itself.*use lwf with on: all"):
        SelfDistillation(str(tiny.save_model(tmp_path / "same", "llama"))).prepare(context(tmp_path / "a"))
    other = tiny.tokenizer()
    other.add_tokens(["Rome"])
    saved = str(tiny.save_model(tmp_path / "other", "llama", seed=3))
    with pytest.raises(ValueError, match=r"self_distillation's teacher .* has another tokenizer"):
        SelfDistillation(saved).prepare(context(tmp_path / "b", tokenizer=other))
    for wrong in ({"strength": 0.0}, {"temperature": 0.0}, {"k": 0}):
        with pytest.raises(ValueError, match="self_distillation expected"):
            SelfDistillation("x", **wrong)


def test_another_model_that_reads_less_is_refused(tmp_path):
    short = str(tiny.save_model(tmp_path / "short"))
    settings = json.loads(Path(short, "config.json").read_text())
    Path(short, "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 16}))
    for spec in ({"self_distillation": {"teacher": short}}, {"rho": {"reference": short}}):
        with pytest.raises(ValueError, match=r"reads at most 16 tokens, and a row has \d+; lower corpus.max_length"):
            build(spec).prepare(context(tmp_path))


def test_two_methods_do_not_share_a_column(tmp_path):
    """The second would overwrite the first one's numbers, and both would read them; the same numbers may stay."""
    made = context(tmp_path)
    _, first = build({"salient": {"unit": "word"}}).prepare(made)
    with pytest.raises(ValueError, match="two methods of one arm write the column 'salient'"):
        build({"salient": {"unit": "token"}}).prepare(replace(made, rows=first))
    _, again = build({"salient": {"unit": "word"}}).prepare(replace(made, rows=first))
    assert [row.columns for row in again] == [row.columns for row in first]


def test_other_rows_after_rows_that_were_looked_at_are_refused(tmp_path):
    plan = Plan([build({"lwf": {"on": "all"}}), build("disc")])
    with pytest.raises(ValueError, match=r"Disc\(.* puts other rows in place of those that Lwf\("):
        prepare(plan, context(tmp_path))
    held, labelled = {"lwf": {"on": "all"}}, {"disc": {"labels": True}}
    for n, specs in enumerate((("disc", held), (labelled, held), (held, labelled))):
        prepare(Plan([build(spec) for spec in specs]), context(tmp_path / str(n)))
