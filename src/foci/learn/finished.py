"""The finished run that another one goes on from: where its model lies, its rows and probes, and what it taught."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foci.config.run import MADE, Run
from foci.corpus import read_rows
from foci.focus import Row
from foci.learn.chosen import choose
from foci.probes import Probe
from foci.rows import joined
from foci.system.files import read_json, read_lines
from foci.system.run_folder import RunFolder


@dataclass(frozen=True)
class Finished:
    """A finished run and the arm of it whose model goes on learning; `model` is the adapter, or all weights."""

    path: Path
    run: Run
    arm: str
    result: dict[str, Any]
    model: Path

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.path, len(self.run.arms))

    def state(self) -> dict[str, Any]:
        """Returns what the run knows of the batches before it; for a run that went on from none, an empty chain."""
        known = read_json(self.folder.earlier_state)
        start = read_json(self.folder.start)
        return known or {"batches": [], "untouched": start["model"], "new": None}  # type: ignore[no-any-return]

    def batches(self) -> list[dict[str, Any]]:
        """Returns all batches of pages that the model was taught, its own last: name, files with hashes, rows."""
        state = self.state()
        others = {str(path) for path in asked_files(self.run)}
        pages = {file: digest for file, digest in self._inputs().items() if file not in others}
        own = {"name": state.get("name", self.run.name), "files": pages, "rows": len(self._own_rows(state))}
        return [*state["batches"], own]

    def _inputs(self) -> Mapping[str, str]:
        """Returns the hashes of the files that the run was begun with."""
        return read_json(self.folder.start).get("inputs") or {}

    def check_tokenizer(self, fingerprint: str) -> None:
        """Raises ValueError where the run's rows were made by another tokenizer than the one with this fingerprint."""
        made_by = read_json(self.folder.start).get("tokenizer")
        if made_by not in (None, fingerprint):
            raise ValueError(
                f"the tokenizer of model {self.run.model.name} is not the one of {self.path} (fingerprint "
                f"{fingerprint}, was {made_by}), so that its rows would be other text now; put the old one back, or "
                "start a new run without continues"
            )

    def rows(self) -> Sequence[Row]:
        """Returns the rows of all batches, the oldest first; rows that were held out are not among them."""
        before = read_rows(self.folder.earlier_rows) if self.folder.earlier_rows.is_file() else []
        return joined(before, self._own_rows(self.state()))

    def _own_rows(self, state: dict[str, Any]) -> Sequence[Row]:
        """Returns the new rows of the run itself: those in front of the rehearsed ones."""
        return read_rows(self.folder.rows)[: state["new"]]

    def probes(self) -> list[Probe]:
        """Returns the probes to learn of all batches; ids begin with the number of the batch, from 1, and a slash."""
        number = len(self.state()["batches"]) + 1
        own = [probe for probe in probes_of(self.folder.questions) if probe.role == "learn"]
        return [*probes_of(self.folder.earlier_probes), *(replace(p, id=f"{number}/{p.id}") for p in own)]

    def history(self) -> dict[str, Any]:
        """Returns what each batch taught, and what was kept, after each batch; see `foci.learn.earlier`."""
        if "batches" in self.result:
            return json.loads(json.dumps(self.result["batches"]))  # type: ignore[no-any-return]

        def pair(name: str) -> list[float | None]:
            found = self.result.get(name) or {}
            return [found.get("before"), found.get("after")]

        own = {"name": self.run.name, "probes": self.result["learn_probes"]}
        return {
            "after": ["", self.run.name],
            "pages": [{**own, "learned": pair("learned_whole"), "tokens": pair("learned")}],
            "general": {
                "known": self.result["retained_probes"],
                "kept": pair("retained_whole"),
                "bits_per_byte": pair("bits_per_byte"),
                "asked": asked(self.run, self._inputs()),
            },
        }


def asked_files(run: Run) -> list[Path]:
    """Returns the files that a run reads, but those of its corpus: probes, text to retain, chat template."""
    probes = run.probes
    named = (probes.learn, probes.retain, probes.text, probes.held_out, run.corpus.chat_template)
    return [Path(name) for name in named if name not in (None, "general", MADE)]


def asked(run: Run, digests: Mapping[str, str]) -> dict[str, str | None]:
    """Returns what says whether two runs ask the same facts to retain, and the same text: names, or hashes of files."""
    named = {"facts": run.probes.retain, "text": run.probes.text}
    return {what: name and digests.get(str(Path(name)), name) for what, name in named.items()}


def finished(run: Run) -> Finished | None:
    """Returns the run that a run goes on from; None where it goes on from none.

    Raises FileNotFoundError where there is no such folder, and ValueError where it holds no finished run of
    `foci learn`, has no such arm, or trained another model or adapter.
    """
    if run.continues is None:
        return None
    path = Path(run.continues.run)
    before = read_finished(path, run.continues.arm)
    if (bits := before.run.model.bits) is not None:
        raise ValueError(
            f"{path} was trained on weights in {bits} bits (model.bits), and a run goes on from a merged model in "
            "float32; write that by foci export, and name its folder as model.name of a new run"
        )
    for name, own, other in (
        ("model", run.model.name, before.run.model.name),
        ("adapter", run.adapter, before.run.adapter),
    ):
        if own != other:
            raise ValueError(
                f"a run that goes on trains what the run before trained: {path} has {name} {_told(other)}, got "
                f"{_told(own)}; in a run file write the same {name}, else leave {name} out of the changes, or start a "
                "new run without continues"
            )
    return before


def read_finished(path: Path, arm: str | None) -> Finished:
    """Reads a finished run, and its arm: the one named, or the one that learned and retained the most.

    Raises what `foci.learn.chosen.choose` does, and ValueError where what was trained is gone or was changed.
    """
    chosen = choose(path, arm, whole=True)
    found = Finished(path, chosen.run, chosen.arm, chosen.result, chosen.trained)
    if not found.folder.start.is_file():
        raise ValueError(
            f"{path} is no run of foci learn: there is no start.json in it; name the output folder of a finished run"
        )
    if not found.model.is_dir():
        raise ValueError(
            f"{path} has no {found.model.name}/ of arm {found.arm} ({found.model} is not there), so there is nothing "
            "to go on from; put it back, or train that run again with --overwrite"
        )
    chosen.check_weights(found.model)
    return found


def _told(value: object) -> str:
    return "null (all weights)" if value is None else str(value)


def probes_of(path: Path) -> list[Probe]:
    """Returns the probes of a run's own file; none where there is no file. Raises ValueError for a damaged one."""
    lines: Sequence[dict[str, Any]] = read_lines(path)
    try:
        return [Probe(**{**line, "aliases": tuple(line["aliases"])}) for line in lines]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); put the whole file back, or use --overwrite") from None
