"""Computes the numbers of a summary from answers to probes, for runs that ended before they wrote one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from foci.report.words import number

MEASURED = ("learned_whole", "retained_whole", "learned", "retained", "bits_per_byte", "corpus_bits_per_byte")
"""Shares (0..1) of whole answers that are right, and of answer tokens; bits per byte of general text, of the corpus."""

Answer = Mapping[str, Any]
"""One row of a probes parquet: probe_id, role, correct, accuracy, nll, counted, ..."""


Evidence = Mapping[str, Any]
"""Of a probe to learn: evidence, source, made, held_out, and `rows`, the ids of the rows that hold its evidence."""

NEVER_READ, AS_BEFORE = "never read", "says what it said before"
NOT_REWORDED, NOT_RECALLED = "read, not recalled in other words", "read, not recalled"
REASONS = (NEVER_READ, AS_BEFORE, NOT_REWORDED, NOT_RECALLED)
"""Why a probe to learn is not answered, the first that is true: no row with its evidence was read; the model says what
the untouched one said; it was read, and the probe asks in other words than the text, or in the text's own."""


def mean(values: Sequence[Any]) -> float | None:
    """Returns the mean of the numbers among `values`; None when there are none."""
    known = [n for value in values if (n := number(value)) is not None]
    return sum(known) / len(known) if known else None


def _held_out(answer: Answer) -> bool:
    """Returns whether a probe was held out; tables of earlier versions say so by the probe's id alone."""
    return bool(answer.get("held_out", str(answer.get("probe_id", "")).startswith("held_out/")))


def by_probe(answers: Sequence[Answer]) -> dict[tuple[Any, Any], Answer]:
    """Returns answers by the probe's role and id: a probe to learn and one to retain may have the same id."""
    return {(answer.get("role"), answer.get("probe_id")): answer for answer in answers}


def asked_of(answers: Sequence[Answer], role: str) -> list[Answer]:
    """Returns the answers that count of the probes to "learn" or to "retain"; none that was held out."""
    return [a for a in answers if a.get("role") == role and a.get("counted", True) and not _held_out(a)]


def accuracy(answers: Sequence[Answer], role: str) -> float | None:
    """Returns the mean accuracy (0..1) over the counted probes to "learn" or to "retain"; higher is better."""
    return mean([a.get("accuracy") for a in asked_of(answers, role)])


def whole(answers: Sequence[Answer], role: str) -> float | None:
    """Returns the share (0..1) of counted probes to "learn" or to "retain" whose whole answer is right."""
    return mean([float(bool(a["correct"])) for a in asked_of(answers, role) if a.get("correct") is not None])


def path(probings: Mapping[int, Sequence[Answer]], texts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns a point per probed step: its number, and what was measured there (`MEASURED`)."""
    by_step = {int(text["step"]): text for text in texts if number(text.get("step")) is not None}
    return [
        {
            "step": step,
            "learned_whole": whole(probings.get(step, ()), "learn"),
            "retained_whole": whole(probings.get(step, ()), "retain"),
            "learned": accuracy(probings.get(step, ()), "learn"),
            "retained": accuracy(probings.get(step, ()), "retain"),
            "bits_per_byte": by_step.get(step, {}).get("bits_per_byte"),
            "corpus_bits_per_byte": by_step.get(step, {}).get("corpus_bits_per_byte"),
        }
        for step in sorted({*probings, *by_step})
    ]


def reconstruct(
    points: Sequence[Mapping[str, Any]],
    probings: Mapping[int, Sequence[Answer]],
    metrics: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Returns an arm as in `summary.json`, computed from the other files of its folder as far as they go."""
    last: Mapping[str, Any] = metrics[-1] if metrics else {}
    arm: dict[str, Any] = {
        name: {
            "before": points[0].get(name) if points and points[0]["step"] == 0 else None,
            "after": points[-1].get(name) if points and points[-1]["step"] > 0 else None,
        }
        for name in MEASURED
    }
    asked = [answer for answer in probings[min(probings)] if not _held_out(answer)] if probings else []
    return arm | {
        "learn_probes": sum(a.get("role") == "learn" for a in asked),
        "retain_asked": sum(a.get("role") == "retain" for a in asked),
        "retained_probes": sum(a.get("role") == "retain" and bool(a.get("counted")) for a in asked),
        "loss": losses(metrics),
        "steps": last.get("step"),
        "tokens": last.get("tokens"),
        "seconds": last.get("seconds"),
        "padding": mean([m.get("padding") for m in metrics]),
    }


def losses(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Returns the training loss of the first update, and the mean of the last tenth of the updates, in nats.

    Updates in which no token is learned, as those of held rows alone, do not count: at first their loss is 0.
    """
    known = [line.get("loss") for line in metrics if line.get("weighted_tokens") != 0]
    return {"first": number(known[0]) if known else None, "last": mean(known[-max(1, len(known) // 10) :])}


def rows_read(metrics: Sequence[Mapping[str, Any]], until: int) -> frozenset[str] | None:
    """Returns the rows that training read up to an update; None where the metrics do not say it, as in early versions.

    With patience the model that is kept, and asked, is not that of the last update.
    """
    if not any("first_read" in line for line in metrics):
        return None
    return frozenset(row_id for line in metrics if line["step"] <= until for row_id in line.get("first_read", ()))


def why_not(before: Answer, after: Answer, evidence: Evidence, read: frozenset[str] | None) -> str:
    """Says why a probe to learn is not answered: one of `REASONS`.

    `read` are the rows that training read. Where it is not known which rows hold the evidence, it counts as read.
    """
    rows = evidence.get("rows")
    if rows is not None and not (set(rows) & read if read is not None else rows):
        return NEVER_READ
    said = [" ".join(str(answer.get("predicted") or "").split()).casefold() for answer in (before, after)]
    if said[0] and said[0] == said[1]:
        return AS_BEFORE
    own_words = evidence.get("made") in (None, "", "front")
    return NOT_RECALLED if own_words else NOT_REWORDED


def reasons(
    before: Sequence[Answer], after: Sequence[Answer], evidence: Mapping[str, Evidence], read: frozenset[str] | None
) -> dict[str, int]:
    """Counts the reported probes to learn that are not answered, by the reason; without reasons that do not occur."""
    first = {answer.get("probe_id"): answer for answer in before if answer.get("role") == "learn"}
    wrong = [
        (first[answer.get("probe_id")], answer)
        for answer in after
        if answer.get("role") == "learn"
        and not _held_out(answer)
        and not answer.get("correct")
        and answer.get("probe_id") in first
    ]
    counts = Counter(why_not(b, a, evidence.get(str(a.get("probe_id")), {}), read) for b, a in wrong)
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def verdict(before: Answer | None, after: Answer | None) -> str:
    """Says what became of one probe: "newly right", "forgotten", "still right", "still wrong", "not asked again"."""
    if before is None or after is None:
        return "not asked again" if after is None else "not asked before"
    was, now = bool(before.get("correct")), bool(after.get("correct"))
    return {
        (False, True): "newly right",
        (True, False): "forgotten",
        (True, True): "still right",
        (False, False): "still wrong",
    }[was, now]


def best_arm(arms: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the arm whose learned + retained is highest, the first of equals.

    Both are shares of answer tokens after training. Where no arm was asked questions to learn, it is the one with the
    fewest bits per byte of the corpus and of general text together. Arms without numbers come last. `arms` are those of
    summary.json, at least one.

    >>> best_arm({"a": {"learned": {"after": 0.5}}, "b": {"learned": {"after": 0.4}, "retained": {"after": 0.9}}})
    'b'
    """

    def after(arm: Mapping[str, Any], name: str) -> float | None:
        return number((arm.get(name) or {}).get("after"))

    def merit(arm: Mapping[str, Any]) -> tuple[float, float]:
        learned, text = after(arm, "learned"), after(arm, "corpus_bits_per_byte")
        return (
            -1.0 if learned is None else learned + (after(arm, "retained") or 0.0),
            float("-inf") if text is None else -text - (after(arm, "bits_per_byte") or 0.0),
        )

    return max(arms, key=lambda name: merit(arms[name]))
