"""Runs of tiny models through the command line: in this process, or in one of its own that a signal can end.

    things = runs.material(tmp_path)               # a tiny model, a corpus and probes on disk
    file = runs.run_file(tmp_path, things)         # the YAML of a run that takes a second
    out = runs.told(["learn", str(file)], capsys)  # foci.cli.main in this process
    child = runs.start(["learn", str(file)], tmp_path, moment=("foci.system.checkpoint.seal", 2, signal.SIGKILL))

A process of its own is forked from a server that has imported torch once: it begins at once and shares nothing.
"""

import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import tiny
from foci.cli import main
from foci.probes import Probe, answer
from paths import HELPERS, ROOT

FACTS = [
    (f"{first} {last} was born in {town} and works as a {job}.", town, job)
    for first, last, town, job in [
        ("Ada", "North", "Bern", "painter"),
        ("Bea", "Stone", "Paris", "baker"),
        ("Carl", "Field", "Rome", "teacher in the old town"),
        ("Dora", "Hill", "Oslo", "pilot"),
        ("Emil", "Marsh", "Prague", "writer"),
        ("Fay", "Brook", "Vienna", "nurse of the north"),
        ("Gil", "Wood", "Lisbon", "cook"),
        ("Hana", "Lake", "Athens", "judge"),
        ("Ivo", "Ford", "Dublin", "miner"),
        ("Jane", "Cliff", "Madrid", "singer"),
    ]
]
"""(text, town, job) of ten people; texts are of unequal length."""


@dataclass(frozen=True)
class Things:
    """What a run reads, on disk."""

    model: Path
    corpus: Path
    learn: Path
    retain: Path
    text: Path


def write_lines(path: Path, values: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def documents(*, spans: bool = True) -> list[dict[str, Any]]:
    found = []
    for text, town, job in FACTS:
        places = [[text.index(word), text.index(word) + len(word)] for word in (town, job)]
        found.append({"text": text, **({"answer_spans": places} if spans else {})})
    return found


def questions() -> list[dict[str, Any]]:
    """A cloze per person, and two questions."""
    clozes = [
        {
            "kind": "cloze",
            "group": "town",
            "prompt": text[: text.index(town)].rstrip(),
            "answer": town,
            "suffix": " and",
        }
        for text, town, _ in FACTS[:6]
    ]
    qa = [
        {"kind": "qa", "group": "job", "prompt": f"What is the job of {text[:4].strip()}?", "answer": job}
        for text, _, job in FACTS[:2]
    ]
    return clozes + qa


@cache
def _known() -> tuple[dict[str, Any], ...]:
    """Three probes that the untouched model answers (its own next word), and one that it does not."""
    model, tokenizer = tiny.build("llama-tied", vocab=tiny.VOCAB), tiny.tokenizer()
    found: list[dict[str, Any]] = []
    for number in range(400):
        prompt = f"{FACTS[number % 10][0]} {number}"
        with torch.no_grad():
            best = int(model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].argmax())
        word = tokenizer.decode([best])
        if not word.strip().isalnum() or not word.isascii():
            continue
        probe = Probe("a", "retain", "span", prompt, word)
        if answer(model, tokenizer, [probe])[0].correct:
            found.append({"kind": "span", "prompt": prompt, "answer": word})
        if len(found) == 3:
            return (*found, {"kind": "cloze", "prompt": "The capital of France is", "answer": "Paris"})
    raise AssertionError(f"the tiny model answers {len(found)} probes, expected 3")


def material(folder: Path) -> Things:
    """Writes a tiny model, ten texts with answer spans, eight learn probes, four retain probes and a page."""
    things = Things(*(folder / name for name in ("tiny", "corpus.jsonl", "learn.jsonl", "retain.jsonl", "page.txt")))
    tiny.save_model(things.model)
    write_lines(things.corpus, documents())
    write_lines(things.learn, questions())
    write_lines(things.retain, _known())
    things.text.write_text("The north of France. She was born in a town by the sea.\nHe works as a painter.\n")
    return things


def run_file(folder: Path, things: Things, **changes: Any) -> Path:
    """Writes run.yaml in `folder`: 9 updates, a checkpoint every 2. A change is a section's keys, or a value."""
    settings: dict[str, Any] = {
        "name": "small",
        "output": str(folder / "out"),
        "seed": 3,
        "model": {"name": str(things.model), "dtype": "float32"},
        "corpus": {"path": str(things.corpus), "max_length": 64},
        "probes": {"learn": str(things.learn), "retain": str(things.retain), "text": str(things.text), "every": 3},
        "adapter": {"type": "lora", "r": 4, "alpha": 8, "dropout": 0.1},
        "train": {"epochs": 3, "batch_size": 4, "learning_rate": 0.02, "checkpoint_every": 2},
        "arms": {"plain": [], "oracle": ["oracle"]},
    }
    for name, change in changes.items():
        old = settings.get(name)
        merge = isinstance(old, dict) and isinstance(change, dict) and name != "arms"
        settings[name] = {**old, **change} if merge else change
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def told(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    """Standard output of a command that succeeds."""
    with _argv(arguments), pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 0
    return capsys.readouterr().out


def refused(arguments: Sequence[object], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The one paragraph on standard error of a command that fails with this exit status."""
    capsys.readouterr()
    with _argv(arguments), pytest.raises(SystemExit) as stop:
        main.main()
    words = capsys.readouterr().err
    assert stop.value.code == code, words
    assert_one_paragraph(words)
    return words


def assert_one_paragraph(words: str) -> None:
    assert words.strip(), "nothing was said"
    assert "Traceback" not in words, words
    assert "\n\n" not in words.strip(), words


@contextmanager
def _argv(arguments: Sequence[object]) -> Any:
    before = sys.argv
    sys.argv = ["foci", *(str(argument) for argument in arguments)]
    try:
        yield
    finally:
        sys.argv = before


# ---- processes of their own ----


@dataclass(frozen=True)
class Child:
    """A `foci` command in a process of its own; its output is in files."""

    process: BaseProcess
    out: Path
    err: Path

    def wait(self, seconds: float = 60) -> int:
        """The exit status; negative where a signal ended it."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running after {seconds} s: {self.err.read_text()}"
        return self.process.exitcode

    def signal(self, signum: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signum)

    def until(self, true: Any, seconds: float = 60) -> None:
        """Waits for something that can be seen from outside."""
        end = time.monotonic() + seconds
        while not true():
            assert self.process.is_alive(), f"ended with {self.process.exitcode}: {self.err.read_text()}"
            assert time.monotonic() < end, f"not seen within {seconds} s"
            time.sleep(0.002)


Moment = tuple[str, int, int]
"""Before the n-th call of a function ("module.name" or "module.Class.name"), the process gets a signal."""


@cache
def _server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "foci.learn.run",
            "foci.report.terminal",
            "foci.learn.estimate",
            "foci.study.run",
            "openai",
            "runs",
            "several",
            "training",
            "kept",
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (HELPERS, ROOT / "src"))))
        forkserver.ensure_running()
    return context


def start(
    arguments: Sequence[object], folder: Path, *, moment: Moment | None = None, slow: float = 0.0,
    stdout: Path | None = None,
) -> Child:  # fmt: skip
    """Begins a command in a process of its own. `slow`: seconds that every update takes longer.

    `stdout`: a file of the caller's for the output, such as a pipe.
    """
    words = [str(argument) for argument in arguments]
    return start_call(command, words, folder=folder, moment=moment, slow=slow, stdout=stdout)


def start_call(
    call: Callable[..., None], *arguments: Any, folder: Path, moment: Moment | None = None, slow: float = 0.0,
    stdout: Path | None = None,
) -> Child:  # fmt: skip
    """Begins `call(*arguments)`, a function of a module in tests/helpers or foci, in a process of its own."""
    number = len(list(folder.glob("*.err")))
    out, err = stdout or folder / f"{number}.out", folder / f"{number}.err"
    err.touch()
    process = _server().Process(target=_called, args=(call, arguments, (out, err), moment, slow))
    process.start()
    return Child(process, out, err)


def finished(arguments: Sequence[object], folder: Path, *, code: int = 0, moment: Moment | None = None) -> Child:
    """Runs a command to its end in a process of its own."""
    child = start(arguments, folder, moment=moment)
    assert child.wait() == code, child.err.read_text()
    return child


def command(arguments: list[str]) -> None:
    sys.argv = ["foci", *arguments]
    main.main()


def under_nohup(arguments: list[str]) -> None:
    """Runs a command as `nohup` does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    command(arguments)


def _called(
    call: Callable[..., None], arguments: Sequence[Any], files: tuple[Path, Path], moment: Moment | None, slow: float
) -> None:
    for descriptor, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    if moment is not None:
        name, count, signum = moment
        _before(name, lambda number: os.kill(os.getpid(), signum) if number == count else None)
    if slow:
        _before("foci.learn.callbacks.Metrics.on_step_end", lambda number: time.sleep(slow))
    call(*arguments)


def _before(name: str, act: Any) -> None:
    """Replaces a function by itself with `act(number of the call)` before it."""
    path, _, attribute = name.rpartition(".")
    try:
        owner = importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, kind = path.rpartition(".")
        owner = getattr(importlib.import_module(module), kind)
    inner, calls = getattr(owner, attribute), [0]

    def outer(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        act(calls[0])
        return inner(*args, **kwargs)

    setattr(owner, attribute, outer)
