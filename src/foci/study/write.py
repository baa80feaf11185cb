"""Writes the suite of a study: its corpus, its probes, its record, and the run file that learns from it."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from foci.data.suite import CORPUS, HELD_OUT, LEARN, LeftOut, Suite
from foci.probes.probe import Probe
from foci.study.checks import Question, Rewrite
from foci.study.passages import Passage
from foci.study.settings import Settings
from foci.study.split import Split
from foci.system.files import write_text

RUN = "run.yaml"
WRITER = "writer"
"""The rule that made a probe, as its line says it."""


def probes_of(questions: Sequence[Question]) -> list[Probe]:
    """Returns a probe per question, with its evidence and its place."""
    return [
        Probe(
            id=f"study:{_name(one)}",
            role="learn",
            kind="qa",
            prompt=_prompt(one.question),
            answer=one.answer,
            evidence=one.evidence,
            source=one.passage.source,
            made=WRITER,
        )
        for one in questions
    ]


def _name(question: Question) -> str:
    return hashlib.sha256(f"{question.passage.id}\0{question.question}".encode()).hexdigest()[:12]


def _prompt(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def rows_of(passages: Sequence[Passage], split: Split, rewrites: Sequence[Rewrite]) -> Iterator[dict[str, Any]]:
    """Yields the lines of the corpus: every passage, then the study rows, each with its place."""
    for n, passage in enumerate(passages, 1):
        yield {"id": f"passage:{n}", "text": passage.text, "source": passage.source}
    for n, (one, wording) in enumerate(split.studied, 1):
        yield {
            "id": f"question:{n}",
            "prompt": _prompt(wording),
            "completion": f" {one.answer}",
            "source": one.passage.source,
            "evidence": one.evidence,
        }
    for n, rewrite in enumerate(rewrites, 1):
        yield {
            "id": f"rewrite:{n}",
            "text": rewrite.text,
            "source": rewrite.passage.source,
            "question": rewrite.question.question,
        }


def write_suite(
    settings: Settings, writer: str, passages: Sequence[Passage], split: Split, rewrites: Sequence[Rewrite],
    left_out: LeftOut,
) -> Path:  # fmt: skip
    """Writes the suite and its run file; returns the path of the run file. Raises ValueError without a probe."""
    shown = {"corpus": list(settings.corpus), "writer": writer, "base": settings.base}
    counts = ("questions", "rewrites", "limit", "words", "held_out", "seed")
    folder = Suite(
        name="study",
        settings={**shown, **{name: getattr(settings, name) for name in counts}},
        sources=(),
        learn=tuple(probes_of(split.asked)),
        held_out=tuple(probes_of(split.held)),
        rows=tuple(rows_of(passages, split, rewrites)),
        left_out=left_out,
        measured={"facts_to_learn": len(split.learn), "facts_held_out": len(split.held_out)},
    ).write(settings.folder)
    run: dict[str, Any] = {
        "name": folder.resolve().name,
        "output": str(folder / "run"),
        "model": {"name": settings.base},
        "corpus": {"path": str(folder / CORPUS)},
        "probes": {"learn": str(folder / LEARN)},
    }
    if split.held:
        run["probes"]["held_out"] = str(folder / HELD_OUT)
    note = "# Written by foci study; it is written anew whenever that command is run.\n"
    write_text(folder / RUN, note + yaml.safe_dump(run, sort_keys=False, allow_unicode=True))
    return folder / RUN


def examples(split: Split, count: int = 3) -> list[str]:
    """Returns some probes, spread over the corpus, each on one line with its place."""
    count = min(count, len(split.asked))
    some = [split.asked[n * len(split.asked) // count] for n in range(count)]
    return [
        f"  {one.question} -> {one.answer} ({json.dumps(one.passage.source, ensure_ascii=False)[1:-1]})" for one in some
    ]
