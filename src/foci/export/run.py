"""Runs `foci export`: an arm of a run -> a folder in some form -> the same questions -> its card."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.text import Text

from foci.card.usage import Form, vllm_command
from foci.card.vllm import why_refused
from foci.card.write import write_card
from foci.export.adapter import check_adapter as adapter_there
from foci.export.adapter import check_public_base, write_adapter
from foci.export.checking import Check, Questions, check_adapter, check_gguf, check_merged, table_of, worse
from foci.export.gguf import check_kind, gguf_size, write_gguf
from foci.export.merged import merged_size, write_merged
from foci.export.ollama import write_modelfile
from foci.export.place import RECORD, files_in, placed
from foci.export.push import Hub
from foci.export.source import Source
from foci.report import tables
from foci.system.files import read_json, write_json
from foci.system.signals import stoppable
from foci.system.words import counted


@dataclass(frozen=True)
class Wanted:
    """The form that is to be written: a kind of GGUF, else the adapter alone, else the merged model.

    `asked` is how many questions are asked of it, `out` the folder, None for one in the run's.
    """

    gguf: str | None = None
    adapter: bool = False
    out: Path | None = None
    asked: int = 100
    overwrite: bool = False

    def folder(self, source: Source) -> Path:
        """Returns the folder that is written to."""
        if self.out is not None:
            return self.out
        return source.path / "export" / f"{source.arm}-{self.gguf or ('adapter' if self.adapter else 'model')}"


def export(source: Source, wanted: Wanted, console: Console) -> Path:
    """Writes, asks, and says what came of it; returns the folder.

    Raises ValueError, with commands that can do it, where something cannot be written in this form, FileExistsError for
    a folder that is not free.
    """
    folder, taught = wanted.folder(source), source.taught()
    questions = Questions(source, wanted.asked)
    with stoppable(), placed(folder, _size(source, wanted), overwrite=wanted.overwrite) as part:
        form, checks = _written(source, wanted, part, questions, console)
        checks = [questions.trained(), *checks]
        form = replace(form, checked=_told(checks))
        write_card(part, taught, form)
        write_json(part / RECORD, {**_record(source, form, checks), "files": files_in(part)})
    _say(folder, form, checks, source, console)
    return folder


def written(source: Source, wanted: Wanted, console: Console, hub: Hub | None = None) -> None:
    """Writes an export and puts it on the hub; with a hub, an export that is there already is sent as it is.

    Raises what `export` does, and ValueError for an adapter that nobody else could load.
    """
    if hub is not None and wanted.adapter:
        check_public_base(source)
    there = hub is not None and not wanted.overwrite and is_there(source, wanted)
    folder = wanted.folder(source) if there else export(source, wanted, console)
    if hub is not None:
        page = hub.push(folder, f"{source.run.name}, {source.arm}")
        seen = "private" if hub.private else "everybody sees it"
        console.print(f"pushed {folder}: {page} ({seen})", highlight=False, markup=False, soft_wrap=True)


def is_there(source: Source, wanted: Wanted) -> bool:
    """Returns whether the folder holds this very export already: the same weights in the same form."""
    record = read_json(wanted.folder(source) / RECORD)
    if not isinstance(record, dict):
        return False
    kind = "gguf" if wanted.gguf else "adapter" if wanted.adapter else "model"
    same = record.get("kind") == kind and (wanted.gguf is None or record.get("precision") == wanted.gguf)
    return same and record.get("weights_sha256") == source.weights_sha256


def _size(source: Source, wanted: Wanted) -> int:
    """Returns about how many bytes are written; raises ValueError where the form cannot be written here."""
    if wanted.gguf is not None:
        check_kind(wanted.gguf, source)
        return gguf_size(source, wanted.gguf)
    if wanted.adapter:
        adapter_there(source)
        return sum(file.stat().st_size for file in source.folder.adapter.iterdir()) + 2**20
    return merged_size(source)


def _written(
    source: Source, wanted: Wanted, part: Path, questions: Questions, console: Console
) -> tuple[Form, list[Check]]:
    """Writes one form into a folder and asks it."""
    check: Callable[[Source, Path, Questions], list[Check]]
    if wanted.gguf is not None:
        file = write_gguf(source, part, wanted.gguf)
        if note := write_modelfile(source, file):
            console.print(f"Modelfile: {note}", highlight=False, markup=False, soft_wrap=True)
        form, check = Form("gguf", source.name, wanted.gguf, file=file.name), check_gguf
    elif wanted.adapter:
        form = Form("adapter", source.name, "float32", settings=write_adapter(source, part))
        check = check_adapter
    else:
        form, check = Form("model", source.name, write_merged(source, part)), check_merged
    if questions.probes:
        console.print(f"asking {counted(len(questions.probes), 'question')}", highlight=False, markup=False)
    return form, check(source, part, questions)


def _told(checks: Sequence[Check]) -> str:
    """Returns the table of the checks and their notes in Markdown."""
    notes = [f"{tables.marked(note)}." for check in checks for note in check.notes]
    shown = [tables.markdown(table_of(checks))] if any(check.asked for check in checks) else []
    return "\n\n".join([*shown, *notes])


def _record(source: Source, form: Form, checks: Sequence[Check]) -> dict[str, object]:
    return {
        "foci": version("foci"),
        "run": source.run.name,
        "arm": source.arm,
        "kind": form.kind,
        "precision": form.precision,
        "weights_sha256": source.weights_sha256,
        "checks": [check.as_data() for check in checks],
    }


def _say(folder: Path, form: Form, checks: Sequence[Check], source: Source, console: Console) -> None:
    """Prints what was written, what it answered, and how it is used."""

    def line(words: str) -> None:
        console.print(words, highlight=False, markup=False, soft_wrap=True)

    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    if any(check.asked for check in checks):
        console.print()
        console.print(tables.terminal(table_of(checks), fold=12))
    for check in checks:
        for note in check.notes:
            line(note)
    for words in worse(checks):
        console.print(Text.assemble(("warning: ", "bold yellow"), words))
    line(f"\n{form.kind}: {folder} ({form.precision}, {size / 1e6:,.0f} MB)")
    if form.kind == "adapter":
        base = source.base()
        refused = why_refused(form.settings)
        line(
            f"vLLM does not take it: {refused}"
            if refused
            else vllm_command(form, source.base_place(), str(folder.resolve()))
        )
        if not base.on_hub:
            line("note: the base model is a place on this machine: others can load the adapter only with it")
        elif base.note:
            line(f"note: {base.note}")
    elif form.kind == "gguf":
        line(f"ollama create {form.name.lower()} -f {shlex.quote(str(folder.resolve() / 'Modelfile'))}")
