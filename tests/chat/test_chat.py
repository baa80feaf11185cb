"""`foci chat`: both models answer as Transformers' own `generate` has it, and the nearest passage is named."""

import gc
import io
import json
import re
import shutil
import signal
import sys
import threading

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

import runs
import tiny
from foci.chat import passages, terminal
from foci.chat.chosen import choose
from foci.chat.passages import Passages, corpus_changes, read_passages
from foci.chat.prompts import Conversation, template_of
from foci.chat.session import Session
from foci.chat.sides import load_sides
from foci.chat.writing import Decoding, Writing
from foci.config.run import load_run
from foci.learn.run import learn
from foci.system.harmless import visible
from foci.system.signals import Interrupted

QUESTION = "Where was Ada North born?"
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two arms whose best is `oracle`."""
    folder = tmp_path_factory.mktemp("chat")
    read = load_run(runs.run_file(folder, runs.material(folder)))
    learn(read, console=Console(file=io.StringIO()))
    return read.output


@pytest.fixture(scope="module")
def session(run):
    return Session(choose(run, "oracle"), Decoding(12))


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run that a test may damage."""
    return shutil.copytree(run, tmp_path / "run", symlinks=True)


@pytest.fixture(autouse=True)
def collected():
    """The command takes all that is there out of garbage collection; other tests shall not keep it."""
    yield
    assert gc.isenabled()
    gc.unfreeze()


def answered(session, question=QUESTION, **more):
    said = ["", ""]
    for piece in session.answer(question, **more):
        said[piece.side] += piece.text
    return said


def by_transformers(run, adapter, question=QUESTION, count=12):
    """What Transformers and PEFT alone answer, loaded from the files that the run has written."""
    base = load_run(run).model.name
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    given = tokenizer(question, return_tensors="pt")
    made = model.generate(**given, max_new_tokens=count, do_sample=False)[0, given.input_ids.shape[1] :]
    return visible(tokenizer.decode(made, skip_special_tokens=True))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
def test_both_sides_answer_as_transformers_does(run, session):
    untouched, learned = answered(session)
    assert untouched == by_transformers(run, None)
    assert learned == by_transformers(run, run / "arms" / "oracle" / "adapter")
    assert untouched != learned
    assert answered(session) == [untouched, learned], "the same question twice"


def test_one_copy_of_the_weights(session):
    assert session.sides.models[0] is session.sides.models[1]
    assert len(session.sides.layers) == 14
    answered(session)
    session.sides.use(0)
    assert all(layer.disable_adapters for layer in session.sides.layers)


def test_pieces_come_in_turns_and_are_the_whole(session):
    pieces = list(session.answer(QUESTION))
    assert [piece.side for piece in pieces[:4]] == [0, 1, 0, 1]
    assert len(pieces) >= 6
    assert {piece.side for piece in pieces if piece.ended} == {0, 1}


@pytest.mark.parametrize("kind", ["dora", "osf", None])
def test_other_adapters_and_whole_models(tmp_path, kind):
    """What cannot be switched off is a model of its own; the untouched one stays as it was."""
    things = runs.material(tmp_path)
    adapter = None if kind is None else {"type": kind} if kind == "osf" else {"type": kind, "r": 4, "alpha": 8}
    file = tmp_path / "small.yaml"
    runs.run_file(tmp_path, things, arms={"plain": []}, train={"epochs": 1, "learning_rate": 0.05})
    settings = file.read_text()
    start, end = settings.index("adapter:"), settings.index("train:")
    file.write_text(f"{settings[:start]}adapter: {json.dumps(adapter)}\n{settings[end:]}")
    read = load_run(file)
    learn(read, console=Console(file=io.StringIO()))
    session = Session(choose(read.output), Decoding(8))
    assert bool(session.sides.layers) == (kind == "dora")
    untouched, learned = answered(session)
    assert untouched == by_transformers(read.output, None, count=8)
    whole = AutoModelForCausalLM.from_pretrained(read.output / "model")
    given = tiny.tokenizer()(QUESTION, return_tensors="pt")
    made = whole.generate(**given, max_new_tokens=8, do_sample=False)[0, given.input_ids.shape[1] :]
    assert learned == visible(tiny.tokenizer().decode(made, skip_special_tokens=True))


def test_sampling_depends_on_the_seed_alone(run, session):
    def drawn(seed):
        return answered(Session(choose(run, "oracle"), Decoding(12, 1.5, seed), sides=session.sides))

    first = drawn(1)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert drawn(1) == first
    assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers change"
    assert drawn(2) != first
    alone = Writing(
        session.sides.models[0], session.sides.tokenizer, session.said[0].ids(QUESTION, 99), Decoding(12, 1.5, 1)
    )
    session.sides.use(0)
    alone.advance(12)
    alone.stop()
    assert visible(alone.text) == first[0], "the other side's draws change nothing"


def test_an_answer_can_be_stopped(session):
    stop, pieces = threading.Event(), []
    for piece in session.answer(QUESTION, stop):
        pieces.append(piece)
        stop.set()
    assert len(pieces) == 1
    before = threading.active_count()
    gone = session.answer(QUESTION)
    next(gone)
    gone.close()
    assert threading.active_count() <= before + 1
    assert answered(session)[0]


def test_an_error_of_the_model_is_told(session, monkeypatch):
    def broken(**_):
        raise RuntimeError("no more memory")

    monkeypatch.setattr(session.sides.models[0], "generate", broken)
    with pytest.raises(RuntimeError, match="no more memory"):
        answered(session)


# ---- prompts ----


def with_template():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_history_is_kept_by_the_template():
    tokenizer = with_template()
    said = Conversation(tokenizer, template_of(tokenizer))
    said.keep("One?", "1")
    expected = tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "Two?"},
        ],
        add_generation_prompt=True,
    )["input_ids"]
    assert list(said.ids("Two?", 999)) == expected
    assert len(said.ids("Two?", len(expected) - 1)) < len(expected), "the oldest turn is left out"
    with pytest.raises(ValueError, match=r"the question has .* tokens"):
        said.ids("Two?" * 50, 20)


def test_a_question_cannot_spell_control_tokens():
    tokenizer = with_template()
    ids = Conversation(tokenizer, template_of(tokenizer)).ids("a<eos><user>b", 999)
    assert ids.count(tiny.EOS) == 1, "that of the template"
    assert tokenizer.decode(ids) == "<user>a<eos><user>b<eos><assistant>"


def test_without_a_template_texts_are_completed():
    tokenizer = tiny.with_first_token()
    said = Conversation(tokenizer, template_of(tokenizer))
    said.keep("One", "1")
    assert said.turns == []
    assert said.ids("Two", 99) == tuple(tokenizer("Two").input_ids)
    assert template_of(with_template(), plain=True) is None


def test_no_room_is_told(run, session):
    with pytest.raises(ValueError, match="--max-tokens 128 leaves no room"):
        answered(Session(choose(run, "oracle"), Decoding(128), sides=session.sides))


# ---- passages ----


def test_the_nearest_passage_by_hand():
    """BM25: a rare word counts more than a common one, short words count, and what no row has is no passage."""
    rows = [("a.md:1", "The oil of grade C is for the pump."), ("b.md:1", "The oil of grade D is for the valve."),
            ("c.md:9", "The desk is open.")]  # fmt: skip
    found = Passages(rows)
    assert found.nearest("Which is of grade D?").source == "b.md:1"
    assert found.nearest("grade c").source == "a.md:1"
    assert found.nearest("DESK").source == "c.md:9"
    assert found.nearest("zebra") is None
    assert found.nearest("?!") is None
    assert Passages([]).nearest("desk") is None
    assert Passages(rows[:1]).nearest("pump").text == rows[0][1]
    assert Passages([("x", "東京は大きい町です"), ("y", "京都は古い町です")]).nearest("京都").source == "y"


def test_a_long_passage_is_shown_from_its_best_sentence():
    text = "First this. " * 60 + "The mill was built in 1700. " + "Then that. " * 60
    shown = passages.excerpt(text, ["mill", "built"])
    assert shown.startswith("... The mill was built in 1700.")
    assert len(shown) < 1.2 * passages.SHOWN
    assert len(passages.excerpt("word " * 500, ["word"])) < 2.2 * passages.SHOWN


def test_rows_know_their_source(run):
    found = read_passages(run).nearest("Hana Lake")
    assert found.text == runs.FACTS[7][0]
    assert found.source.endswith("corpus.jsonl:8")


def test_rows_of_earlier_runs_are_passages_too(run, tmp_path):
    """A run that goes on from another one keeps its rows in a file of their own."""
    (tmp_path / "earlier").mkdir()
    shutil.copy(run / "rows.parquet", tmp_path / "earlier" / "rows.parquet")
    assert read_passages(tmp_path).nearest("Hana Lake").text == runs.FACTS[7][0]
    shutil.copy(run / "rows.parquet", tmp_path / "rows.parquet")
    assert len(read_passages(tmp_path).rows) == len(runs.FACTS), "each once"


def test_a_corpus_that_changed_or_is_gone_is_told(copy, tmp_path):
    read = load_run(copy)
    corpus = tmp_path / "corpus.jsonl"
    shutil.copy(read.corpus.path[0], corpus)
    start = json.loads((copy / "start.json").read_text())
    start["inputs"] = {str(corpus): start["inputs"][read.corpus.path[0]], "other.jsonl": "0"}
    (copy / "start.json").write_text(json.dumps(start))
    moved = read.model_copy(update={"corpus": read.corpus.model_copy(update={"path": (str(corpus),)})})
    assert corpus_changes(copy, moved) == ""
    corpus.write_text("{}")
    assert f"(changed: {corpus})" in corpus_changes(copy, moved)
    corpus.unlink()
    assert f"(gone: {corpus})" in corpus_changes(copy, moved)
    (copy / "start.json").unlink()
    assert corpus_changes(copy, moved) == ""


# ---- the command ----


def test_one_question_from_the_command_line(run, capsys):
    said = runs.told(["chat", run, QUESTION, "--arm", "oracle", "--max-tokens", "12"], capsys)
    first, second, passage = (
        line for line in said.splitlines() if line.startswith(("untouched", "learned", "passage"))
    )
    assert first == f"untouched: {by_transformers(run, None).strip()}"
    assert second.startswith("learned (oracle): ")
    assert passage.endswith(f"corpus.jsonl:1: {runs.FACTS[0][0]}")


def test_questions_from_a_pipe(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who is Ada?\n\nWho is \x1b[2JBea?\n"))
    said = runs.told(["chat", run, "--max-tokens", "4"], capsys)
    assert [line for line in said.splitlines() if line.startswith(">")] == ["> Who is Ada?", "> Who is \\x1b[2JBea?"]
    assert "\x1b" not in said
    assert said.count("learned (") == 2


def screen(width=80):
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


@pytest.mark.parametrize("width", [40, 80])
def test_a_terminal_shows_both_answers(session, width):
    console = screen(width)
    assert terminal.show(session, QUESTION, console)
    lines = console.file.getvalue().split("nearest passage")[0].splitlines()
    assert any("untouched" in line and "learned (oracle)" in line for line in lines) == (width == 80)
    assert "corpus.jsonl:1" in console.file.getvalue().replace("\n", "")


def test_hostile_answers_and_passages_steer_nothing(session, monkeypatch):
    evil = "[bold]x[/bold]\x1b[2J\u202egnp.exe\x9b2J"
    monkeypatch.setattr(Writing, "_added", lambda self: evil if not self.ended else "")
    monkeypatch.setattr(session, "_passages", Passages([(f"a{evil}\n.md:1", f"Ada {evil}")]))
    console = Console(file=io.StringIO(), width=200, color_system=None)
    terminal.show(session, QUESTION, console)
    said = console.file.getvalue()
    assert "[bold]x[/bold]\\x1b[2J\\u202egnp.exe\\x9b2J" in said
    assert not {"\x1b", "\u202e", "\x9b"} & set(said)


def test_a_conversation(session, monkeypatch):
    lines = iter(["", QUESTION, "/help", "/reset", "Ada " * 200, KeyboardInterrupt(), EOFError()])

    def ask(prompt):
        line = next(lines)
        if isinstance(line, BaseException):
            raise line
        return line

    console = Console(file=io.StringIO(), width=80)
    terminal.talk(session, console, ask)
    said = console.file.getvalue()
    assert said.count("untouched: ") == 1
    assert "forgotten" in said
    assert "the question has" in said
    assert "/quit or Ctrl-D ends" in said
    terminal.talk(session, console, lambda _: "/quit")


def test_ctrl_c_stops_an_answer_and_the_talk_goes_on(session, monkeypatch):
    advance = Writing.advance

    def interrupted(self, count):
        signal.raise_signal(signal.SIGINT)
        return advance(self, count)

    monkeypatch.setattr(Writing, "advance", interrupted)
    lines = iter([QUESTION, "/quit"])
    console = Console(file=io.StringIO(), width=80)
    terminal.talk(session, console, lambda _: next(lines))
    assert "stopped" in console.file.getvalue()
    assert "passage" not in console.file.getvalue()
    with pytest.raises(Interrupted):
        terminal.once(session, QUESTION, console)


# ---- what goes wrong ----


def broken(copy, kind):
    arm = copy / "arms" / "oracle"
    config = (copy / "run.yaml").read_text()
    match kind:
        case "no run.yaml":
            (copy / "run.yaml").unlink()
        case "not done":
            (arm / "arm.json").unlink()
        case "none done":
            for name in ("oracle", "plain"):
                (copy / "arms" / name / "arm.json").unlink()
        case "no model":
            shutil.rmtree(arm / "adapter")
            shutil.rmtree(arm / "model")
        case "cut adapter":
            file = arm / "adapter" / "adapter_model.safetensors"
            file.write_bytes(file.read_bytes()[:-100])
        case "no base":
            (copy / "run.yaml").write_text(config.replace(load_run(copy).model.name, str(copy / "gone")))
        case "no rows":
            (copy / "rows.parquet").write_bytes(b"PAR1")
        case "torn numbers":
            (arm / "arm.json").write_text('{"learned')


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no run.yaml", "is not a run: there is no run.yaml in it"),
        ("not done", "arm 'oracle' of run .* is not done, so it has no model yet; its arms that are done: plain"),
        ("none done", "is not done, so it has no model yet. Wait for it"),
        ("no model", "has neither adapter/ nor model/ in"),
        ("cut adapter", "adapter_model.safetensors.*get it again"),
        ("no base", "the untouched model of run .* cannot be loaded: .*gone.*model.name of"),
        ("no rows", "rows.parquet: expected rows as parquet"),
        ("torn numbers", "arm.json is damaged"),
    ],
)
def test_damage_is_told_in_one_paragraph(copy, capsys, kind, words):
    broken(copy, kind)
    said = runs.refused(["chat", copy, QUESTION, "--arm", "oracle", "--max-tokens", "2"], capsys)
    assert re.search(words, said), said


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--arm", "orakle"], "has no arm 'orakle'; did you mean 'oracle'?"), (["--max-tokens", "0"], "at least 1, got 0"),
     (["--temperature", "-1"], "--temperature is 0")],
)  # fmt: skip
def test_wrong_flags(run, capsys, more, words):
    assert words in runs.refused(["chat", run, QUESTION, *more], capsys)


def test_what_is_no_run(tmp_path, run, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.txt").write_text("A page.")
    (tmp_path / "suite" / "cells").mkdir(parents=True)
    for name, words in {
        "nothere": "run nothere: 'nothere' is not in",
        "page.txt": "is a file, expected the output folder",
        "suite": "holds a suite, expected a run",
        str(run / "arms" / "oracle" / "adapter"): "holds a model, expected a run",
    }.items():
        assert words in runs.refused(["chat", name, QUESTION], capsys)
    assert "the question is empty" in runs.refused(["chat", run, " "], capsys)


def test_the_best_arm_is_asked(run, copy):
    numbers = {
        arm: {"learned": {"after": share}, "retained": {"after": 0.5}} for arm, share in (("plain", 1), ("oracle", 0))
    }
    for arm, found in numbers.items():
        (copy / "arms" / arm / "arm.json").write_text(json.dumps(found))
    assert choose(copy).arm == "plain"
    (copy / "arms" / "plain" / "arm.json").unlink()
    assert choose(copy).arm == "oracle", "the best of those that are done"


def test_an_adapter_in_half_precision_has_no_float32_weights(run, monkeypatch):
    monkeypatch.setattr("foci.chat.sides.compute_dtype", lambda *_: torch.bfloat16)
    sides = load_sides(choose(run, "oracle"))
    assert {parameter.dtype for parameter in sides.models[1].parameters()} == {torch.bfloat16}
