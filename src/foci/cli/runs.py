"""Makes the run that a command is about, of a run file, a run's folder, texts, or a finished run to go on from."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foci.cli.inputs import check_run
from foci.config.run import MADE, Run, load, of_settings

Kind = type[Run] | Callable[[Mapping[str, Any]], type[Run]]
"""The kind of run that a file holds, or a function that says it by the file's keys."""


def checked_run(
    target: str | None,
    changes: list[str],
    corpus: list[str] | None,
    model: str | None,
    out: str | None,
    kind: Kind = Run,
    *,
    anew: bool = False,
) -> Run:
    """Returns the run that arguments and flags describe, after a check that its methods and paths exist.

    `anew`: a run that was begun does not go on, so that its paths are needed again.
    """
    run = _run_of(target, changes, corpus, model, out, kind)
    check_run(run, anew=anew)
    return run


def run_from(before: str, arm: str | None, texts: Sequence[str], out: str | None, changes: Sequence[str]) -> Run:
    """Returns the run that goes on from a finished one with further texts, by the settings of that one.

    It has the arm alone whose model goes on; questions about the old pages are asked as earlier ones, so that those to
    learn are made from the new texts unless `changes` name some. Raises what `foci.learn.finished.read_finished`
    raises, and ValueError where no text or a run file is given.
    """
    if not texts:
        raise ValueError(f"what should be learned after {before}? Got no text; write: foci learn NEW_PAGES --from RUN")
    if runs := [text for text in texts if is_run(Path(text))]:
        raise ValueError(
            f"--from goes on with further texts, got the run {runs[0]}; name the texts, or write "
            f"continues: {{run: {before}}} into the run file"
        )
    from foci.learn.finished import read_finished

    found = read_finished(Path(before).expanduser(), arm)
    raw = found.run.model_dump(mode="json")
    earlier = found.run.continues
    raw["corpus"]["path"] = list(texts)
    if raw["train"]["patience"] is not None and raw["probes"]["held_out"] is not None:
        del raw["probes"]["held_out_share"], raw["corpus"]["held_out_share"]  # the defaults hold something out instead
    raw["probes"] |= {"held_out": None} | ({} if raw["probes"]["learn"] is None else {"learn": MADE})
    raw["arms"] = {found.arm: raw["arms"][found.arm]}
    raw["continues"] = {"run": before, "arm": found.arm, "ratio": 1.0 if earlier is None else earlier.ratio}
    del raw["name"], raw["output"]
    if out is not None:
        raw["output"] = out
    run = of_settings(raw, changes)
    taken = {page["name"] for page in found.history()["pages"]}
    if run.name in taken and not any(change.startswith("name=") for change in changes):
        run = of_settings({**raw, "name": f"{run.name}-{len(found.batches()) + 1}"}, changes)
    check_run(run)
    return run


def _run_of(
    target: str | None, changes: list[str], corpus: list[str] | None, model: str | None, out: str | None, kind: Kind
) -> Run:
    """Reads the run file, or makes a run from texts. Raises ValueError where there is neither."""
    target, changes = _without_change(target, changes)
    if target is not None and is_run(Path(target)):
        flags = {"model.name": model, "output": out, "corpus.path": corpus}
        run: Run = load(
            target,
            [*changes, *(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in flags.items() if value)],
            kind,
        )
        is_suite = (Path(target) / "suite.json").is_file()  # of foci study, whose run has a folder of its own
        elsewhere = Path(target).is_dir() and out is None and run.output.resolve() != Path(target).resolve()
        if elsewhere and not (Path(target) / "start.json").is_file() and not is_suite:
            raise ValueError(
                f"{target} holds a run file, and no run of it was begun there; name the file itself: "
                f"{Path(target) / 'run.yaml'}"
            )
        if elsewhere and not is_suite:
            raise ValueError(
                f"{target} holds a run whose output is {run.output}, which from here is another folder; go to the "
                "directory the run was begun in (and move it back), or begin it anew with --out FOLDER"
            )
        return run
    texts, changes = texts_and_changes(target, changes, corpus)
    if not texts:
        raise ValueError(
            "what should be learned? Got no text; give a run file, a run's folder, or: foci learn my_texts/"
        )
    return Run.of_flags(texts, model, out, changes)


def texts_and_changes(
    target: str | None, words: Sequence[str], corpus: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Returns the texts that were named, in whatever order and place, and the changes of keys."""
    target, changes = _without_change(target, list(words))
    further = [word for word in changes if _is_path(word)]
    texts = [text for text in (target, *further, *(corpus or [])) if text]
    return texts, [word for word in changes if word not in further]


def _without_change(target: str | None, changes: list[str]) -> tuple[str | None, list[str]]:
    """Returns target and changes, in whatever order they were typed: a change of a key in the target's place is one of
    the changes, and the first text or run among these is the target.
    """
    if target is None or "=" not in target or Path(target).exists():
        return target, changes
    found = next((word for word in changes if _is_path(word)), None)
    return found, [target, *(word for word in changes if word is not found)]


def _is_path(word: str) -> bool:
    """Returns whether a word names a file or a folder, and does not change a key."""
    return "=" not in word and Path(word).expanduser().exists()


def is_run(path: Path) -> bool:
    """Returns whether a path is a run file or the folder of a run."""
    return path.suffix in (".yaml", ".yml") or (path / "run.yaml").is_file()
