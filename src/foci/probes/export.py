"""Exports probes as tasks of the lm-evaluation-harness (lm_eval; Gao et al., https://zenodo.org/records/12608602).

    foci_NAME.yaml                      all probes; NAME is the folder's
    foci_NAME_ROLE_KIND.yaml            the probes to learn or retain of one kind: a task, or one task a group
    foci_NAME_ROLE_KIND_GROUP.yaml      the probes of one group
    foci_NAME_ROLE_KIND.jsonl           the probes
    foci_task.py                        asks and counts as foci does; needs lm_eval, not foci
    export.json                         a record: source, number of probes, names and hashes of the files

lm_eval's own loglikelihood task knows whether an answer is greedy as a whole; foci's accuracy is a share of its tokens.
So `foci_task.py` asks token by token. It finds the answer in the tokens of the whole text, as `foci.probes.encode`
does, and raises an error for a probe that the harness would cut into other tokens. It is `foci.probes.lm_eval_task`
with `foci.probes.scoring` written into it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from foci.probes.probe import Probe, kind_of
from foci.system.files import write_text

RECORD = "export.json"
CODE = "foci_task.py"
SCORING = "from foci.probes.scoring import exact_match, f1, first_line, marks, squad_exact_match, squad_f1\n"
"""The line of the task's module that the text of `foci.probes.scoring` replaces."""
_LONGEST = 60
"""The number of characters of a group's name that a task's name keeps."""


def metrics_of(kind: str) -> tuple[str, ...]:
    """Returns the metrics that the harness reports for a kind of probe: columns of foci's probe table."""
    generated = kind_of(kind).generated
    if generated:
        return ("accuracy", "nll", "exact_match", "f1", "squad_exact_match", "squad_f1")
    return ("accuracy", "correct", "nll")


class _Function(str):
    """`!function module.name` in a task's file."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """YAML with functions."""


def export_lm_eval(probes: Sequence[Probe], folder: Path, *, source: str, overwrite: bool = False) -> str:
    """Writes `probes` as lm_eval tasks into `folder` and returns the name of the group that holds all of them.

    `source` stands in the record (the probe file's name). Raises FileExistsError where the folder holds an export and
    `overwrite` is not set, or holds files that no export wrote; ValueError where there is no probe, or one of a kind
    that the harness cannot ask.
    """
    if not probes:
        raise ValueError(f"expected probes to export from {source}, got none; give a file with one probe a line")
    if alone := [probe for probe in probes if not kind_of(probe.kind).exported]:
        raise ValueError(
            f"{len(alone)} of {len(probes)} probes are of a kind that foci's own code alone can judge, such as "
            f"{alone[0].id!r} ({alone[0].kind}); leave them out of {source}"
        )
    contents = _contents(probes, f"foci_{_slug(folder.resolve().name)}")
    name = next(iter(contents)).removesuffix(".yaml")
    record = {
        "name": name,
        "source": source,
        "foci": version("foci"),
        "probes": len(probes),
        "files": {file: hashlib.sha256(text.encode()).hexdigest() for file, text in contents.items()},
    }
    old = _replaceable(folder, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    contents[RECORD] = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    for file, text in contents.items():
        write_text(folder / file, text)
    for file in set(old) - contents.keys():
        (folder / file).unlink(missing_ok=True)
    return name


def _replaceable(folder: Path, overwrite: bool) -> list[str]:
    """Returns the files of an export that may be replaced; none where there is nothing."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, expected a folder or nothing; name another one")
    if not folder.exists() or not any(folder.iterdir()):
        return []
    if not (folder / RECORD).is_file():
        raise FileExistsError(f"{folder} holds files but no {RECORD}, so no export wrote them; name another folder")
    if not overwrite:
        raise FileExistsError(f"{folder} holds exported probes; replace them with --overwrite or name another folder")
    return [Path(file).name for file in json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]]


def _contents(probes: Sequence[Probe], name: str) -> dict[str, str]:
    """Returns text by file name, the file of all probes first."""
    parts = {
        f"{name}_{role}_{kind}": list(some)
        for (role, kind), some in groupby(sorted(probes, key=_side), key=_side)  # sorted() keeps the order within
    }
    texts = {f"{name}.yaml": _yaml({"group": name, "task": list(parts), "metadata": {"version": 1}})}
    for part, some in parts.items():
        texts[f"{part}.jsonl"] = "".join(json.dumps(_line(probe), ensure_ascii=False) + "\n" for probe in some)
        texts |= {f"{file}.yaml": _yaml(settings) for file, settings in _settings(part, some)}
    texts[CODE] = _code()
    return texts


def _side(probe: Probe) -> tuple[str, str]:
    return probe.role, probe.kind


def _settings(name: str, probes: Sequence[Probe]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (name, settings) of one role and kind: of one task, or of a group and a task per group of probes."""
    groups = list(dict.fromkeys(probe.group for probe in probes))
    if len(groups) == 1:
        yield name, _task(name, name, probes[0], groups[0])
        return
    names = dict(zip(groups, _names(name, groups), strict=True))
    whole = [{"metric": metric, "aggregation": "mean", "weight_by_size": True} for metric in metrics_of(probes[0].kind)]
    group = {"group": name, "task": list(names.values()), "aggregate_metric_list": whole, "metadata": {"version": 1}}
    yield name, group
    for asked, task in names.items():
        settings = _task(task, name, probes[0], asked)
        settings["metadata"]["foci_group"] = asked
        yield task, settings


def _task(name: str, data: str, probe: Probe, group: str) -> dict[str, Any]:
    return {
        "task": name,
        "task_alias": group or name,
        "class": _Function(f"{CODE.removesuffix('.py')}.Probes"),
        "output_type": "loglikelihood",
        "test_split": "test",
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "num_fewshot": 0,
        "metadata": {"version": 1, "foci_data": f"{data}.jsonl", "foci_role": probe.role, "foci_kind": probe.kind},
    }


def _line(probe: Probe) -> dict[str, Any]:
    """Returns a probe as the task reads it: the whole text and the characters [start, end) of the answer."""
    start, end = probe.span
    return {
        "id": probe.id,
        "role": probe.role,
        "kind": probe.kind,
        "generated": kind_of(probe.kind).generated,
        "group": probe.group,
        "prompt": probe.prompt,
        "answer": probe.answer,
        "aliases": list(probe.aliases),
        "text": probe.text,
        "start": start,
        "end": end,
    }


def _names(name: str, groups: Sequence[str]) -> list[str]:
    """Returns a task's name for every group; no two differ in capitals alone, which some file systems ignore."""
    found: dict[str, str] = {}
    for group in groups:
        plain = f"{name}_{_slug(group)}"
        free = next(c for c in (plain, *(f"{plain}_{n}" for n in range(2, len(groups) + 2))) if c.lower() not in found)
        found[free.lower()] = free
    return list(found.values())


def _slug(text: str) -> str:
    """Returns the words of a text, joined by underscores.

    >>> _slug("P31: instance of")
    'P31_instance_of'
    """
    return re.sub(r"\W+", "_", text[:_LONGEST]).strip("_") or "none"


def _yaml(settings: Mapping[str, Any]) -> str:
    _Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))
    return yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _code() -> str:
    """Returns the task's module, the text of `foci.probes.scoring` in place of its import: it needs no foci."""
    here = files("foci.probes")
    task = here.joinpath("lm_eval_task.py").read_text(encoding="utf-8")
    scoring = here.joinpath("scoring.py").read_text(encoding="utf-8")
    assert task.count(SCORING) == 1
    return task.replace(SCORING, scoring[scoring.index("import re\n") :])
