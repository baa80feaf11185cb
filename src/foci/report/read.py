"""Reads a run's folder from its files alone. Files that are missing or torn become notices, not errors."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from foci.report.measure import Answer, Evidence, path, reconstruct
from foci.report.words import number
from foci.system.files import is_plain, read_json
from foci.system.harmless import visible
from foci.system.inputs import damaged

OF_ONE_RUN = ("weights_sha256", "seconds")
"""Numbers of an arm that no two runs share."""
MARKS = ("run.yaml", "summary.json")
"""Files that make a folder a run: at least one of them is there."""


@dataclass(frozen=True)
class Arm:
    """One arm: `numbers` has the shape of `summary.json`'s arms, whether or not that file was written."""

    name: str
    methods: list[str]
    numbers: dict[str, Any]
    points: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    before: list[Answer]
    after: list[Answer]
    last_step: int
    samples: list[dict[str, Any]]
    guided: list[dict[str, Any]] = field(default_factory=list)
    maps: Any = None
    profiles: list[dict[str, Any]] = field(default_factory=list)
    folder: Path = Path()


@dataclass(frozen=True)
class Run:
    """A run's folder. `notices` say in words what is missing from it, `notes` how its corpus was read.

    `evidence` is by the ids of probes to learn.
    """

    folder: Path
    name: str
    facts: dict[str, Any]
    arms: list[Arm]
    run_yaml: str
    config: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    slide: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Evidence] = field(default_factory=dict)


def read_run(folder: Path) -> Run:
    """Reads the folder of a run, finished or not.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder is not a run.

    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected the output folder of a `foci learn` run")
    if not any((folder / mark).is_file() for mark in MARKS):
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"{folder} is not a run: expected {' or '.join(MARKS)} in it, found {found}; "
            "give the output folder of a `foci learn` run"
        )
    notices: list[str] = []
    summary = _mapping(_read(folder / "summary.json", _json, notices))
    run_yaml = _read(folder / "run.yaml", _text, notices) or ""
    config = _mapping(_read(folder / "run.yaml", _yaml, notices)) if run_yaml else {}
    if not summary:
        notices.append("The run has not finished (no summary.json): the numbers are those reached so far.")
    if not run_yaml:
        notices.append("The run file (run.yaml) is missing.")
    facts = _facts(summary, config)
    facts["corpus"] = facts["corpus"] or _mapping(_read(folder / "corpus.json", _json, notices))
    name = str(summary.get("name") or config.get("name") or folder.resolve().name)
    arms = _arms(folder, summary, config, notices)
    notices += [f"Files are {words}" for words in _told_damaged(folder, "start.json")]
    slide = _mapping(_read(folder / "slide.json", _json, notices)) if (folder / "slide.json").is_file() else {}
    notes = _notes(facts["corpus"].get("notes"))
    return Run(folder, visible(name), facts, arms, run_yaml, config, notices, notes, slide, _evidence(folder, notices))


def _notes(notes: Any) -> list[str]:
    """Returns the sentences on how the corpus was read, as sentences."""
    return [f"Corpus: {note}." for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _evidence(folder: Path, notices: list[str]) -> dict[str, Evidence]:
    """Returns what is known of the probes to learn; nothing for runs of earlier versions."""
    probes = _read(folder / "probes.jsonl", _jsonl, notices) or []
    rows = _mapping(_read(folder / "evidence.json", _json, notices))
    return {
        str(probe.get("id")): {**probe, "rows": rows.get(str(probe.get("id")))}
        for probe in probes
        if probe.get("role") == "learn"
    }


def _facts(summary: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    model = config.get("model")
    seed = summary.get("seed", config.get("seed"))
    return {
        "model": summary.get("model") or (model.get("name") if isinstance(model, Mapping) else model),
        "seed": seed,
        "started": summary.get("started"),
        "foci": summary.get("foci"),
        "went_on": _mapping(summary.get("continues")),
        "corpus": _mapping(summary.get("corpus")),
        "machine": _mapping(summary.get("machine")),
        "versions": _mapping(summary.get("versions")),
    }


def _arms(folder: Path, summary: Mapping[str, Any], config: Mapping[str, Any], notices: list[str]) -> list[Arm]:
    numbers, methods = _mapping(summary.get("arms")), _mapping(config.get("arms"))
    folders = sorted(p.name for p in (folder / "arms").glob("*") if p.is_dir())
    listed = list(dict.fromkeys([*numbers, *methods]))
    names = [name for name in listed if is_plain(name)] or list(folders) or ["plain"]
    if odd := [name for name in listed if not is_plain(name)]:
        notices.append(f"Left out: {visible(odd[0])!r} is no name of an arm; it leads out of the run's folder.")
    arms = []
    for name in names:
        where = folder if len(names) == 1 and name not in folders else folder / "arms" / name
        own = _mapping(numbers.get(name))
        asked = own["methods"] if "methods" in own else methods.get(name)
        arms.append(_arm(name, where, own, asked, notices))
    return arms


def _arm(name: str, folder: Path, summary: dict[str, Any], methods: Any, notices: list[str]) -> Arm:
    own: list[str] = []
    metrics = _read(folder / "metrics.jsonl", _jsonl, own) or []
    texts = _read(folder / "probes" / "text.jsonl", _jsonl, own) or []
    probings: dict[int, list[Answer]] = {}
    for file in sorted((folder / "probes").glob("step-*.parquet")):
        answers = _read(file, _parquet, own)
        if answers is not None and (step := file.stem.removeprefix("step-")).isdigit():
            probings[int(step)] = answers
    samples = _read(folder / "samples.json", _json, own)
    points = _joined(summary, path(probings, texts))
    first, last = (min(probings), max(probings)) if probings else (0, 0)
    kept = _mapping(summary.get("kept")).get("step")
    last = kept if kept in probings else last
    profiles = [_read(file, _json, own) for file in sorted((folder / "scores").glob("*/profile.json"))]
    own += _missing(metrics, probings, samples) + _told_damaged(folder, "arm.json") + _told_of_another(folder, summary)
    notices.extend(f"Arm {name}: {notice}" for notice in own)
    return Arm(
        name=visible(name),
        methods=[_method(m) for m in methods] if isinstance(methods, list) else [],
        numbers=reconstruct(points, probings, metrics) | summary,
        points=points,
        metrics=metrics,
        before=probings.get(0, []),
        after=probings[last] if last > first else [],
        last_step=last,
        samples=[s for s in samples or [] if isinstance(s, dict) and s.get("tokens")],
        guided=(_read(folder / "guided.jsonl", _jsonl, own) if (folder / "guided.jsonl").is_file() else None) or [],
        maps=_read(folder / "maps.json", _json, own) if (folder / "maps.json").is_file() else None,
        profiles=[p for p in profiles if isinstance(p, dict) and isinstance(p.get("blocks"), list)],
        folder=folder,
    )


def _joined(summary: Mapping[str, Any], measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the path of the summary where there is one, with what the other files know of each step."""
    path_of_summary = summary.get("path")
    if not isinstance(path_of_summary, list) or not path_of_summary:
        return measured
    known = {point["step"]: point for point in measured}
    points = [p for p in path_of_summary if isinstance(p, dict) and number(p.get("step")) is not None]
    return [known.get(p["step"], {}) | p for p in sorted(points, key=lambda p: p["step"])]


def _told_damaged(folder: Path, record: str) -> list[str]:
    """Returns a notice on the files, of those read here, that are not what the run wrote; `record` has their hashes."""
    written = _mapping(_mapping(_read(folder / record, _json, [])).get("files"))
    shown = {name: digest for name, digest in written.items() if not name.endswith((".safetensors", "rows.parquet"))}
    wrong = damaged(folder, shown)
    return [f"not as the run wrote them (damaged or changed): {', '.join(wrong)}."] if wrong else []


def _told_of_another(folder: Path, summary: Mapping[str, Any]) -> list[str]:
    """Returns a notice where the summary's numbers are not those that the arm was finished with."""
    record = _mapping(_read(folder / "arm.json", _json, []))
    wrong = [name for name in OF_ONE_RUN if name in record and summary.get(name, record[name]) != record[name]]
    if not wrong:
        return []
    return [f"summary.json and arm.json differ in {', '.join(wrong)}: one of them is damaged, or of another run."]


def _missing(metrics: list[Any], probings: Mapping[int, Any], samples: Any) -> list[str]:
    notices = []
    if not metrics:
        notices.append("no training metrics (metrics.jsonl).")
    if not probings:
        notices.append("no probes were answered (no probes/step-*.parquet).")
    elif 0 not in probings:
        notices.append("the untouched model's answers are missing (no probes/step-000000.parquet).")
    elif len(probings) == 1:
        notices.append("probes were answered only before the first step; there is no after.")
    if not samples:
        notices.append("no sample rows with token weights (samples.json).")
    return notices


def _method(method: Any) -> str:
    """Writes a method as the summary (its repr) or the run file (its name, or {name: settings}) gives it."""
    if isinstance(method, Mapping):
        return ", ".join(f"{n}({_settings(s)})" for n, s in method.items())
    return str(method)


def _settings(settings: Any) -> str:
    return ", ".join(f"{k}={v}" for k, v in settings.items()) if isinstance(settings, Mapping) else ""


def _mapping(value: Any) -> dict[str, Any]:
    return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}


def _read(file: Path, reader: Callable[[Path, list[str]], Any], notices: list[str]) -> Any:
    """Reads a file with `reader`; None, with a notice, for one that is torn; None for one that is absent."""
    if not file.is_file():
        return None
    try:
        return reader(file, notices)
    except (ValueError, yaml.YAMLError, pa.ArrowException, OSError) as error:
        notices.append(f"{file.name} cannot be read and is left out ({str(error).splitlines()[0][:120]}).")
        return None


def _text(file: Path, _: list[str]) -> str:
    return file.read_text(encoding="utf-8")


def _json(file: Path, _: list[str]) -> Any:
    return read_json(file)


def _yaml(file: Path, _: list[str]) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _parquet(file: Path, _: list[str]) -> list[Answer]:
    answers: list[Answer] = pq.ParquetFile(file).read().to_pylist()
    return answers


def _jsonl(file: Path, notices: list[str]) -> list[dict[str, Any]]:
    """Reads a file with one object per line; skips a torn line (of a run killed while writing) with a notice."""
    rows, torn = [], 0
    for line in file.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            torn += 1
            continue
        if isinstance(row, dict):
            rows.append(row)
    if torn:
        notices.append(f"{file.name} has {torn} torn line{'s' if torn > 1 else ''}, left out.")
    return rows
