"""General facts and prose that are part of foci, to measure what a model forgets."""

from importlib.resources import files
from pathlib import Path


def general_facts_path() -> Path:
    """The probe file of general facts: probes to retain, kind `cloze`, one JSON object per line."""
    return Path(str(files("foci.probes").joinpath("general_facts.jsonl")))


def general_text_path() -> Path:
    """Returns the page of general prose for bits per byte: UTF-8, paragraphs between blank lines."""
    return Path(str(files("foci.probes").joinpath("general_text.md")))


def general_text() -> str:
    """Returns the page of general prose, as text."""
    return general_text_path().read_text(encoding="utf-8")
