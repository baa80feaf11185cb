"""Says in plain words, with the cure, what is wrong with the result of an arm."""

from collections.abc import Mapping
from typing import Any

from foci.report.batches import earlier_pages
from foci.report.words import count, decimal, number, percent

FORGOTTEN = 0.2
"""The share of known answers whose loss is heavy forgetting."""
FEW = 10
"""Known answers below which a share says little."""
WORSE = 1.15
"""The growth of bits per byte of general text that is heavy forgetting."""
DIVERGED = 1.5
"""The growth of the training loss from the first update to the last ones that is no learning."""


def warnings_of(arm: Mapping[str, Any]) -> list[str]:
    """Returns a sentence with its cure for each thing that is wrong, as the predicate of the arm's name.

    `arm` is an arm of summary.json. Numbers that are missing, as in runs of earlier versions, give no warning.
    """
    found = [_diverged(arm)]
    if found == [None]:
        found += [_forgot(arm), _forgot_earlier(arm), _guessed(arm)]
    return [warning for warning in [*found, _not_asked(arm)] if warning]


def _diverged(arm: Mapping[str, Any]) -> str | None:
    """Says that training made the model worse at the very text that it read."""
    loss = arm.get("loss") or {}
    first, last, guessing = number(loss.get("first")), number(loss.get("last")), number(arm.get("guessing_loss"))
    text = arm.get("corpus_bits_per_byte") or {}
    before, after = number(text.get("before")), number(text.get("after"))
    grown = first is not None and last is not None and last > DIVERGED * first and last > first + 1
    guesses = first is not None and last is not None and guessing is not None and last >= 0.95 * guessing > 1.2 * first
    worse = before is not None and after is not None and after > DIVERGED * before
    better = before is not None and after is not None and after < before
    if better and not guesses and last is not None and guessing is not None and last < guessing:
        return None  # a few updates of unlike rows are no trend
    if not (grown or guesses or worse):
        return None
    if grown or guesses:
        words = f"its training loss went from {decimal(first, 2)} to {decimal(last, 2)} nats"
        words += "" if guessing is None else f", where guessing at random gives {decimal(guessing, 2)}"
    else:
        words = f"bits per byte of the text that it read went from {decimal(before)} to {decimal(after)}"
    rate = number(arm.get("learning_rate"))
    cure = "Train with a lower train.learning_rate" + ("" if rate is None else f" than {rate:g}")
    return f"diverged: {words}. Its model is broken. {cure} (the default is 0.001), and use --overwrite."


def _forgot(arm: Mapping[str, Any]) -> str | None:
    """Says that much of what the model knew is gone."""
    kept, known = number((arm.get("retained_whole") or {}).get("after")), number(arm.get("retained_probes"))
    text = arm.get("bits_per_byte") or {}
    before, after = number(text.get("before")), number(text.get("after"))
    words = []
    if kept is not None and known is not None and known >= FEW and kept <= 1 - FORGOTTEN:
        words.append(f"{count(round((1 - kept) * known))} of {count(known)} answers that the model knew are now wrong")
    if before is not None and after is not None and after > WORSE * before:
        words.append(f"bits per byte of general text rose from {decimal(before)} to {decimal(after)}")
    if not words:
        return None
    return (
        f"forgot much: {', and '.join(words)}. Hold made-up texts to what the untouched model says (the method replay "
        "with path: encyclopedia and anchor: kl, as focused has it), lower train.learning_rate, or train for fewer "
        "epochs."
    )


def _forgot_earlier(arm: Mapping[str, Any]) -> str | None:
    """Says that much of what earlier pages taught is gone."""
    found = earlier_pages(arm)
    if found is None or found[1] < FEW or found[2] > (1 - FORGOTTEN) * found[1]:
        return None
    asked, was, now = found
    return (
        f"forgot earlier pages: of {count(asked)} questions about them {count(now)} are answered right, {count(was)} "
        "before. Rehearse more of them (continues.ratio=2 or more reads so many old rows per new row), or lower "
        "train.learning_rate."
    )


def _guessed(arm: Mapping[str, Any]) -> str | None:
    """Says that the answers learned need no knowledge; nothing where the commonest of each group is always right."""
    after = number((arm.get("learned_whole") or {}).get("after"))
    majority = number((arm.get("controls") or {}).get("majority"))
    if after is None or majority is None or after > majority or majority == 1:
        return None
    return (
        f"learned no more than guessing: {percent(after)} % of the answers are right, where always giving the "
        f"commonest one makes {percent(majority)} % right. Train for more epochs, or with a higher train.learning_rate."
    )


def _not_asked(arm: Mapping[str, Any]) -> str | None:
    """Says that forgetting could not be measured."""
    asked, known = number(arm.get("retain_asked")), number(arm.get("retained_probes"))
    if not asked or known != 0:
        return None
    return (
        f"could not be asked what it forgot: before training the model answers none of the {count(asked)} probes to "
        "retain. Name probes that it knows as probes.retain."
    )
