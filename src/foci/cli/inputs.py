"""Refuses wrong methods and paths at once, before torch is imported; readers check the rest later."""

from collections.abc import Iterable
from pathlib import Path

from foci.config.run import MADE, Methods, Run
from foci.config.trackers import check_trackers
from foci.config.values import meant_as_path
from foci.methods import check
from foci.system.files import existing


def check_methods(arms: Iterable[Methods]) -> None:
    """Raises ValueError, with the nearest right name, for a method or a setting that is not there."""
    for methods in arms:
        for method in methods:
            check(method)


def check_corpus(paths: Iterable[str]) -> None:
    """Raises FileNotFoundError for a file or folder of the corpus that is not there."""
    for path in paths:
        if not path.startswith("hub:"):
            existing(path, "corpus", "check corpus.path")


def check_model(name: str) -> None:
    """Raises FileNotFoundError where a model's name must be meant as a path and nothing is there.

    Raises ValueError for a folder that holds neither a model nor an adapter.
    """
    path = Path(name).expanduser()
    if meant_as_path(name):
        existing(path, "model", "name a folder, a .gguf file or a hub id")
    if path.is_dir() and not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
        holds = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
        raise ValueError(
            f"model {name!r} has no config.json in its folder, which holds {holds}; name a folder that save_pretrained "
            "wrote (of a run: out/RUN/model)"
        )


def check_run(run: Run, *, anew: bool = False) -> None:
    """Raises ValueError for an unknown method, FileNotFoundError for a path that is not there.

    A run that was begun goes on from what it kept, so its paths are not asked for again; `anew`: it begins again.
    """
    check_methods(run.arms.values())
    check_trackers(run.train.report_to)
    if not anew and (run.output / "start.json").is_file():
        return
    check_corpus(run.corpus.path)
    check_model(run.model.name)
    for key in ("learn", "retain", "held_out", "text"):
        path = getattr(run.probes, key)
        if path not in (None, "general", MADE):
            existing(path, f"probes.{key}", f"check probes.{key}")
