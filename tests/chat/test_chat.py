"""`foci chat`: both models answer as Transformers' own `generate` has it, and the nearest passage is named."""

import gc
import io
import json
import re
import shutil
import signal
import sys
import threading
import unicodedata
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

import runs
import tiny
from foci import models
from foci.chat import passages, terminal
from foci.chat.adapted import Adapted
from foci.chat.passages import Passages, corpus_changes, read_passages
from foci.chat.prompts import Conversation, template_of
from foci.chat.session import Session
from foci.chat.sides import load_sides
from foci.chat.writing import Answer, Decoding, Drawn, Writing
from foci.config.run import dump_run, load_run
from foci.learn.chosen import choose
from foci.learn.inputs import files_read
from foci.learn.run import learn
from foci.learn.save import save
from foci.system.files import read_json
from foci.system.harmless import visible
from foci.system.inputs import noted
from foci.system.run_folder import RunFolder
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
    file = runs.run_file(
        folder, runs.material(folder), arms={"oracle": ["oracle"], "plain": []}, probes={"every": None},
        train={"checkpoint_every": None},
    )  # fmt: skip
    read = load_run(file)
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


def test_the_links_beside_the_run_file_are_the_arm_that_is_asked(run):
    """Though `plain` was trained last."""
    chosen = choose(run)
    assert chosen.arm == "oracle"
    assert (run / "adapter").resolve() == chosen.saved.resolve()
    assert (run / "model").resolve() == (run / "arms" / "oracle" / "model").resolve()


def test_one_copy_of_the_weights(session):
    assert session.sides.models[0] is session.sides.models[1]
    assert len(session.sides.layers) == 14
    assert session.sides.adapted is not None


@pytest.fixture
def in_turns(run):
    """A session whose models answer in turns, PEFT's layers switched on and off."""
    sides = load_sides(choose(run, "oracle"))
    for layer in sides.layers:
        layer.__dict__.pop("forward")
    return Session(choose(run, "oracle"), Decoding(12), sides=replace(sides, adapted=None))


def test_in_one_pass_as_in_turns(session, in_turns, monkeypatch):
    """The same answers, at half of the passes; a first question, and later ones with prompts of two lengths."""
    passes, forward = [], session.sides.models[0].forward
    monkeypatch.setattr(
        session.sides.models[0], "forward", lambda **x: passes.append(len(x["input_ids"])) or forward(**x)
    )
    for one in (session, in_turns):
        monkeypatch.setattr(one.sides.tokenizer, "chat_template", TEMPLATE)
    session, in_turns = (Session(one.chosen, one.decoding, sides=one.sides) for one in (session, in_turns))
    assert session.sides.answer_together([3, 4], 5), "padding is read as nothing"
    passes.clear()
    for question in (QUESTION, "Where was Bea Stone born?"):
        assert answered(session, question) == answered(in_turns, question)
    assert len({len(said.ids("Who?", 999)) for said in session.said}) == 2, "one prompt was padded"
    assert set(passes) == {2}
    assert len(passes) <= 24
    assert not in_turns.sides.answer_together([3, 3], 5)
    in_turns.sides.use(0)
    assert all(layer.disable_adapters for layer in in_turns.sides.layers)


def test_an_answer_that_ends_first_waits_for_the_other(session):
    """What a row's model says after its end is no part of its answer."""
    end = Writing(session.sides.models[0], session.sides.tokenizer, [(5, 6), (5, 6)], Decoding(6))
    end._ends, said = {10}, iter([[8, 10], [10, 3], [0, 4]])
    end._draw = lambda _: torch.tensor(next(said))[:, None]
    end.advance(99)
    assert [answer.tokens for answer in end.answers] == [[8, 10], [10]]
    assert end.ended
    assert end.advance(1) == ["", ""]


def test_layers_that_get_tokens_without_their_rows(run, monkeypatch):
    """As in a mixture of experts: the untouched model's tokens could not be told from the other's."""
    found = load_sides(choose(run, "oracle"))
    for layer in found.layers:
        layer.__dict__.pop("forward")
    part = found.models[0].model.layers[0].mlp
    forward = part.forward
    monkeypatch.setattr(part, "forward", lambda x: forward(x.flatten(0, 1)).view_as(x))
    assert Adapted.of(found.models[0], found.layers) is None
    assert all("forward" not in layer.__dict__ for layer in found.layers)
    monkeypatch.undo()
    assert Adapted.of(found.models[0], found.layers[:0]) is None
    assert Adapted.of(found.models[0], found.layers) is not None


def test_drawn_in_proportion_to_the_probabilities():
    drawn = Drawn(Decoding(1, temperature=2.0, seed=3), torch.device("cpu"))
    scores = torch.tensor([[0.0, 2.0], [4.0, 0.0]])
    share = torch.cat([drawn(scores) for _ in range(4000)], dim=1).double().mean(1)
    for row, probability in enumerate((torch.tensor(1.0).sigmoid(), torch.tensor(-2.0).sigmoid())):
        assert abs(float(share[row] - probability)) < 0.025


def test_pieces_come_in_turns_and_are_the_whole(session):
    pieces = list(session.answer(QUESTION))
    assert [piece.side for piece in pieces[:4]] == [0, 1, 0, 1]
    assert len(pieces) >= 6
    assert {piece.side for piece in pieces if piece.ended} == {0, 1}


def saved_run(folder, adapter):
    """A run as it is left, of which nothing was trained: random numbers were added to what would train."""
    file = runs.run_file(folder, runs.material(folder), arms={"plain": []})
    read = load_run(file, [f"adapter={json.dumps(adapter)}"])
    loaded = models.load(read.model.name, dtype="float32", device="cpu")
    model = loaded.model if read.adapter is None else models.add_adapter(loaded.model, read.adapter)
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.05 * torch.randn_like(weight)
    paths = RunFolder(read.output, 1)
    paths.path.mkdir()
    save(model, loaded.tokenizer, paths.arm("plain"), read.model)
    paths.config.write_text(dump_run(read))
    paths.arm("plain").result.write_text("{}")
    return read


@pytest.mark.parametrize("kind", ["dora", "osf", None])
def test_other_adapters_and_whole_models(tmp_path, kind):
    """What cannot be switched off is a model of its own; the untouched one stays as it was."""
    read = saved_run(tmp_path, {"dora": {"type": "dora", "r": 4, "alpha": 8}, "osf": {"type": "osf"}}.get(kind))
    session = Session(choose(read.output), Decoding(8))
    assert bool(session.sides.layers) == (kind == "dora")
    assert session.sides.adapted is None
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
        session.sides.models[0], session.sides.tokenizer, [session.said[0].ids(QUESTION, 99)], Decoding(12, 1.5, 1)
    )
    session.sides.use(0)
    (text,) = alone.advance(12)
    assert visible(text) == first[0], "the other side's draws change nothing"


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

    monkeypatch.setattr(session.sides.models[0], "forward", broken)
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
    shown = passages.excerpt(text, {"mill": 1, "built": 1})
    assert shown.startswith("... The mill was built in 1700.")
    assert len(shown) < 1.2 * passages.SHOWN
    assert len(passages.excerpt("word " * 500, {"word": 1})) < 2.2 * passages.SHOWN


def test_the_sentence_with_the_rare_word_is_shown_not_that_with_many_common_ones():
    town = "The old house of the mayor is in the middle of the town."
    rows = [("a.md", f"Ilse Varga became director in 2001. She came from Nes. {town}"), ("b.md", "The desk is open.")]
    assert Passages(rows).nearest("Who is the director?").shown.startswith("Ilse Varga became director")


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
    start = read_json(copy / "start.json")
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


@pytest.mark.parametrize("typed", ["texts", "texts/", "./texts", "."])
def test_a_folder_is_the_same_however_it_was_typed(copy, tmp_path, monkeypatch, typed):
    """`foci learn texts/` noted "texts/a.txt", and chat looked for "texts//"."""
    folder = tmp_path / "pages" / "texts"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    (folder / "a.txt").write_text("Ada lives in Bern.")
    run = load_run(copy)
    run = run.model_copy(update={"corpus": run.corpus.model_copy(update={"path": (typed,)})})
    start = {**read_json(copy / "start.json"), "inputs": noted(files_read(run))}
    (copy / "start.json").write_text(json.dumps(start))
    assert len(start["inputs"]) >= 2, "the file, and those of the probes"
    assert corpus_changes(copy, run) == ""
    (folder / "a.txt").write_text("Ada lives in Basel.")
    assert "(changed: texts/a.txt)" in corpus_changes(copy, run)
    (folder / "a.txt").rename(folder / "b.txt")
    assert "(new: texts/b.txt; gone: texts/a.txt)" in corpus_changes(copy, run)


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
    monkeypatch.setattr(Answer, "added", lambda self, tokenizer: evil if not self.ended else "")
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
        case "other adapter":
            shutil.copy(copy / "arms" / "plain" / "adapter" / "adapter_model.safetensors", arm / "adapter")
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
        ("other adapter", "adapter_model.safetensors are not those that the run wrote"),
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


@pytest.mark.parametrize("tokens", [1, 9])
def test_the_adapter_of_few_tokens_is_no_less_exact(run, tokens):
    """By hand in float64: the adapter of the second row alone, whether its tokens are few or many."""
    sides = load_sides(choose(run, "oracle"))
    layer = sides.layers[3]
    torch.manual_seed(2)
    x = torch.randn(2, tokens, layer.in_features)
    w, a, b = (p.weight.double() for p in (layer.base_layer, layer.lora_A["default"], layer.lora_B["default"]))
    exact = x.double() @ w.T
    exact[1] += layer.scaling["default"] * (x[1].double() @ a.T @ b.T)
    for who, row in ((0, None), (1, [0, 1]), (2, [1])):
        sides.use(who)
        got = layer(x).double()
        wanted = x.double() @ w.T
        if row is not None:
            wanted[row] += layer.scaling["default"] * (x[row].double() @ a.T @ b.T)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer(x).double(), exact, rtol=1e-5, atol=1e-5)


def test_all_is_computed_in_one_thread(session, monkeypatch):
    """A second thread that computes makes the threads of both sleep after each product: two thirds slower."""
    seen, forward = set(), session.sides.models[0].forward

    def noted(**given):
        seen.add(threading.get_ident())
        return forward(**given)

    monkeypatch.setattr(session.sides.models[0], "forward", noted)
    answered(session)
    assert seen == {threading.get_ident()}


def test_an_adapter_in_half_precision_has_no_float32_weights(run, monkeypatch):
    monkeypatch.setattr("foci.chat.sides.compute_dtype", lambda *_: torch.bfloat16)
    sides = load_sides(choose(run, "oracle"))
    assert {parameter.dtype for parameter in sides.models[1].parameters()} == {torch.bfloat16}


def test_marks_belong_to_their_letters():
    """A word is the same with its marks apart, as in file names of macOS and many PDFs; Hindi's vowels are marks."""
    apart = unicodedata.normalize("NFD", "Zürich Mühle")
    assert passages.words_of(apart) == passages.words_of("Zürich Mühle") == ["zürich", "mühle"]
    assert passages.words_of("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    found = Passages([("a", "Die Mühle steht in Zürich."), ("b", "Ada lives in Bern.")]).nearest(apart)
    assert found is not None
    assert found.source == "a"


def test_a_question_from_a_pipe_that_cannot_be_asked_is_told_and_the_next_one_is_answered(run, session, capsys):
    asked = ["one", "word " * 300, "three"]
    console = Console(file=io.StringIO(), width=100)
    with pytest.raises(ValueError, match="1 of 3 questions could not be asked"):
        terminal.piped(session, asked, console)
    said = console.file.getvalue()
    assert "the model has room for" in said
    assert said.count("oracle") == 2, "both others are answered"
    with pytest.raises(ValueError, match="no question came"):
        terminal.piped(session, ["", "  "], console)


def test_the_chat_template_of_the_run_is_kept_or_missed_aloud(copy, tmp_path):
    """A path of the run file is relative to where the run was begun."""
    file = tmp_path / "template.jinja"
    file.write_text(TEMPLATE)
    config = copy / "run.yaml"
    text = config.read_text().replace("chat_template: null", f"chat_template: {file}")
    config.write_text(text)
    assert load_sides(choose(copy, "oracle")).tokenizer.chat_template == TEMPLATE
    file.unlink()
    with pytest.raises(ValueError, match="which is not there"):
        load_sides(choose(copy, "oracle"))
    kept = AutoTokenizer.from_pretrained(copy / "arms" / "oracle" / "model")
    kept.chat_template = TEMPLATE
    kept.save_pretrained(copy / "arms" / "oracle" / "model")
    assert load_sides(choose(copy, "oracle")).tokenizer.chat_template == TEMPLATE


def test_a_part_of_a_run_names_the_run_and_the_arm(run, tmp_path):
    """What an error proposes works."""
    for part in (run / "arms" / "oracle" / "model", run / "arms" / "oracle"):
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(f"{run} --arm oracle")):
            choose(part, None)
    shutil.copytree(run / "arms" / "oracle" / "model", tmp_path / "alone")
    with pytest.raises((ValueError, FileNotFoundError), match="give the folder of the run that wrote it"):
        choose(tmp_path / "alone", None)
