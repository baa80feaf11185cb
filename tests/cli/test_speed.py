"""A wrong path, key or method is told in a moment, before torch is imported."""

import subprocess
import sys

import pytest

CODE = """
import sys, time
sys.argv = ["foci", *{arguments!r}]
begun = time.process_time()
from foci.cli.main import main
try:
    main()
except SystemExit as stop:
    assert stop.code == 2, stop.code
took = time.process_time() - begun
heavy = sorted({{"torch", "transformers", "peft", "scipy", "matplotlib"}} & set(sys.modules))
assert not heavy, heavy
assert took < 2, took  # processor seconds; two threads of one core share its time
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["learn", "nothere.yaml"],
            "nothere.yaml: expected a run file (YAML), found none; check the path, or name the text",
        ),
        (["learn", "nothere"], "corpus nothere: 'nothere' is not in"),
        (["learn", "page.txt", "train.epoch=2"], "did you mean 'train.epochs'?"),
        (["learn", "page.txt", "arms={a: [orakle]}"], "unknown method 'orakle'; did you mean 'oracle'?"),
        (["learn", "page.txt", "arms={a: [{oracle: {flor: 1}}]}"], "no setting 'flor'; did you mean 'floor'?"),
        (["learn", "page.txt", "arms={a: [{oracle: {floor: high}}]}"], "setting 'floor' expected float, got 'high'"),
        (["learn", "page.txt", "arms={a: [contrast]}"], "method 'contrast' needs large; write {contrast: {large"),
        (["learn", "page.txt", "arms={a: [./mine.py:Mine]}"], "method file mine.py: 'mine.py' is not in"),
        (
            ["learn", "page.txt", "--model", "model"],
            "model 'model' has no config.json in its folder, which holds nothing",
        ),
        (["methods", "orakle"], "unknown method 'orakle'; did you mean 'oracle'?"),
        (["check", "page.txt", "--model", "./modell"], "did you mean model?"),
        (["learn", "page.txt", "probes.learn=page.jsonl"], "probes.learn page.jsonl: 'page.jsonl' is not in"),
        (["bench", "suite.yaml"], "unknown method 'orakle'"),
        (["score", "suite.yaml"], "unknown method 'orakle'"),
        (["bench", "nothere.yaml"], "nothere.yaml: expected a suite file (YAML), found none; check the path\n"),
        (
            ["score", "nothere.yaml"],
            "nothere.yaml: expected a run file or suite file (YAML), found none; check the path\n",
        ),
        (
            ["pretrain", "nothere.yaml"],
            "nothere.yaml: expected a pretraining file (YAML), found none; check the path\n",
        ),
        (["pretrain", "plain.yaml", "corpus.path=page.tx"], "did you mean page.txt?"),
        (["meta", "nothere.yaml"], "nothere.yaml: expected a meta-training file (YAML), found none; check the path\n"),
        (["check", "page.txt", "train.lr=1"], "did you mean 'train.learning_rate'?"),
        (["meta", "meta.yaml"], "pairs nothere.jsonl: 'nothere.jsonl' is not in"),
        (["probe", "./modell", "general"], "did you mean model?"),
        (["probe", "some/model", "page.jsonl"], "probe file page.jsonl: 'page.jsonl' is not in"),
    ],
)
def test_what_is_wrong_is_told_at_once(tmp_path, arguments, words):
    (tmp_path / "page.txt").write_text("A page.")
    (tmp_path / "model").mkdir()
    (tmp_path / "plain.yaml").write_text("objective: causal\nmodel: {type: llama}\ncorpus: {path: page.txt}\n")
    (tmp_path / "meta.yaml").write_text("pairs: {path: nothere.jsonl}\n")
    (tmp_path / "suite.yaml").write_text("corpus: {path: page.txt}\nseeds: [0]\narms: {a: [orakle]}\n")
    code = CODE.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert words in done.stderr


@pytest.mark.parametrize("arguments", [["methods"], ["methods", "ewc"]])
def test_methods_are_listed_without_torch(arguments):
    code = CODE.format(arguments=arguments).replace("stop.code == 2", "stop.code == 0")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Decides what pulls the weights back" in done.stdout
