"""Folders of finished runs, of which one file is damaged: every command refuses it, tells of it, or does not read it.

A short form is run with all tests; `make faults` (FOCI_FAULTS=long) tries FOCI_FAULTS_FOLDERS (120) and prints a table.
One alone: FOCI_FAULTS_FOLDERS=:17.
"""

import json
import os
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import runs
from foci.cli import main

LONG = os.environ.get("FOCI_FAULTS") == "long"
ASKED = os.environ.get("FOCI_FAULTS_FOLDERS", "120" if LONG else "4")
SEED = os.environ.get("FOCI_FAULTS_SEED", "0")
DAMAGES = ("flipped", "cut", "emptied", "removed", "swapped")
LEFT_OUT = re.compile(r"(^|/)(report\.html|\.lock|README\.md)$|^checkpoints/|^slide/|^export/")
"""Files that no command reads again: a report, locks, model cards, and checkpoints of a finished arm."""
TOLD = re.compile(
    r"damaged|of another run|cannot be read|not whole|is missing|there is no|made again|written again|finished again"
)
COMMANDS = ("learn", "probe", "chat", "export", "slide", "report")
SHORT = (("report", "summary.json", "swapped"), ("export", "model/config.json", "emptied"))
"""Two that a long form found."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(run, whole copy, another run): the run's own place is restored before each try."""
    folder = tmp_path_factory.mktemp("folders")
    things = runs.material(folder)
    shared = {"arms": {"plain": []}, "train": {"epochs": None, "steps": 3, "checkpoint_every": None}}
    runs.finished(["learn", runs.run_file(folder, things, **shared)], folder)
    other = runs.run_file(folder / "other", things, seed=4, **shared)
    runs.finished(["learn", other, "corpus.max_length=48"], folder)
    runs.write_lines(folder / "asked.jsonl", [{**line, "role": "learn"} for line in runs.questions()])
    shutil.copytree(folder / "out", folder / "whole", symlinks=True)
    return folder / "out", folder / "whole", folder / "other" / "out"


def numbers():
    count, _, number = ASKED.partition(":")
    return [int(number)] if number else range(int(count))


def tries(whole):
    """Yields (number, command, file, damage)."""
    if not LONG and ":" not in ASKED:
        yield from ((n, *one) for n, one in enumerate(SHORT))
        return
    files = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    files = [file for file in files if not LEFT_OUT.search(file)]
    for number in numbers():
        draw = random.Random(f"{SEED}/{number}")
        yield number, COMMANDS[number % len(COMMANDS)], draw.choice(files), draw.choice(DAMAGES)


def damage(path, other, kind, draw):
    """Damages a file; `other` is the same file of another run."""
    raw = path.read_bytes() if path.is_file() else b""
    if kind == "removed":
        path.unlink()
    elif kind == "swapped" and other.is_file():
        shutil.copyfile(other, path)
    elif kind == "flipped" and raw:
        at = draw.randrange(len(raw))
        path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << draw.randrange(8))]) + raw[at + 1 :])
    elif kind == "cut":
        path.write_bytes(raw[: draw.randrange(max(1, len(raw)))])
    else:
        path.write_bytes(b"")


def arguments(command, run, folder):
    return {
        "learn": ["learn", run, "--resume"],
        "probe": ["probe", run / "model", folder / "asked.jsonl"],
        "chat": ["chat", run, "Where was Ada North born?", "--max-tokens", "3"],
        "export": ["export", run, "--out", folder / "exported", "--verify", "2"],
        "slide": ["slide", run, "--points", "2"],
        "report": ["report", run, "--out", folder / "page.html"],
    }[command]


def asked(command, run, folder, capsys):
    """(exit status, all words, what came of it) of a command."""
    for left in (folder / "exported", folder / "page.html"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    capsys.readouterr()
    with runs._argv(arguments(command, run, folder)), pytest.raises((SystemExit, Exception)) as stop:
        main.main()
    out, err = capsys.readouterr()
    code = stop.value.code if isinstance(stop.value, SystemExit) else repr(stop.value)
    return code, out, err, result(command, run, folder, out) if code == 0 else None


def result(command, run, folder, out):
    """What a command is for."""
    if command == "report":
        return re.sub(r"\d\d:\d\d(:\d\d)?", "", (folder / "page.html").read_text())
    if command == "export":
        return {name: value.sum() for name, value in load_file(folder / "exported" / "model.safetensors").items()}
    if command == "slide":
        table = json.loads((run / "slide.json").read_text())
        return re.sub(r'"seal": "\w+"', "", json.dumps(table, sort_keys=True))
    if command == "learn":
        arm = json.loads((run / "arm.json").read_text())
        return {name: arm[name] for name in ("weights_sha256", "loss", "steps")}
    return out


def same(one, other):
    if isinstance(one, dict) and one and all(isinstance(value, torch.Tensor) for value in one.values()):
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    return one == other


def flaw(code, out, err, found, known, names):
    """Says what is wrong with how a command ended, if anything is."""
    words = out + err
    if "Traceback" in words or code not in (0, 2):
        return f"ended with {code}: {words[-600:]}"
    if code == 2:
        if "\n\n" in err.strip() or not err.strip():
            return f"no paragraph: {err}"
        flat = "".join(err.split())
        return None if any("".join(str(name).split()) in flat for name in names) else f"names no place: {err}"
    told = TOLD.search(words) or (isinstance(found, str) and TOLD.search(found))
    return None if told or same(found, known) else f"a wrong success: {words[-300:]}"


def test_a_damaged_file_of_a_finished_run_is_never_used_in_silence(folders, capsys):
    run, whole, other = folders
    folder = run.parent
    known = {}
    wrong, ended = [], Counter()
    for number, command, file, kind in tries(whole):
        if command not in known:
            restore(run, whole)
            code, out, err, known[command] = asked(command, run, folder, capsys)
            assert code == 0, out + err
        restore(run, whole)
        damage(run / file, other / file, kind, random.Random(f"{SEED}/{number}/bytes"))
        code, out, err, found = asked(command, run, folder, capsys)
        ended[command, code] += 1
        if reason := flaw(code, out, err, found, known[command], (run, Path(file).name, str(run))):
            wrong.append(f"FOCI_FAULTS_FOLDERS=:{number} {command}, {file} {kind}: {reason}")
            if LONG:
                with capsys.disabled():
                    print("\n" + wrong[-1], flush=True)
    if LONG:
        with capsys.disabled():
            print(f"\n| command (seed {SEED}) | read, or told and made again | refused |\n|---|---|---|")
            for command in COMMANDS:
                print(f"| `foci {command}` | {ended[command, 0]} | {ended[command, 2]} |")
    assert not wrong, f"{len(wrong)} of {sum(ended.values())}:\n" + "\n".join(wrong)


def restore(run, whole):
    shutil.rmtree(run)
    shutil.copytree(whole, run, symlinks=True)
