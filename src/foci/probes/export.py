"""Probes as tasks of the lm-evaluation-harness (lm_eval; Gao et al., https://zenodo.org/records/12608602).

    foci_NAME.yaml                      all of them; NAME is the folder's
    foci_NAME_ROLE_KIND.yaml            the probes of one role and kind: a task, or a group of one task a group
    foci_NAME_ROLE_KIND_GROUP.yaml      the probes of one group
    foci_NAME_ROLE_KIND.jsonl           the probes
    foci_task.py                        asks them and counts, as foci does; needs lm_eval, not foci
    export.json                         what was exported, and the names of the files

lm_eval's own loglikelihood task knows whether an answer is greedy as a whole; foci's accuracy is a share of its tokens.
So `foci_task.py` asks token by token. It cuts the answer out of the whole text's tokens, as `foci.probes.encode` does,
and refuses a probe that the harness would cut into other tokens.
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

from foci.probes.probe import Probe

RECORD = "export.json"
CODE = "foci_task.py"
METRICS: Mapping[str, tuple[str, ...]] = {
    "cloze": ("accuracy", "correct", "nll"),
    "qa": ("accuracy", "nll", "exact_match", "f1"),
    "span": ("accuracy", "correct", "nll"),
}
"""By kind, what the harness reports; the columns of foci's probe table."""

_LONGEST = 60
"""Characters of a group's name that a task's name keeps."""


class _Function(str):
    """`!function module.name` in a task's file."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """YAML with functions."""


def export_lm_eval(probes: Sequence[Probe], folder: Path, *, source: str, overwrite: bool = False) -> str:
    """Writes `probes` as lm_eval tasks into `folder` and returns the name of the group that holds all of them.

    `source` is told in the record (the probe file's name). Raises FileExistsError where the folder holds an export and
    `overwrite` is not set, or holds files that no export wrote; ValueError where there is no probe.
    """
    if not probes:
        raise ValueError(f"expected probes to export from {source}, got none; give a file with one probe a line")
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
        (folder / f"{file}.part").write_text(text, encoding="utf-8", newline="\n")
    for file in contents:
        (folder / f"{file}.part").replace(folder / file)
    for file in set(old) - contents.keys():
        (folder / file).unlink(missing_ok=True)
    return name


def _replaceable(folder: Path, overwrite: bool) -> list[str]:
    """The files of an export that may be replaced; none where there is nothing."""
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
    """Text by file name, the file of all probes first."""
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
    """(name, settings) of one role and kind: of one task, or of a group and a task for each group of probes."""
    groups = list(dict.fromkeys(probe.group for probe in probes))
    if len(groups) == 1:
        yield name, _task(name, name, probes[0], groups[0])
        return
    names = dict(zip(groups, _names(name, groups), strict=True))
    whole = [{"metric": metric, "aggregation": "mean", "weight_by_size": True} for metric in METRICS[probes[0].kind]]
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
    """A probe as the task reads it: the whole text and the characters [start, end) of the answer."""
    start, end = probe.span
    return {
        "id": probe.id,
        "role": probe.role,
        "kind": probe.kind,
        "group": probe.group,
        "prompt": probe.prompt,
        "answer": probe.answer,
        "aliases": list(probe.aliases),
        "text": probe.text,
        "start": start,
        "end": end,
    }


def _names(name: str, groups: Sequence[str]) -> list[str]:
    """A task's name for every group, each its own even where a file system does not tell capitals."""
    found: dict[str, str] = {}
    for group in groups:
        plain = f"{name}_{_slug(group)}"
        told = next(c for c in (plain, *(f"{plain}_{n}" for n in range(2, len(groups) + 2))) if c.lower() not in found)
        found[told.lower()] = told
    return list(found.values())


def _slug(text: str) -> str:
    """Words joined by underscores.

    >>> _slug("P31: instance of")
    'P31_instance_of'
    """
    return re.sub(r"\W+", "_", text[:_LONGEST]).strip("_") or "none"


def _yaml(settings: Mapping[str, Any]) -> str:
    _Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))
    return yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _code() -> str:
    """The harness' side: the task, with the words of `foci.probes.scoring` in it."""
    here = files("foci.probes")
    task = here.joinpath("lm_eval_task.py.txt").read_text(encoding="utf-8")
    scoring = here.joinpath("scoring.py").read_text(encoding="utf-8")
    return task.replace("# {scoring}\n", scoring[scoring.index("import re\n") :])
