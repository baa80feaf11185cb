"""The run file: every key, the traps of YAML, and errors that name the place and the cure."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from foci.config import strict_yaml
from foci.config.run import FOCUSED, Run, dump_run, fields, load_run
from foci.config.train import TrainConfig
from foci.errors import hint, shown, suggest

SPEC = """\
name: quickstart
output: out/quickstart
seed: 0
model: {name: smollm2-135m, dtype: auto, bits: null, on_disk: false, trust_remote_code: false}
corpus: {path: [a.jsonl, texts], max_length: 256, max_bad: 0.01, text_field: text, loss: answers, chat_template: null,
         control_words: false, held_out_share: 0.0}
probes: {learn: p.jsonl, retain: general, text: null, held_out: null, held_out_share: 0.0, corpus_text: true,
         every: 10, batch_size: 32}
adapter: {type: lora, r: 16, alpha: 32, dropout: 0.0, targets: all-linear}
train: {epochs: 4, steps: null, patience: null, least_steps: 60, batch_size: 16, batch_tokens: null, accumulation: 1,
        packing: false, learning_rate: 1e-3, schedule: linear, warmup: 0.0, weight_decay: 0.0, max_grad_norm: 1.0,
        checkpoint_every: 40, keep_checkpoints: 2, group_by_length: true, copies: 1, normalise: row, fsdp: false,
        report_to: []}
continues: {run: out/before, arm: plain, ratio: 2.0}
arms: {plain: [], oracle: [oracle], softer: [{oracle: {floor: 1e-1}}, oracle: ]}
"""
SHORT = "corpus: {path: notes.md}\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes x.yaml into the current directory and returns its relative path."""
    monkeypatch.chdir(tmp_path)

    def write(content: str | bytes) -> Path:
        path = Path("x.yaml")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


DEFAULT_ARMS = {"plain": (), "focused": FOCUSED}


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        load_run(path, overrides)
    assert not isinstance(caught.value, ValidationError)
    return str(caught.value)


def test_every_key_of_the_specification_is_read(write):
    run = load_run(write(SPEC))
    assert (run.name, run.output, run.seed) == ("quickstart", Path("out/quickstart"), 0)
    assert run.corpus.path == ("a.jsonl", "texts")
    assert (run.probes.learn, run.probes.retain, run.probes.text) == ("p.jsonl", "general", None)
    assert (run.adapter.alpha, run.train.learning_rate, run.train.normalise) == (32.0, 0.001, "row")
    assert run.arms == {"plain": (), "oracle": ("oracle",), "softer": ({"oracle": {"floor": 0.1}}, "oracle")}
    written = strict_yaml.parse(SPEC, "spec")[1]
    assert {".".join(place) for place in written if len(place) in (1, 2) and place[0] != "arms"} - {"corpus.path.0"} | {
        "arms"
    } == set(fields())


def test_defaults_are_those_of_the_specification(write):
    short, full = load_run(write(SHORT)), load_run(write(SPEC))
    assert (short.name, short.output) == ("notes", Path("out/notes"))
    assert short.arms == DEFAULT_ARMS
    assert (short.model, short.adapter) == (full.model, full.adapter)
    assert short.train == full.train.model_copy(update={"checkpoint_every": None, "normalise": "update"})
    assert (short.probes.learn, short.probes.retain, short.probes.text) == ("made", "general", "general")


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("adapter=null", "train.steps=7", "train.epochs=null"),
        ("adapter.targets=[q_proj, layers.0.mlp.up_proj]",),
        ("name='1e-3'", "output='yes'", "corpus.path='a: b #c'"),
        ("arms={'1': [x: {a: '010', b: [1, 2.5e-9], c: null, d: 'no'}]}",),
        ("name=Ünï\u2028 côde",),
    ],
)
def test_a_dumped_run_reads_back_the_same(write, overrides):
    run = load_run(write(SPEC), overrides)
    text = dump_run(run)
    assert load_run(write(text)) == run
    assert text.index("name:") < text.index("model:") < text.index("arms:")
    assert all(key.rpartition(".")[2] + ":" in text for key in fields() if run.adapter or "adapter." not in key)


def test_a_run_is_frozen(write):
    run = load_run(write(SHORT))
    with pytest.raises(ValidationError, match="frozen"):
        run.train.epochs = 3


def test_every_key_is_documented():
    assert not [key for key, info in fields().items() if len(info.description or "") < 10]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), ("-.5", -0.5), ("3.", 3.0), ("010", 10), ("0x10", 16), ("0o17", 15),
        ("+7", 7), ("yes", "yes"), ("off", "off"), ("True", True), ("~", None), ("", None), ("12:30", "12:30"),
        ("2026-11-22", "2026-11-22"), ("'1'", "1"), ('"null"', "null"), (".inf", float("inf")), ("1e", "1e"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    got = strict_yaml.parse(f"key: {text}", "f")[0]["key"]
    assert got == value
    assert type(got) is type(value)


def test_yaml_1_1_tools_read_a_dump_alike():
    value = {"a": ["yes", "12:30", "2026-11-22", "010", "1_0", "=", "<<", "~", "", 1, 0.5, None, True, []]}
    assert yaml.safe_load(strict_yaml.dump(value)) == value == strict_yaml.parse(strict_yaml.dump(value), "f")[0]


@pytest.mark.parametrize("text", ["a\x85b", "a\x85", "a\u2028b", "a\nb", "a: b\x85"])
def test_every_line_end_in_a_text_is_read_back(text):
    assert strict_yaml.parse(strict_yaml.dump({"a": text}), "f")[0] == {"a": text}


def test_a_list_that_occurs_twice_is_dumped_without_alias():
    twice = ["oracle"]
    assert strict_yaml.parse(strict_yaml.dump({"a": twice, "b": twice}), "f")[0] == {"a": twice, "b": twice}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.yaml: a run file is a mapping of keys to values, got nothing (null)"),
        ("# only a comment\n", "got nothing (null)"),
        ("- a\n", "x.yaml: a run file is a mapping of keys to values, got ['a']"),
        ("seed: 1\nname: x\nseed: 2\n", "x.yaml:3: key 'seed' stands twice (first on line 1)"),
        ("train: {copies: 1, copies: 2}\n", "x.yaml:1: key 'copies' stands twice"),
        ("train:\n\tepochs: 1\n", "x.yaml:2: YAML is indented with spaces, got a tab"),
        ("seed: 1\nname: [a\n", "x.yaml:3: not valid YAML"),
        ("seed: 1\n---\nseed: 2\n", "x.yaml:2: expected one document"),
        ("seed: 1\nname: &a [*a]\n", "x.yaml:2: this value holds an alias (*name) of itself; remove the alias"),
        ("name: {x: &a {<<: *a}}\n", "x.yaml:1: this value holds an alias (*name) of itself"),
        ("name: {x: {<<: &a {<<: *a}}}\n", "x.yaml:1: this value holds an alias (*name) of itself"),
        ("seed: 1\nname: *a\n", "x.yaml:2: the alias *a needs an anchor before it, got none; write &a"),
        ("seed: &a 1\nname: &a 2\n", "x.yaml:2: an anchor (&name) stands once in a file, got a second one"),
        (
            "seed: &a 1\ntrain:\n  <<: *a\n",
            "x.yaml:3: << takes a mapping (<<: *name) or a list of mappings, got '1'",
        ),
        ("a: {<<: [{b: 1}, [c]]}\n", "x.yaml:1: << takes a mapping (<<: *name) or a list of mappings, got a list"),
        ("a: {<<: {b: 1}, <<: {c: 1}}\n", "x.yaml:1: key '<<' stands twice (first on line 1)"),
        ("name: !!python/object/apply:os.getcwd []\n", "x.yaml:1: the tag"),
        ("[a]: 1\n", "x.yaml:1: a key should be text"),
        (b"seed: 1\nname: \xff\n", "x.yaml:2: expected UTF-8, got byte 0xff"),
        ("name: \x07\n", "is not allowed"),
        ("name: " + "[" * 3000, "nested too deep"),
    ],
)
def test_text_that_is_no_run_file_is_refused_with_its_line(write, content, message):
    assert message in refusal(write(content))


def test_a_byte_order_mark_is_no_part_of_the_first_key(write):
    assert load_run(write(b"\xef\xbb\xbf" + SHORT.encode())).name == "notes"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            SHORT + "train:\n  epochs: 1\n  learningrate: 1e-3\n",
            "x.yaml:4: unknown key 'train.learningrate'; did you mean 'train.learning_rate'?",
        ),
        (SHORT + "learning_rate: 1\n", "x.yaml:2: unknown key 'learning_rate'; did you mean 'train.learning_rate'?"),
        (SHORT + "train: {max_length: 1}\n", "did you mean 'corpus.max_length'?"),
        (SHORT + "zzz: 1\n", "unknown key 'zzz'; known: name, output, seed, model, corpus"),
        (SHORT + "'<<': {seed: 1}\n", "unknown key '<<'"),
        (SHORT + "train: &t\n  epochs: 2\nprobes:\n  <<: *t\n  every: 3\n", "x.yaml:3: unknown key 'probes.epochs'"),
        ("seed: 1\n", "x.yaml: 'corpus' is missing; it is: the text to learn, at least {path: FILE_OR_FOLDER}"),
        ("corpus: {max_length: 9}\n", "x.yaml:1: 'corpus.path' is missing"),
        ("corpus: a.txt\n", "x.yaml:1: 'corpus' expected a mapping (key: value), got 'a.txt'; write corpus: {path: "),
        ("corpus: {path: []}\n", "'corpus.path' expected at least one entry, got []"),
        ("corpus: {path: ''}\n", "expected text of at least one character"),
        ("corpus:\n  path:\n  - a\n  - 3\n", "x.yaml:4: 'corpus.path.1' expected text, got 3; put it in quotes: '3'"),
        (SHORT + "train:\n", "'train' expected a mapping (key: value), got nothing (null); leave the key out"),
        (SHORT + "name: 7\n", "x.yaml:2: 'name' expected text, got 7; put it in quotes: '7'"),
        (SHORT + "output:\n", "x.yaml:2: 'output' expected text, got nothing (null)"),
        (SHORT + "seed: -1\n", "'seed' expected a number of at least 0, got -1"),
        (SHORT + "train: {epochs: sixteen}\n", "'train.epochs' expected a whole number, got 'sixteen'"),
        (SHORT + "train: {epochs: 2.0}\n", "'train.epochs' expected a whole number, got 2.0"),
        (SHORT + "train: {epochs: true}\n", "'train.epochs' expected a whole number, got true"),
        (SHORT + "train: {learning_rate: 0}\n", "'train.learning_rate' expected a number above 0, got 0"),
        (SHORT + "train: {learning_rate: .nan}\n", "expected a finite number, got nan"),
        (SHORT + "train: {learning_rate: '1e-3'}\n", "'train.learning_rate' expected a number, got '1e-3'"),
        (SHORT + "train: {batch_size: 0}\n", "'train.batch_size' expected a number of at least 1, got 0"),
        (SHORT + "train: {warmup: 1}\n", "'train.warmup' expected a number below 1, got 1"),
        (SHORT + "train: {schedule: liner}\n", "got 'liner'; did you mean 'linear'?"),
        (SHORT + "train: {group_by_length: yes}\n", "expected true or false, got 'yes'"),
        (SHORT + "train: {epochs: 2, steps: 9}\n", "'train': exactly one of epochs and steps"),
        (SHORT + "train: {epochs: null}\n", "'train': exactly one of epochs and steps"),
        (SHORT + "adapter: {type: corda}\n", "'adapter.type': foci does not set up 'corda': it needs a pass over text"),
        (SHORT + "adapter: {type: dor}\n", "got 'dor'; did you mean 'dora'? For another adapter of PEFT, wrap"),
        (SHORT + "adapter: {type: k_adapter}\n", "x.yaml:2: 'adapter.type': the adapter type should be one of lora,"),
        (SHORT + "adapter: {type: [lora]}\n", "should be one of lora, rslora, dora, osf, got ['lora']; For another"),
        (SHORT + "train: {fsdp: true}\nadapter: {type: osf}\n", "types lora, rslora, dora, and models without"),
        (SHORT + "adapter: {type: osf, r: 8}\n", "'adapter': osf reads no settings (it trains half of the"),
        (SHORT + "adapter: {targets: attentoin}\n", "'adapter.targets': targets are all-linear, attention, mlp"),
        (SHORT + "adapter: {targets: attentoin}\n", "got 'attentoin'; did you mean 'attention'?"),
        (SHORT + "adapter: {targets: q_proj}\n", "got 'q_proj'; write layers as a list, such as [q_proj, v_proj]"),
        (SHORT + "adapter: {targets: []}\n", "a list of linear layers' names, got []"),
        (SHORT + "adapter: {width: 64}\n", "x.yaml:2: unknown key 'adapter.width'"),
        (SHORT + "adapter: {dropout: 1.0}\n", "'adapter.dropout' expected a number below 1, got 1.0"),
        ("corpus: {path: a, max_bad: 1.5}\n", "'corpus.max_bad' expected a number of at most 1, got 1.5"),
        (SHORT + "arms: {}\n", "'arms' expected at least one entry"),
        (SHORT + "arms: {a/b: []}\n", "'arms.a/b': an arm's name is a folder's name"),
        (SHORT + "arms: {..: []}\n", "an arm's name is a folder's name"),
        (SHORT + "arms: {a: oracle}\n", "'arms.a': an arm is a list of methods, got 'oracle'; write []"),
        (SHORT + "arms:\n  a:\n  - oracle\n  - {x: 1}\n", "x.yaml:5: 'arms.a.1': a method is its name or {name:"),
        (SHORT + "arms: {a: [{x: {}, y: {}}]}\n", "a method is its name or"),
        (SHORT + "arms: {a: [3]}\n", "a method is its name or"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_in_words(write, content, message):
    got = refusal(write(content))
    assert message in got
    assert "pydantic" not in got
    assert len(got.splitlines()) == 1


ALIASED = """\
base: &base {learning_rate: 3e-4, schedule: cosine, path: [a, b]}
own:
  schedule: linear
  <<: *base
several: {<<: [{schedule: constant, warmup: 1}, *base], steps: 9}
nested: &nested
  <<: *base
  steps: 9
again: *nested
list: [*base, &word text, *word]
"""


def test_aliases_and_merge_keys_are_read_as_pyyaml_reads_them():
    got, _ = strict_yaml.parse(ALIASED.replace("3e-4", "0.5"), "f")
    assert got == yaml.safe_load(ALIASED.replace("3e-4", "0.5"))
    assert got["own"] == {"learning_rate": 0.5, "schedule": "linear", "path": ["a", "b"]}
    assert list(got["own"]) == ["schedule", "learning_rate", "path"], "as they are written"
    assert list(got["again"]) == ["learning_rate", "schedule", "path", "steps"]
    assert got["several"] == {"learning_rate": 0.5, "schedule": "constant", "path": ["a", "b"], "warmup": 1, "steps": 9}
    assert got["again"] == got["nested"]
    got["again"]["path"].append("c")
    assert got["nested"]["path"] == got["list"][0]["path"] == ["a", "b"], "each alias is a value of its own"
    assert strict_yaml.parse("a: {'<<': {b: 1}}", "f")[0] == {"a": {"<<": {"b": 1}}}


def test_lines_behind_an_alias_are_those_where_a_value_was_written():
    lines = strict_yaml.parse(ALIASED, "f")[1]
    assert [lines[place,] for place in ("base", "own", "several", "nested", "again", "list")] == [1, 2, 5, 6, 9, 10]
    assert lines["own", "schedule"] == 3
    assert lines["own", "path"] == lines["own", "path", 1] == lines["again", "path"] == 1
    assert (lines["several", "schedule"], lines["several", "learning_rate"], lines["again", "steps"]) == (5, 1, 8)


def test_an_error_in_an_aliased_value_names_the_lines_of_both_keys(write):
    got = refusal(write(SHORT + "train:\n  epochs: &n two\n  copies: *n\n"))
    assert [re.match(r"x.yaml:(\d): '(.*?)'", line).groups() for line in got.splitlines()] == [
        ("3", "train.epochs"),
        ("4", "train.copies"),
    ]


def test_errors_behind_an_alias_keep_the_order_of_the_lines(write):
    got = refusal(write(SHORT + "train: &t {epochs: two}\nseed: -1\nprobes: *t\nname: 3\n"))
    assert [re.match(r"x.yaml:(\d): .*?'(.*?)'", line).groups() for line in got.splitlines()] == [
        ("2", "probes.epochs"),
        ("2", "train.epochs"),
        ("3", "seed"),
        ("5", "name"),
    ]


def bomb(first: str, level: str) -> str:
    """Nine levels, each with ten aliases of the one before: a billion values in a few hundred characters."""
    lines = [f"l0: &l0 {first}"]
    lines += [f"l{n}: &l{n} {level.format(', '.join([f'*l{n - 1}'] * 10))}" for n in range(1, 10)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "content",
    [bomb("[]", "[{}]"), bomb("{a: lol}", "{{a: [{}]}}"), f"a: &a '{'x' * 150_000}'\nb: [*a, *a]\n"],
)
def test_aliases_that_make_a_short_file_large_are_refused(content, monkeypatch):
    if len(content) < 1000:
        monkeypatch.setattr(strict_yaml, "MOST_COPIED", 1000)
    with pytest.raises(
        ValueError, match=r"f:\d+: aliases \(\*name\) may repeat (1|100),000 values and characters in all"
    ):
        strict_yaml.parse(content, "f")


def test_a_tower_of_merge_keys_is_read_without_growing():
    assert strict_yaml.parse(bomb("{a: 1}", "{{<<: [{}]}}"), "f")[0]["l9"] == {"a": 1}


def test_a_large_file_without_aliases_is_read():
    assert len(strict_yaml.parse(f"a: '{'x' * 300_000}'", "f")[0]["a"]) == 300_000


def test_one_message_lists_all_errors_in_the_order_of_the_file(write):
    got = refusal(write("sede: 1\n" + SHORT + "train: {copies: 0}\nname: 3\n"))
    assert [re.match(r"x.yaml:(\d)", line)[1] for line in got.splitlines()] == ["1", "3", "4"]


def test_steps_replace_the_default_epochs():
    assert (TrainConfig(steps=5).epochs, TrainConfig().epochs) == (None, 4)


def test_a_length_that_is_named_is_kept():
    assert TrainConfig().least_steps == 60
    assert [TrainConfig(**one).least_steps for one in ({"steps": 5}, {"epochs": 2}, {"patience": 1})] == [0, 0, 0]
    assert TrainConfig(epochs=2, least_steps=7).least_steps == 7
    again = TrainConfig(**TrainConfig().model_dump())
    assert (again.epochs, again.least_steps) == (4, 60)


def test_overrides_win_and_are_parsed_as_yaml(write):
    path = write(SPEC)
    run = load_run(path, ["train.epochs=2", "train.learning_rate = 5e-4", "arms.plain=[oracle]", "arms.v1.2=[]"])
    assert (run.train.epochs, run.train.learning_rate, run.train.batch_size) == (2, 5e-4, 16)
    assert run.arms["plain"] == ("oracle",)
    assert run.arms["v1.2"] == ()
    assert load_run(path, ["probes.learn=null"]).probes.learn is None
    assert load_run(path, ["seed=1", "seed=2"]).seed == 2


def test_overrides_reach_sections_the_file_leaves_out(write):
    run = load_run(write(SHORT), ["arms.o=[oracle]", "adapter.r=4", "output=x=y"])
    assert run.arms == {**DEFAULT_ARMS, "o": ("oracle",)}
    assert (run.adapter.r, run.output) == (4, Path("x=y"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.learningrate=3",
            "override 'train.learningrate=3': unknown key 'train.learningrate'; did you mean 'train.learning_rate'?",
        ),
        ("epochs=3", "did you mean 'train.epochs'?"),
        ("train.lr=3", "did you mean 'train.learning_rate'?"),
        ("train.xy=3", "unknown key 'train.xy'; known: epochs, steps, patience"),
        ("adapter.rank=3", "did you mean 'adapter.r'?"),
        ("gradient_accumulation_steps=3", "did you mean 'train.accumulation'?"),
        ("train.epochs.x=3", "unknown key 'train.epochs.x'"),
        ("arms.=[]", "unknown key 'arms.'"),
        ("train.epochs=zero", "override 'train.epochs=zero': 'train.epochs' expected a whole number, got 'zero'"),
        ("train.epochs=", "expected key=value such as train.epochs=2"),
        ("train.epochs", "expected key=value such as train.epochs=2"),
        ("arms.plain=[", "override 'arms.plain=[':1: not valid YAML"),
        ("arms={a: 3}", "override 'arms={a: 3}': 'arms.a': an arm is a list"),
        ("arms={oracle: [3]}", "override 'arms={oracle: [3]}': 'arms.oracle.0': a method is its name"),
    ],
)
def test_wrong_overrides_are_refused_by_name(write, override, message):
    assert message in refusal(write(SPEC), override)


def test_an_override_below_something_that_is_no_section_is_refused(write):
    assert "x.yaml:2: 'train' expected a mapping" in refusal(write(SHORT + "train: 3\n"), "train.epochs=2")


def test_home_is_expanded_and_other_paths_are_left_relative(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    run = load_run(write("corpus: {path: [~/c, d/e]}\noutput: ~/o\nmodel: {name: ~/m}\nprobes: {learn: ~/p}\n"))
    assert run.corpus.path == ("/home/ada/c", "d/e")
    assert (run.output, run.model.name, run.probes.learn) == (Path("/home/ada/o"), "/home/ada/m", "/home/ada/p")


def test_a_folder_means_its_run_yaml_and_a_missing_file_is_an_error(write, tmp_path):
    (tmp_path / "run.yaml").write_text(SHORT)
    assert load_run(tmp_path).name == "notes"
    with pytest.raises(FileNotFoundError, match=r"nope.yaml: expected a run file \(YAML\), found none"):
        load_run("nope.yaml")


def test_a_run_of_flags_needs_only_a_corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.of_flags(corpus="texts/my facts.jsonl", model="org/tiny")
    short_arms = DEFAULT_ARMS
    assert (run.name, run.output, run.model.name) == ("my facts", Path("out/my-facts"), "org/tiny")
    assert (run.arms, run.probes.retain, run.probes.text) == (short_arms, "general", "general")
    assert Run.of_flags(corpus=Path()).name == tmp_path.name
    assert Run.of_flags(corpus=[Path("a"), "b"], output=Path("o")).output == Path("o")
    with pytest.raises(ValueError, match=r"^--corpus: 'corpus.path.0' expected text of at least one character"):
        Run.of_flags(corpus="")
    with pytest.raises(ValueError, match=r"^override 'sede=1': unknown key 'sede'; did you mean 'seed'"):
        Run.of_flags(corpus="a", overrides=["sede=1"])


def test_words():
    assert suggest("LEARNING-RATE", ["epochs", "learning_rate"]) == "learning_rate"
    assert suggest("qqq", ["epochs"]) is None
    assert hint("qqq", []) == "known: none"
    assert len(shown("x" * 1000)) < 70


@pytest.mark.parametrize(
    ("file", "typed", "length"),
    [
        ("{epochs: 4, steps: null, least_steps: 60}", ["train.steps=2"], (None, 2, 0)),
        ("{epochs: 4, steps: null, least_steps: 60}", ["train.epochs=2"], (2, None, 0)),
        ("{epochs: 4, least_steps: 60}", ["train.epochs=2", "train.least_steps=9"], (2, None, 9)),
        ("{steps: 7}", ["train.epochs=2"], (2, None, 0)),
        ("{epochs: 4, least_steps: 60}", ["seed=2"], (4, None, 60)),
    ],
)
def test_a_typed_length_replaces_the_files(tmp_path, file, typed, length):
    path = tmp_path / "x.yaml"
    path.write_text(f"{SHORT}train: {file}\n")
    train = load_run(path, typed).train
    assert (train.epochs, train.steps, train.least_steps) == length


def test_two_typed_lengths_are_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(SHORT)
    with pytest.raises(ValueError, match="exactly one of epochs and steps"):
        load_run(path, ["train.epochs=2", "train.steps=3"])
