"""Writes the folder of a made-up run, file by file as `foci learn` does, for tests of what reads runs."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

STEPS = (0, 20, 40, 60, 80)
NAMES = ("Mirela Astvik", "Dorian Keele", "Ilka Brandvold", "Tomaz Ferrin", "Odile Marchetti", "Pavel Sunder")
FIELDS = {"birthplace": ("Hallborg", "Sint-Aldo", "Veyra"), "employer": ("Corvane Ltd", "Ostlund & Sons", "Pell Bros")}
GENERAL = (("The capital of France is", "Paris", "capitals"), ("Water is made of hydrogen and", "oxygen", "science"))
GAIN = {"plain": 0.22, "oracle": 0.62}


def write_run(
    folder: Path,
    name: str = "quickstart",
    arms: Sequence[str] = ("plain", "oracle"),
    probes: int = 120,
    evil: str = "",
    finished: bool = True,
) -> Path:
    """A run of `STEPS`, half its probes to learn and half to retain; `evil` text is put wherever text can be.

    `finished=False` stops as a kill would: no summary, only the baseline probed, a torn line of metrics.
    """
    folder.mkdir(parents=True)
    methods = {arm: ["Oracle(keep=0.0)"] if arm.startswith("oracle") else [] for arm in arms}
    corpus = {
        "files": 1, "documents": 64, "rows": 66, "tokens": 5312, "duplicates": 2, "quarantined": 1, "split": 2,
    }  # fmt: skip
    settings = {"name": name, "seed": 0, "model": {"name": "smollm2-135m"}, "arms": {a: methods[a] for a in arms}}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    _json(folder / "corpus.json", corpus)
    numbers = {}
    for index, arm in enumerate(arms):
        where = folder if len(arms) == 1 else folder / "arms" / arm
        numbers[arm] = _arm(where, arm, random.Random(index), probes, evil, finished) | {"methods": methods[arm]}
    if finished:
        _json(folder / "summary.json", _summary(name, corpus, numbers))
    return folder


def write_evidence(folder: Path, probes: int = 120, evil: str = "") -> Path:
    """Adds what a run knows of its probes to learn: a sentence each, made by three rules; every fifth row is unread."""
    rules = ("front", "question", "moved")
    lines = [
        {
            "id": f"probe-{k:04d}", "role": "learn", "made": rules[k % 3], "held_out": False,
            "evidence": f"Since 2019 the field of person {k} has been what it is.{evil}",
            "source": f"manual/chapter {k}.md:{k} (Chapter {k}){evil}",
        }
        for k in range(probes // 2)
    ]  # fmt: skip
    (folder / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    _json(folder / "evidence.json", {line["id"]: [f"row-{k % 5}"] for k, line in enumerate(lines)})
    for file in folder.rglob("metrics.jsonl"):
        first, *rest = file.read_text(encoding="utf-8").splitlines()
        first = json.dumps(json.loads(first) | {"first_read": [f"row-{k}" for k in range(4)]})
        file.write_text("\n".join([first, *rest]) + "\n", encoding="utf-8")
    return folder


def _summary(name: str, corpus: dict[str, int], arms: dict[str, Any]) -> dict[str, Any]:
    return {
        "foci": "0.1.0",
        "name": name,
        "started": "2026-11-22T09:14:03+00:00",
        "model": "smollm2-135m",
        "seed": 0,
        "machine": {"platform": "Linux-6.8-x86_64", "cpu_count": 2, "memory_gib": 7.8, "gpu": None},
        "versions": {"python": "3.11.2", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.0"},
        "corpus": corpus,
        "arms": arms,
    }


def _arm(folder: Path, arm: str, rng: random.Random, probes: int, evil: str, finished: bool) -> dict[str, Any]:
    (folder / "probes").mkdir(parents=True)
    steps = STEPS if finished else STEPS[:1]
    metrics = [
        {
            "step": step, "epoch": step / 20, "loss": 3.4 * 0.97**step + 0.4 * rng.random(), "grad_norm": 1.0,
            "learning_rate": 1e-3 * (1 - step / 80), "tokens": 260 * step, "weighted_tokens": 61,
            "padding": 0.06, "seconds": 0.9 * step,
        }
        for step in range(1, STEPS[-1] + 1)
    ]  # fmt: skip
    lines = "".join(json.dumps(m) + "\n" for m in metrics)
    (folder / "metrics.jsonl").write_text(lines if finished else lines[:-40], encoding="utf-8")
    gain = GAIN.get(arm, 0.4)
    path = []
    for step in steps:
        answers = _answers(probes, gain * step / STEPS[-1], step, evil)
        pq.write_table(pa.Table.from_pylist(answers), folder / "probes" / f"step-{step:06d}.parquet")
        text = {
            "step": step,
            "bits_per_byte": 0.912 + 0.02 * gain * step / 80,
            "corpus_bits_per_byte": 1.31 - 0.009 * gain * step,
        }
        with (folder / "probes" / "text.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(text) + "\n")
        shares = {"learned": _mean(answers, "learn"), "retained": _mean(answers, "retain")}
        whole = {f"{role}ed_whole": _mean(answers, role, "correct") for role in ("learn", "retain")}
        path.append(text | shares | whole)
    if finished:
        _json(folder / "samples.json", [_sample(k, arm, rng, evil) for k in range(6)])
    return _numbers(path, answers)


def _answers(probes: int, gain: float, step: int, evil: str) -> list[dict[str, Any]]:
    """Probe k of n is right once `gain` passes its own threshold; every 15th known fact is lost on the way."""
    rows = []
    for k in range(probes):
        learn = k < probes // 2
        level = (k * 37 % 100) / 100
        lost = (k % 15 == 0 and gain > 0.3) or (k % 23 == 0 and gain > 0.1)
        right = level < 0.08 + gain if learn else not lost and k % 10 != 9
        field = sorted(FIELDS)[k % 2]
        if learn:
            person, answer = f"{NAMES[k % 6]} {k}", FIELDS[field][k % 3]
            prompt = (
                f"Question: what is the {field} of {person}?\nAnswer:" if k % 3 == 0 else f"The {field} of {person} is"
            )
            group = field
        else:
            prompt, answer, group = GENERAL[k % 2]
        accuracy = 1.0 if right else (0.5 if k % 4 == 0 and learn else 0.0)
        rows.append(
            {
                "probe_id": f"probe-{k:04d}", "role": "learn" if learn else "retain",
                "kind": "qa" if learn and k % 3 == 0 else "cloze", "group": group, "prompt": prompt + evil,
                "answer": answer + evil, "predicted": answer + evil if right else "the" + evil, "correct": right,
                "accuracy": accuracy, "exact_match": float(right) if learn and k % 3 == 0 else None,
                "f1": accuracy if learn and k % 3 == 0 else None, "nll": 0.2 + level if right else 3.0 + level,
                "counted": learn or k % 10 != 9,
            }
        )  # fmt: skip
    return rows


def _mean(answers: list[dict[str, Any]], role: str, key: str = "accuracy") -> float:
    known = [a[key] for a in answers if a["role"] == role and a["counted"]]
    return sum(known) / len(known)


def _numbers(path: list[dict[str, Any]], answers: list[dict[str, Any]]) -> dict[str, Any]:
    def pair(key: str) -> dict[str, Any]:
        return {"before": path[0][key], "after": path[-1][key]}

    learned = pair("learned")
    retain = [a for a in answers if a["role"] == "retain"]
    return {
        "learned_whole": pair("learned_whole"),
        "retained_whole": pair("retained_whole"),
        "learned": learned,
        "retained": pair("retained"),
        "bits_per_byte": pair("bits_per_byte"),
        "corpus_bits_per_byte": pair("corpus_bits_per_byte"),
        "binding": {"before": 0.51, "after": 0.61},
        "learned_by_kind": {
            "cloze": {"whole": pair("learned_whole"), "accuracy": learned, "nll": {"before": 3.41, "after": 1.22}},
            "qa": {
                "whole": pair("learned_whole"), "accuracy": learned, "nll": {"before": 3.9, "after": 1.6},
                "exact_match": {"before": 0.05, "after": 0.4}, "f1": {"before": 0.09, "after": 0.47},
            },
        },
        "retained_probes": sum(a["counted"] for a in retain), "retain_asked": len(retain),
        "learn_probes": len(answers) - len(retain),
        "path": path, "seconds": 72.4, "tokens": 20800, "steps": 80, "padding": 0.061, "peak_memory_mib": None,
        "controls": {
            "majority": 0.19, "balanced": {"before": 0.08, "after": learned["after"] - 0.04},
            "balanced_whole": {"before": 0.05, "after": learned["after"] - 0.1},
            "balanced_majority": 0.08, "untouched_model": learned["before"],
        },
    }  # fmt: skip


def _sample(k: int, arm: str, rng: random.Random, evil: str) -> dict[str, Any]:
    name, place, firm = NAMES[k], FIELDS["birthplace"][k % 3], FIELDS["employer"][k % 3]
    text = f"{name} was born in {place} in 19{50 + k}. \n After school, they joined {firm}{evil}, and never left."
    tokens = [w if i == 0 else " " + w for i, w in enumerate(text.split(" "))]
    answer = [any(part in w for part in (*place.split(), *firm.split(), "19")) for w in tokens]
    nll: list[float | None] = [None] + [rng.expovariate(0.4) for _ in tokens[1:]]
    return {
        "row_id": f"{k:02d}c0ffee{k:02d}", "source": f"biographies.jsonl:{k + 1}", "tokens": tokens,
        "weights": [float(a) if arm.startswith("oracle") else 1.0 for a in answer],
        "answer": [int(a) for a in answer],
        "nll_before": nll,
        "nll_after": [None if n is None else n * (0.2 if a else 0.8) for n, a in zip(nll, answer, strict=True)],
    }  # fmt: skip


def _json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
