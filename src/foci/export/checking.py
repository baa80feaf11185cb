"""Asks the run's questions to what was written, and compares the answers with those of the trained model."""

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from foci import models
from foci.export import llama
from foci.export.source import Source
from foci.models.gguf import quiet
from foci.models.loading import load_tokenizer, load_weights
from foci.models.saved_adapter import with_adapter
from foci.probes import Answer, Probe, answer
from foci.report.tables import Table
from foci.report.words import NONE, percent

LOST = 0.05
"""The share of answer tokens whose loss by the export is worth a warning."""


@dataclass(frozen=True)
class Check:
    """The answers of one program to the same questions as the trained model, counted.

    `learned` and `retained` are (right answers, questions), None where nothing was asked. `tokens` is the share of
    answer tokens that are predicted, `same` the number of answers in the same words as the trained model's, of `asked`.
    `notes` are sentences for people; `loaded` is False where the program could not read what was written.
    """

    program: str
    asked: int = 0
    learned: tuple[int, int] | None = None
    retained: tuple[int, int] | None = None
    tokens: float | None = None
    same: int | None = None
    notes: tuple[str, ...] = ()
    loaded: bool = True

    def as_data(self) -> dict[str, Any]:
        """Returns the check as plain data, for export.json."""
        return {**vars(self), "notes": list(self.notes)}


class Questions:
    """The questions that are asked of what was written: at most `most` of the run's, and the trained model's answers.

    Half are to learn where there are so many, the others are those to retain that the untouched model answers; both are
    spread over the run's. Probes that were held out are not asked.
    """

    def __init__(self, source: Source, most: int) -> None:
        after = {(one.role, one.probe_id): one for one in source.after if one.counted and not one.held_out}
        asked = [probe for probe in source.probes if (probe.role, probe.id) in after]
        learn, retain = ([probe for probe in asked if probe.role == role] for role in ("learn", "retain"))
        half = min(len(learn), max(most // 2, most - len(retain)))
        self.probes: list[Probe] = [*_spread(learn, half), *_spread(retain, most - half)]
        self.known = [after[probe.role, probe.id] for probe in self.probes]
        self.batch_size = source.run.probes.batch_size

    def trained(self) -> Check:
        """Returns what the trained model answered, as the run measured it."""
        return self.compared("trained model", self.known)

    def compared(self, program: str, answers: Sequence[Answer], notes: Sequence[str] = ()) -> Check:
        """Compares answers, in the order of `probes`, with those of the trained model."""
        if not answers:
            return Check(program, notes=tuple(notes))
        right = {role: [one.correct for one in answers if one.role == role] for role in ("learn", "retain")}
        learned, retained = ((sum(found), len(found)) if found else None for found in right.values())
        same = sum(one.predicted == known.predicted for one, known in zip(answers, self.known, strict=True))
        tokens = sum(one.accuracy for one in answers) / len(answers)
        return Check(program, len(answers), learned, retained, tokens, same, tuple(notes))

    def ask(
        self, program: str, model: models.LanguageModel, tokenizer: PreTrainedTokenizerBase, notes: Sequence[str] = ()
    ) -> Check:
        """Asks a model in Transformers, in float32."""
        answers = answer(model, tokenizer, self.probes, batch_size=self.batch_size) if self.probes else []
        return self.compared(program, answers, notes)


def check_merged(source: Source, folder: Path, questions: Questions) -> list[Check]:
    """Loads a merged model by Transformers and asks it."""
    loaded = models.load(str(folder), dtype="float32", device="cpu", trust_remote_code=source.trust)
    return [questions.ask("Transformers", loaded.model, loaded.tokenizer)]


def check_adapter(source: Source, folder: Path, questions: Questions) -> list[Check]:
    """Puts an adapter upon the base model of the run by PEFT and asks it, not merged."""
    name, trust = source.run.model.name, source.trust
    below = load_weights(name, trust_remote_code=trust, bits=source.run.model.bits)
    adapted = with_adapter(below, folder, str(folder)).eval()
    return [questions.ask("PEFT", adapted, load_tokenizer(name, trust_remote_code=trust))]


def check_gguf(source: Source, folder: Path, questions: Questions) -> list[Check]:
    """Loads the GGUF file of a folder by Transformers' reader and by llama.cpp, where they can, and asks both.

    Raises ValueError where neither can load it.
    """
    (file,) = folder.glob("*.gguf")
    tokenizer = load_tokenizer(source.run.model.name, trust_remote_code=source.trust)
    checks = [
        _or_note("Transformers", file, lambda: _by_reader(file, tokenizer, questions)),
        _or_note("llama.cpp", file, lambda: _by_llama(file, tokenizer, questions)),
    ]
    if not any(check.loaded for check in checks):
        raise ValueError(
            f"{file.name} was written, but nothing here can load it: {'; '.join(n for c in checks for n in c.notes)}. "
            "It was deleted; try a newer llama.cpp (pip install -U cyllama), or another kind"
        )
    return checks


def _by_reader(file: Path, tokenizer: PreTrainedTokenizerBase, questions: Questions) -> Check:
    """Asks by Transformers' reader of GGUF, and compares the tokens of the file's own tokenizer."""
    read = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with quiet(), redirect_stderr(StringIO()):  # the reader draws a bar of its own
        model = AutoModelForCausalLM.from_pretrained(**read, dtype=torch.float32).eval()
        own = AutoTokenizer.from_pretrained(**read)
    others = sum(own(probe.text)["input_ids"] != tokenizer(probe.text)["input_ids"] for probe in questions.probes)
    return questions.ask("Transformers", model, tokenizer, _about_tokens(others, "Transformers", questions))


def _by_llama(file: Path, tokenizer: PreTrainedTokenizerBase, questions: Questions) -> Check:
    if not llama.is_there():
        words = "llama.cpp was not asked: the package cyllama is not installed (pip install 'foci[export]')"
        return Check("llama.cpp", notes=(words,), loaded=False)
    answers, others = llama.answers_of(file, tokenizer, questions.probes, questions.known)
    return questions.compared("llama.cpp", answers, _about_tokens(others, "llama.cpp", questions))


def _about_tokens(others: int, program: str, questions: Questions) -> list[str]:
    """Returns a note where a program reads texts as other tokens than the run did; the answers above used the run's."""
    of = len(questions.probes)
    return [f"{program} reads {others} of {of} questions as other tokens than the run's tokenizer"] if others else []


def table_of(checks: Sequence[Check]) -> Table:
    """Returns the checks that asked something as a table."""
    rows = [
        [
            check.program,
            _of(check.learned),
            _of(check.retained),
            percent(check.tokens),
            NONE if check.same is None else f"{check.same} of {check.asked}",
        ]
        for check in checks
        if check.asked
    ]
    return Table(["", "to learn,\nright", "to retain,\nright", "tokens,\n%", "same\nanswer"], rows)


def worse(checks: Sequence[Check]) -> list[str]:
    """Returns a sentence for each program whose answers are worse than the trained model's by more than `LOST`."""
    first, *others = checks
    return [
        f"{check.program} predicts {percent(check.tokens)} % of the answer tokens, the trained model "
        f"{percent(first.tokens)} %"
        for check in others
        if first.tokens is not None and check.tokens is not None and check.tokens < first.tokens - LOST
    ]


def _or_note(program: str, file: Path, ask: Callable[[], Check]) -> Check:
    """Returns a check, or one that says why a program cannot read the file; a card will hold the reason."""
    try:
        return ask()
    except (ValueError, KeyError, NotImplementedError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).replace(f"{file.parent}/", "").split())[:200]
        return Check(program, notes=(f"{program} cannot read this file: {reason}",), loaded=False)


def _of(pair: tuple[int, int] | None) -> str:
    return NONE if pair is None else f"{pair[0]} of {pair[1]}"


def _spread(probes: Sequence[Probe], most: int) -> list[Probe]:
    """Returns at most `most` probes, at equal distances."""
    count = min(most, len(probes))
    return [probes[place * len(probes) // count] for place in range(count)]
