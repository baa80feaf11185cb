"""The measured numbers of an arm: as the table of a card, and in the form of the hub."""

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult
from scipy.stats import binomtest  # type: ignore[import-untyped]

from foci.card.taught import Taught
from foci.probes.intervals import interval
from foci.report.measure import Answer, asked_of
from foci.report.tables import Code, Table, markdown
from foci.report.words import NONE, count, decimal, number, percent

MEASURES = {
    "learned_whole": ("questions to learn, whole answers", "learn"),
    "learned": ("questions to learn, answer tokens", "learn"),
    "retained_whole": ("what it knew before, whole answers", "retain"),
    "retained": ("what it knew before, answer tokens", "retain"),
}
"""Shares that a card shows, by their key in summary.json: the words for people, and the role of the probes."""
TEXTS = {"bits_per_byte": "general text, bits per byte", "corpus_bits_per_byte": "the text learned, bits per byte"}
FORGOTTEN = 8
"""Answers that were forgotten and are shown, at most."""


def measured(taught: Taught) -> str:
    """Returns the table in Markdown: before, after, the interval of after, and the number of questions."""
    numbers, rows = taught.arm.numbers, []
    for key, (words, role) in MEASURES.items():
        before, after = _pair(numbers, key)
        if after is not None:
            limits = share_interval(asked_of(taught.arm.after, role), whole=key.endswith("_whole"))
            asked = numbers.get("learn_probes" if role == "learn" else "retained_probes")
            rows.append([f"{words}, %", percent(before), percent(after), _limits(limits), count(asked)])
    for key, words in TEXTS.items():
        before, after = _pair(numbers, key)
        if after is not None:
            rows.append([f"{words} (lower is better)", decimal(before), decimal(after), NONE, NONE])
    if not rows:
        return "Nothing was asked."
    head = ["", "before" if taught.facts.get("went_on") else "untouched", "this model", "95 % interval", "questions"]
    table = markdown(Table(head, rows))
    return f"Before is {taught.before}, from which this run went on.\n\n{table}" if head[1] == "before" else table


def share_interval(answers: Sequence[Answer], *, whole: bool) -> tuple[float, float] | None:
    """Returns the 95 % interval over questions of a share after training; None for fewer than two questions.

    Of whole answers it is Wilson's, and of tokens too where each answer is right or wrong as a whole; else it is
    Student's t over questions, cut to 0 and 1. None where all questions have the same share between 0 and 1.
    """
    if len(answers) < 2:
        return None
    shares = [float(bool(one["correct"])) if whole else number(one["accuracy"]) for one in answers]
    if set(shares) <= {0.0, 1.0}:
        found = binomtest(shares.count(1.0), len(shares)).proportion_ci(method="wilson")
        return float(found.low), float(found.high)
    mean = interval(shares)
    if mean is None or mean.low is None or mean.high is None or mean.low == mean.high:
        return None
    return max(0.0, mean.low), min(1.0, mean.high)


def controls(taught: Taught) -> list[str]:
    """Returns sentences on what the numbers are to be compared with."""
    numbers = taught.arm.numbers
    found = numbers.get("controls") or {}
    said = []
    if (majority := number(found.get("majority"))) is not None:
        said.append(f"Always giving the commonest answer of a group would be right for {percent(majority)} %.")
    if (balanced := number((found.get("balanced") or {}).get("after"))) is not None:
        said.append(
            f"Counting each answer alike, {percent(balanced)} % of the answer tokens are predicted, "
            f"{percent((found.get('balanced') or {}).get('before'))} % before."
        )
    if held := numbers.get("held_out"):
        pair = held.get("learned_whole") or {}
        said.append(
            f"Of {count(held.get('learn_probes'))} further questions, of whose sentences no method made a row, "
            f"{percent(pair.get('after'))} % are answered right, {percent(pair.get('before'))} % before."
        )
    if _pair(numbers, "learned")[1] is not None or _pair(numbers, "retained")[1] is not None:
        said.append(
            "Intervals are over questions, for this one training: another seed may differ by more. Answer tokens are "
            "predicted given the true words before them."
        )
    return said


def forgotten(taught: Taught) -> str:
    """Returns what the untouched model answered and the trained one does not: a sentence, and a table of some."""
    known = {one.get("probe_id"): one for one in asked_of(taught.arm.before, "retain")}
    if not known:
        return f"No question was asked that {taught.before} answers, so it is not known what was forgotten."
    after = [one for one in asked_of(taught.arm.after, "retain") if one.get("probe_id") in known]
    gone = [one for one in after if not one.get("correct")]
    if not gone:
        return f"None of the {count(len(known))} answers that {taught.before} knew."
    rows = [[Code(_short(one.get("prompt"))), Code(_short(one.get("answer"))), Code(_short(one.get("predicted")))]
            for one in gone[:FORGOTTEN]]  # fmt: skip
    said = f"{count(len(gone))} of the {count(len(known))} answers that {taught.before} knew are now wrong."
    if len(gone) > FORGOTTEN:
        said += f" {FORGOTTEN} of them:"
    return f"{said}\n\n{markdown(Table(['question', 'answer', 'now says'], rows, align='lll'))}"


def results(taught: Taught) -> list[EvalResult]:
    """Returns the numbers after training for the hub's `model-index`."""
    numbers, found = taught.arm.numbers, []
    kinds = {**{key: ("accuracy", words) for key, (words, _) in MEASURES.items()},
             **{key: ("bits_per_byte", words) for key, words in TEXTS.items()}}  # fmt: skip
    for key, (metric, words) in kinds.items():
        value = _pair(numbers, key)[1]
        if value is not None:
            name = words.partition(",")[0]
            found.append(
                EvalResult(
                    task_type="text-generation",
                    dataset_type=f"foci-{key.partition('_whole')[0].replace('_', '-')}",
                    dataset_name=name,
                    metric_type=metric,
                    metric_name=words,
                    metric_value=round(value, 4),
                )
            )
    return found


def _pair(numbers: dict[str, Any], key: str) -> tuple[float | None, float | None]:
    pair = numbers.get(key) or {}
    return number(pair.get("before")), number(pair.get("after"))


def _limits(found: tuple[float, float] | None) -> str:
    return NONE if found is None else f"{percent(found[0])} to {percent(found[1])}"


def _short(text: Any, most: int = 80) -> str:
    said = " ".join(str(text or "").split())
    return (said if len(said) <= most else f"{said[:most]} ...") or NONE
