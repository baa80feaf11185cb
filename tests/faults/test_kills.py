"""Commands that are killed (SIGKILL) at random moments, again and again: each ends in what one that lived ended in.

A short form is run with all tests. `make faults` (FOCI_FAULTS=long) kills 100 times and prints the table of
docs/reliability.md; FOCI_FAULTS_SEED chooses the moments.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

import runs
import several
import suites
import writers
from foci.config import strict_yaml
from paths import ROOT
from processes_compared import assert_same, assert_same_weights, outcome, run_file

LONG = os.environ.get("FOCI_FAULTS") == "long"
SEED = int(os.environ.get("FOCI_FAULTS_SEED", "0"))
PASSING = ("seconds", "peak_memory_mib", "seal", "started", "files")
"""Beginnings of the keys of JSON files that differ from run to run: times, memory, hashes of files with times."""


@dataclass
class Work:
    """A command in a folder: its arguments, which begin and go on, and its results."""

    begin: list[object]
    out: Path
    results: tuple[str, ...]
    serving: Callable[[], Any] = nullcontext


def learn(folder: Path, things: runs.Things) -> Work:
    file = runs.run_file(folder, things, train={"epochs": None, "steps": 6})
    kept = (
        "arms/*/arm.json",
        "arms/*/metrics.jsonl",
        "arms/*/probes/*",
        "arms/*/samples.json",
        "arms/*/*/*.safetensors",
    )
    return Work(["learn", file, "--resume"], folder / "out", kept)


def score(folder: Path, things: runs.Things) -> Work:
    arms = {"plain": [], "rho": [{"rho": {"reference": str(things.model)}}]}
    return Work(["score", runs.run_file(folder, things, arms=arms)], folder / "out", ("**/scores/**/*.parquet",))


def bench(folder: Path, things: runs.Things) -> Work:
    file = suites.suite_file(folder, things, None, train={"checkpoint_every": 1}, probes={"every": 1}, seeds=[0])
    return Work(["bench", file, f"output={folder / 'out'}"], folder / "out", ("table.json",))


def meta(folder: Path, things: runs.Things) -> Work:
    pairs = []
    for number, (text, town, _) in enumerate(runs.FACTS * 2):
        start = text.index(town)
        told = f"In text {number}: {text}"
        at = start + told.index(text)
        pairs.append(
            {"text": told, "prompt": f"{text[:4]} was born in", "answer": town, "answer_spans": [[at, at + len(town)]]}
        )
    settings = {
        "output": str(folder / "out"), "model": {"name": str(things.model), "dtype": "float32"},
        "pairs": {"path": [str(runs.write_lines(folder / "pairs.jsonl", pairs))], "held_out": 4, "max_length": 64},
        "train": {"epochs": 4, "batch_size": 8, "patience": 4},
    }  # fmt: skip
    file = folder / "meta.yaml"
    file.write_text(yaml.safe_dump(settings))
    return Work(
        ["meta", file, "--resume"], folder / "out", ("weigher/**/*.safetensors", "samples.json", "summary.json")
    )


def pretrain(folder: Path, _: runs.Things) -> Work:
    text = folder / "text.txt"
    text.write_text("".join(f"Line {n} of the town of Bern ends here. " for n in range(120)))
    settings = {
        "objective": "masked", "corpus": {"path": str(text), "max_length": 16}, "dtype": "float32",
        "model": {"type": "bert", "layers": 2, "width": 32, "heads": 4, "mlp": 32}, "tokenizer": {"vocab": 320},
        "held_out": {"share": 0.2, "rows": 8, "every": 3}, "seeds": [0], "output": str(folder / "out"),
        "train": {"steps": 8, "batch_size": 4, "checkpoint_every": 2}, "arms": {"plain": [], "guided": ["guidance"]},
    }  # fmt: skip
    file = folder / "pretrain.yaml"
    file.write_text(strict_yaml.dump(settings))
    return Work(["pretrain", file], folder / "out", ("table.json", "**/validation.jsonl", "**/guided.jsonl"))


def study(folder: Path, _: runs.Things) -> Work:
    @contextmanager
    def serving() -> Iterator[Any]:
        with writers.serving(
            lambda prompt, before: writers.Answer(writers.honest(prompt, before), delay=0.05)
        ) as server:
            yield server.url

    corpus = writers.corpus(folder / "pages", 10)
    command = ["study", corpus, "--writer", "URL", "--out", folder / "out", "--workers", "2", "--rewrites", "1"]
    return Work(command, folder / "out", ("corpus.jsonl", "learn.jsonl", "study.jsonl"), serving=serving)


def slide(folder: Path, things: runs.Things) -> Work:
    file = runs.run_file(folder, things, train={"epochs": None, "steps": 3}, probes={"every": None})
    runs.finished(["learn", file], folder)
    return Work(["slide", folder / "out", "--points", "4"], folder / "out", ("slide.json", "**/points.jsonl"))


KILLS = {meta: 15, pretrain: 15, slide: 10, score: 10, study: 10, bench: 15, learn: 25}
SHORT = {meta: 1, pretrain: 1, slide: 1}
"""Kills of the short form; the others are killed in tests of their own."""
IN_PROCESSES = {"whole": 12, "shared": 12} if LONG else {"shared": 1}
"""Kills of one of several processes, each of which holds the whole model or a part of it (`train.fsdp`)."""
TABLE: list[str] = []


def digest(work: Work) -> dict[str, str]:
    """The hash of every result: of JSON its content, of tables their rows, of weights their bytes."""
    found = {}
    for pattern in work.results:
        for path in sorted(work.out.glob(pattern)):
            found[str(path.relative_to(work.out))] = hashlib.sha256(content(path)).hexdigest()[:16]
    assert found, f"{work.begin[0]} wrote none of {work.results}"
    return found


def content(path: Path) -> bytes:
    if path.suffix == ".parquet":
        return json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
    if path.suffix == ".json":
        return json.dumps(lasting(json.loads(path.read_text())), sort_keys=True).encode()
    if path.suffix == ".jsonl":
        lines = [json.dumps(lasting(json.loads(line)), sort_keys=True) for line in path.read_text().splitlines()]
        return "\n".join(lines if "probes" in path.parts or "metrics" in path.name else sorted(lines)).encode()
    return path.read_bytes()


def lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: lasting(part) for key, part in value.items() if not key.startswith(PASSING)}
    return [lasting(part) for part in value] if isinstance(value, list) else value


def started(work: Work, url: object, folder: Path) -> runs.Child:
    return runs.start([url if word == "URL" else word for word in work.begin], folder)


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


@pytest.mark.parametrize(
    "make", [make for make, kills in (KILLS if LONG else SHORT).items() if kills], ids=lambda f: f.__name__
)
def test_killed_at_random_moments_it_ends_as_one_that_lived(make, things, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "work").mkdir()
    rng, work = random.Random(f"{SEED}/{make.__name__}"), make(tmp_path / "work", things)
    before = tmp_path / "before"  # a slide begins in the folder of a run
    if work.out.exists():
        shutil.copytree(work.out, before, symlinks=True)
    with work.serving() as url:
        begin = time.monotonic()
        child = started(work, url, tmp_path)
        assert child.wait(600) == 0, child.err.read_text()
        seconds, whole = time.monotonic() - begin, digest(work)
        kills = resumes = chains = 0
        wanted = (KILLS if LONG else SHORT)[make]
        while kills < wanted:
            shutil.rmtree(work.out)
            if before.exists():
                shutil.copytree(before, work.out, symlinks=True)
            chains, goal = chains + 1, min(wanted, kills + rng.randint(1, 5))
            while True:
                child = started(work, url, tmp_path)
                if kills < goal:
                    child.process.join(rng.uniform(0.02, 0.6) * seconds)
                    if child.process.is_alive():
                        child.signal(signal.SIGKILL)
                    if child.wait(600) == -signal.SIGKILL:
                        kills, resumes = kills + 1, resumes + 1
                        continue
                    seconds *= 0.7  # it came to its end first: kill earlier
                assert child.wait(600) == 0, child.err.read_text()
                break
            assert digest(work) == whole, f"{make.__name__}, seed {SEED}, after {kills} kills"
            assert_nothing_left(work.out)
    told(f"`foci {make.__name__}`", kills, resumes, chains, len(whole))


def assert_nothing_left(out: Path) -> None:
    assert not [str(path) for path in out.rglob("*") if path.name.endswith(".part") or ".staging" in path.name]


def told(*line: object) -> None:
    """Adds a line to the table and prints it."""
    TABLE.append(f"| {' | '.join(map(str, line))} |")
    print(f"\n| command (seed {SEED}) | kills | resumes | times to the end | results that are the same each time |")
    print("|---|---|---|---|---|", *TABLE, sep="\n")


@pytest.fixture(scope="module")
def one(things, tmp_path_factory):
    """The folder of a run that lived, in one process, and its seconds."""
    folder, begin = tmp_path_factory.mktemp("one"), time.monotonic()
    runs.finished(["learn", run_file(folder, things)], folder)
    return folder / "out", time.monotonic() - begin


def assert_ends_as(out: Path, one: Path) -> None:
    assert_same(outcome(out), outcome(one))
    assert_same_weights(out, one)
    assert_nothing_left(out)


@pytest.mark.parametrize("kind", IN_PROCESSES)
def test_one_of_several_processes_is_killed_and_any_number_goes_on(kind, things, one, tmp_path):
    """Two begin. Whenever one is killed at a random moment, one, two or three go on, of which one may be killed."""
    rng, out, (expected, seconds) = random.Random(f"{SEED}/{kind}"), tmp_path / "out", one
    command = ["learn", run_file(tmp_path, things, train={"fsdp": kind == "shared"}), "--resume"]
    kills = chains = 0
    while kills < IN_PROCESSES[kind]:
        shutil.rmtree(out, ignore_errors=True)
        chains, goal, count = chains + 1, min(IN_PROCESSES[kind], kills + rng.randint(1, 4)), 2
        while kills < goal:
            children = several.start(command, tmp_path, count)
            number = rng.randrange(count)
            children[number].process.join(rng.uniform(0.02, 1.2) * seconds)
            if not children[number].process.is_alive():
                several.waited(children)
                seconds *= 0.7  # it came to its end first: kill earlier
                break
            several.killed(children, number, rng.uniform(0, 0.5))
            kills, count = kills + 1, rng.randint(1, 3)
        several.finished(command, tmp_path, count)
        assert_ends_as(out, expected)
    told(f"`foci learn`, two processes, {kind} model", kills, kills, chains, len(list(out.rglob("*.safetensors"))))


def launched(words: list[object], folder: Path) -> subprocess.Popen:
    """Begins a command in two processes of torchrun itself."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    with (folder / "torchrun.log").open("a") as log:
        return subprocess.Popen(
            [*torchrun, "-m", "foci", *map(str, words)], env=env, stdout=log, stderr=subprocess.STDOUT
        )


@pytest.mark.skipif(not LONG, reason="imports torch anew in each process")
def test_torchrun_itself_ends_the_others(things, one, tmp_path):
    rng, out, kills = random.Random(f"{SEED}/torchrun"), tmp_path / "out", 0
    command = ["learn", run_file(tmp_path, things, train={"fsdp": True}), "--resume"]
    begin = time.monotonic()
    assert launched(command, tmp_path).wait(600) == 0, (tmp_path / "torchrun.log").read_text()
    seconds = time.monotonic() - begin
    shutil.rmtree(out)
    while kills < 2:
        agent = launched(command, tmp_path)
        try:
            agent.wait(rng.uniform(0.3, 0.8) * seconds)
        except subprocess.TimeoutExpired:
            rng.choice(psutil.Process(agent.pid).children()).send_signal(signal.SIGKILL)
            kills += 1
            assert agent.wait(several.GRACE + 60) != 0
        else:
            break
    assert launched(command, tmp_path).wait(600) == 0, (tmp_path / "torchrun.log").read_text()
    assert_ends_as(out, one[0])
    told("`torchrun -m foci learn`, shared model", kills, kills, 1, len(list(out.rglob("*.safetensors"))))
