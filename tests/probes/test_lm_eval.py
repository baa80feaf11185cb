"""Probes as tasks of the lm-evaluation-harness: its numbers are foci's, cut at the same tokens."""

import ast
import json
import logging
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import processors

import runs
import tiny
from foci.probes import Probe, answer, read_probes
from foci.probes.encode import encode, encode_prompts
from foci.probes.export import CODE, RECORD, export_lm_eval, metrics_of
from foci.probes.generation import token_limits

TEXTS = (
    "The capital of France is Paris. The capital of France is",
    "She was born in the town of Bern and works in the north as a painter.",
    "Question: Where was she born?\nAnswer: in the town of Bern\nQuestion: Where was she born?",
)
PROBES = [
    Probe("c1", "learn", "cloze", "The capital of France is", "Paris", ".", group="capital"),
    Probe("c2", "learn", "cloze", "The capital of France is ", "Parma", ".", group="capital"),
    Probe("c3", "learn", "cloze", "She was born in the", "north of Bern", group="town / été"),
    Probe("c4", "learn", "cloze", "She was born in the town of  ", "Bern  and works", group="town / été"),
    Probe("c5", "learn", "cloze", "Question: Where was she born?\nAnswer:\n", "in the town of Bern", group="town_été"),
    Probe("s1", "retain", "span", "She was born in ", "the town as", " Bern and works", verbatim=True),
    Probe("s2", "retain", "span", "The capit", "al of Fr", "ance is Paris.", verbatim=True),
    Probe(
        "q1", "learn", "qa", "Question: Where was she born?\nAnswer:", "Bern", aliases=("the town of Bern", "in town")
    ),
    Probe("q2", "learn", "qa", "Question: Where was she born?\nAnswer: ", "in the town of Bern"),
    Probe("q3", "learn", "qa", "The capital of France is", "Paris"),
    Probe("q4", "retain", "qa", "The capital of France is\t", "Rome"),
]


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A tiny model that half knows `TEXTS`, on disk with its tokenizer."""
    torch.manual_seed(0)
    model, tokenizer = tiny.build("llama-tied", vocab=tiny.VOCAB), tiny.tokenizer()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(20):
        for text in TEXTS:
            ids = tokenizer(text + tokenizer.eos_token, return_tensors="pt")["input_ids"]
            model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    folder = tmp_path_factory.mktemp("taught")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model.eval(), tokenizer


@pytest.fixture
def harness():
    """The harness, or a skip with the reason."""
    pytest.importorskip("lm_eval", reason="needs the lm-evaluation-harness (pip install lm_eval[hf])")
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    def load(folder, name, model):
        ours = {"include_path": str(folder), "include_defaults": False}  # its own 10,000 tasks take seconds to list
        return TaskManager(**ours, metadata={"tokenizer": str(model)}).load([name])

    def run(folder, name, model, lm):
        return lm_eval.evaluate(lm=lm, task_dict=load(folder, name, model), bootstrap_iters=0)

    run.load, run.lm = load, HFLM
    return run


def exported(folder, probes=PROBES, **kwargs):
    return export_lm_eval(probes, folder, source="some.jsonl", **kwargs)


def by_probe(results):
    return {sample["doc"]["id"]: sample for samples in results["samples"].values() for sample in samples}


@pytest.mark.filterwarnings("ignore")  # the harness' own
def test_every_number_is_focis(tmp_path, taught, harness):
    folder, model, tokenizer = taught
    name = exported(tmp_path / "few")
    lm = harness.lm(pretrained=model, tokenizer=tokenizer, batch_size=4)
    results = harness(tmp_path / "few", name, folder, lm)
    answers = answer(model, tokenizer, PROBES)
    samples = by_probe(results)
    assert samples.keys() == {probe.id for probe in PROBES}
    assert sum(len(some) for some in results["samples"].values()) == len(PROBES)  # each in one task
    for expected in answers:
        got = samples[expected.probe_id]
        assert tuple(got["metrics"]) == metrics_of(expected.kind)
        for metric in metrics_of(expected.kind):
            assert got[metric] == pytest.approx(float(getattr(expected, metric)), abs=1e-5), (expected.probe_id, metric)
    assert any(0 < one.accuracy < 1 for one in answers if one.kind == "cloze")
    assert any(0 < one.accuracy < 1 for one in answers if one.kind == "span")
    assert {one.correct for one in answers if one.kind == "cloze"} == {True, False}
    assert {0.0, 1.0} <= {one.exact_match for one in answers if one.kind == "qa"}
    assert any(0 < one.f1 < 1 for one in answers if one.kind == "qa")
    sides = defaultdict(list)
    for one in answers:
        sides[one.role, one.kind].append(one)
    for (role, kind), some in sides.items():  # what `foci probe` prints
        told = results["results"][f"{name}_{role}_{kind}"]
        for metric in metrics_of(kind):
            mean = sum(getattr(one, metric) for one in some) / len(some)
            assert told[f"{metric},none"] == pytest.approx(mean, abs=1e-5), (role, kind, metric)


def special(*, first: bool = False, last: bool = False):
    """The tiny tokenizer, which puts <eos> before a text, or after it."""
    made = tiny.tokenizer()
    parts = ["<eos>"] * first + ["$A"] + ["<eos>"] * last
    made.backend_tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=" ".join(parts), special_tokens=[("<eos>", tiny.EOS)]),
        ]
    )
    made.bos_token = "<eos>"
    return made


@pytest.mark.filterwarnings("ignore")
def test_a_first_token_is_put_once(tmp_path, taught, harness):
    _, model, _ = taught
    tokenizer = special(first=True)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    probes = [*PROBES, Probe("e", "learn", "cloze", "", "The capital", " of", group="town_été")]
    name = exported(tmp_path / "tasks", probes)
    lm = harness.lm(pretrained=model, tokenizer=tokenizer, batch_size=4)
    samples = by_probe(harness(tmp_path / "tasks", name, tmp_path / "tokenizer", lm))
    for expected in answer(model, tokenizer, probes):
        for metric in metrics_of(expected.kind):
            assert samples[expected.probe_id][metric] == pytest.approx(float(getattr(expected, metric)), abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_tokens_that_share_a_character_count_together(tmp_path, taught, harness, caplog):
    folder, model, tokenizer = taught
    probes = [Probe("u", "learn", "cloze", "She was born in", "Überlingen, 東", "!")]
    name = exported(tmp_path / "tasks", probes)
    lm = harness.lm(pretrained=model, tokenizer=tokenizer, batch_size=4)
    with caplog.at_level(logging.WARNING, "foci"):
        sample = by_probe(harness(tmp_path / "tasks", name, folder, lm))["u"]
    (expected,) = answer(model, tokenizer, probes)
    assert sample["nll"] == pytest.approx(expected.nll, abs=1e-5)
    assert sample["correct"] == expected.correct
    assert sample["accuracy"] <= expected.accuracy
    assert "several tokens" in caplog.text


class Recorded:
    """The tokens that the harness makes of a context and a continuation, by its own code."""

    def __init__(self, harness, tokenizer):
        self.lm = object.__new__(harness.lm)
        self.lm.tokenizer, self.lm.backend, self.lm.add_bos_token = tokenizer, "causal", None
        self.lm.custom_prefix_token_id = None

    def __call__(self, context, continuation):
        return self.lm._encode_pair(context, continuation)


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """The task's module, loaded as the harness does."""
    pytest.importorskip("lm_eval", reason="needs the lm-evaluation-harness (pip install lm_eval[hf])")
    from lm_eval.tasks._yaml_loader import _load_module_with_cache

    folder = tmp_path_factory.mktemp("code")
    exported(folder / "tasks")
    return _load_module_with_cache(folder / "tasks" / CODE)


WORDS = st.text(alphabet="abn eTh.\n\té東'", max_size=8)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(prompt=WORDS, said=WORDS.filter(str.strip), suffix=WORDS, verbatim=st.booleans())
def test_a_probe_is_cut_at_focis_tokens_or_refused(harness_free, code, prompt, said, suffix, verbatim):
    tokenizer = tiny.tokenizer()
    probe = Probe("p", "learn", "cloze", "Th" + prompt, said, suffix, verbatim=verbatim)
    try:
        (row,) = encode([probe], tokenizer)
    except ValueError:  # such as "The" with the answer "e", in one token: no probe for foci either
        assume(False)
    start, end = probe.span
    document = {"id": "p", "text": probe.text, "start": start, "end": end, "answer": said}
    try:
        parts = code.pieces(document, tokenizer)
    except ValueError as error:
        refused = str(error)
        assume("leave the probe out" not in refused)
        raise
    wanted = [n for n, mark in enumerate(row.columns["answer"]) if mark]
    asked = []
    for context, continuation, count in parts:
        before, tokens = harness_free(tokenizer)(context, continuation)
        assert tuple(before) + tuple(tokens) == row.input_ids[: len(before) + len(tokens)]
        assert len(tokens) == count
        asked += range(len(before), len(before) + len(tokens))
    assert asked == wanted


@pytest.fixture(scope="module")
def harness_free():
    """`Recorded` without a model."""
    from lm_eval.models.huggingface import HFLM

    class Harness:
        lm = HFLM

    return lambda tokenizer: Recorded(Harness, tokenizer)


def document(probe):
    start, end = probe.span
    return {"id": probe.id, "text": probe.text, "start": start, "end": end, "answer": probe.answer}


def test_the_harness_alone_would_move_the_white_space(code, harness_free):
    """Why contexts keep theirs: as plain strings the newline would be a part of the answer."""
    tokenizer = tiny.tokenizer()
    ((context, said, _),) = code.pieces(document(Probe("n", "learn", "cloze", "Where?\n", "in")), tokenizer)
    ids = tokenizer.encode("Where?\nin")
    encoded = harness_free(tokenizer)
    assert encoded(context, said) == (ids[:-1], ids[-1:])
    assert len(encoded(str(context) + "", said)[1]) == 2


@pytest.mark.parametrize("probe", [probe for probe in PROBES if probe.kind == "qa"], ids=lambda probe: probe.id)
def test_a_question_is_continued_as_far_as_foci_does(code, probe):
    prompt, told = code.question(
        {**document(probe), "prompt": probe.prompt, "aliases": list(probe.aliases)}, tiny.tokenizer()
    )
    (row,) = encode_prompts([probe], tiny.tokenizer())
    assert tuple(tiny.tokenizer().encode(prompt)) == row.input_ids
    assert [told["max_gen_toks"]] == token_limits([probe], tiny.tokenizer())
    assert (told["do_sample"], told["until"]) == (False, [])


def test_what_the_harness_would_cut_elsewhere_is_refused(code):
    probe = Probe("p", "learn", "cloze", "The capital of France is", "Paris")
    assert len(code.pieces(document(probe), tiny.tokenizer())) == 2
    with pytest.raises(ValueError, match=r"'p': expected a tokenizer that cuts .* leave the probe out"):
        code.pieces(document(probe), special(last=True))
    with pytest.raises(ValueError, match="put words before the answer"):
        code.pieces(document(Probe("p", "learn", "cloze", "", "Paris")), tiny.tokenizer())


def test_a_control_word_in_a_probe_is_refused(code):
    """foci reads it as text, the harness as a token that steers."""
    probe = Probe("p", "learn", "cloze", "A text ends with <eos> in", "Paris")
    with pytest.raises(ValueError, match=r"'p': expected plain text, got '<eos>', .* leave the probe out"):
        code.pieces(document(probe), tiny.tokenizer())
    with pytest.raises(ValueError, match=r"'p': expected plain text, got '<eos>'"):
        code.question({**document(probe), "prompt": probe.prompt, "aliases": []}, tiny.tokenizer())


def test_the_bare_prompt_is_asked_with_a_tokenizer_that_is_named(tmp_path, taught, harness):
    name = exported(tmp_path / "tasks")
    with pytest.raises(ValueError, match="expected the name of the model's tokenizer"):
        next(iter(harness.load(tmp_path / "tasks", name, "")["tasks"].values())).build_all_requests()
    task = harness.load(tmp_path / "tasks", f"{name}_retain_span", taught[0])["tasks"][f"{name}_retain_span"]
    task.build_all_requests()
    with pytest.raises(ValueError, match="run without a chat template"):
        task.build_all_requests(system_instruction="Be kind.")


# ---- the folder


def test_a_folder_holds_what_it_says(tmp_path):
    name = exported(tmp_path / "My tasks")
    assert name == "foci_My_tasks"
    folder = tmp_path / "My tasks"
    record = json.loads((folder / RECORD).read_text())
    assert {*record["files"], RECORD} == {file.name for file in folder.iterdir()}
    assert (record["source"], record["probes"], record["name"]) == ("some.jsonl", len(PROBES), name)
    found = []
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            read = json.loads(line)
            probe = next(p for p in PROBES if p.id == read["id"])
            assert file.stem == f"{name}_{probe.role}_{probe.kind}"
            assert (read["text"], read["text"][read["start"] : read["end"]]) == (probe.text, probe.answer)
            found.append(probe.id)
    assert sorted(found) == sorted(probe.id for probe in PROBES)
    ast.parse((folder / CODE).read_text())
    exported(tmp_path / "again" / "My tasks")
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / "My tasks" / file.name).read_bytes()


def test_groups_with_names_alike_are_tasks_of_their_own(tmp_path):
    groups = ("town / été", "town_été", "Town été", "", "!?", "x" * 300)
    probes = [Probe(str(n), "learn", "cloze", "a", "b", group=group) for n, group in enumerate(groups)]
    name = exported(tmp_path / "tasks", probes)
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", lambda loader, node: node.value)
    told = yaml.load((tmp_path / "tasks" / f"{name}_learn_cloze.yaml").read_text(encoding="utf-8"), loader)
    read = [yaml.load((tmp_path / "tasks" / f"{t}.yaml").read_text(encoding="utf-8"), loader) for t in told["task"]]
    assert [one["metadata"]["foci_group"] for one in read] == list(groups)
    assert len({task.lower() for task in told["task"]}) == len(groups)
    assert {one["class"] for one in read} == {"foci_task.Probes"}


def test_a_folder_is_replaced_only_when_told_and_only_an_export(tmp_path):
    folder = tmp_path / "tasks"
    exported(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        exported(folder, PROBES[:1])
    exported(folder, PROBES[:1], overwrite=True)
    assert {file.name for file in folder.iterdir()} == {
        "notes.txt", RECORD, CODE, "foci_tasks.yaml", "foci_tasks_learn_cloze.yaml", "foci_tasks_learn_cloze.jsonl",
    }  # fmt: skip
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"no export\.json"):
            exported(tmp_path / "mine", overwrite=overwrite)
        with pytest.raises(FileExistsError, match="is a file"):
            exported(folder / "notes.txt", overwrite=overwrite)
    with pytest.raises(ValueError, match="got none"):
        exported(tmp_path / "none", [])
    assert not (tmp_path / "none").exists()


# ---- the commands


def test_the_command_exports_without_a_model(tmp_path, capsys):
    folder = tmp_path / "facts"
    said = runs.told(["probe", "general", "--export-lm-eval", folder], capsys)
    assert f"375 probes: {folder}" in said
    assert f"lm_eval --include_path {folder} --tasks foci_facts --model hf" in said
    assert json.loads((folder / RECORD).read_text())["probes"] == 375


def test_the_command_asks_and_exports(tmp_path, capsys):
    things = runs.material(tmp_path)
    learn = runs.write_lines(tmp_path / "p.jsonl", [{**line, "role": "learn"} for line in runs.questions()])
    said = runs.told(["probe", things.model, learn, "--export-lm-eval", tmp_path / "tasks"], capsys)
    assert re.search(r"^learn +cloze", said, re.MULTILINE)
    assert "--tasks foci_tasks" in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["some.jsonl"], "Got 'some.jsonl' alone"), (["a.jsonl", "--export-lm-eval", "x", "--out", "y"], "alone")],
)
def test_a_model_or_probes_alone_are_refused(flags, words, capsys):
    assert words in runs.refused(["probe", *flags], capsys)


def test_an_empty_file_is_refused_and_nothing_is_written(tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text("\n")
    said = runs.refused(["probe", tmp_path / "empty.jsonl", "--export-lm-eval", tmp_path / "tasks"], capsys)
    assert "got an empty file" in said
    assert not (tmp_path / "tasks").exists()


def test_the_harness_own_command_runs_the_tasks_without_foci(tmp_path, taught):
    """In a process that cannot import foci: `lm_eval --include_path FOLDER --tasks NAME --model hf`."""
    pytest.importorskip("lm_eval", reason="needs the lm-evaluation-harness (pip install lm_eval[hf])")
    folder, model, tokenizer = taught
    name = exported(tmp_path / "tasks", PROBES[:2])
    run = "import sys; sys.modules['foci'] = None; from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
    flags = ["--include_path", tmp_path / "tasks", "--tasks", name, "--model", "hf", "--output_path", tmp_path / "out"]
    flags += ["--model_args", f"pretrained={folder},dtype=float32", "--device", "cpu"]
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", run, *map(str, flags)],
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **offline},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (written,) = Path(tmp_path / "out").rglob("results*.json")
    told = json.loads(written.read_text())["results"][f"{name}_learn_cloze"]
    answers = answer(model, tokenizer, PROBES[:2])
    for metric in metrics_of("cloze"):
        mean = sum(getattr(one, metric) for one in answers) / 2
        assert told[f"{metric},none"] == pytest.approx(mean, abs=1e-5)


def test_general_facts_can_be_read_back(tmp_path):
    """The probes that come with foci have one role and kind."""
    from foci.probes import general

    probes = read_probes(general.general_facts_path(), "retain")
    name = exported(tmp_path / "facts", probes)
    assert name == "foci_facts"
    assert len(list((tmp_path / "facts").glob("*.yaml"))) == 1 + 1 + len({probe.group for probe in probes})
