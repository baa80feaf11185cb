"""Numbers as people read them. Every function takes null (`None`, NaN) and says "–" for it."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from foci.system.words import form

NONE = "\N{EN DASH}"
NARROW = "\N{NARROW NO-BREAK SPACE}"

Pair = Mapping[str, Any]
"""`{"before": number or null, "after": number or null}`."""


def number(value: Any) -> float | None:
    """Returns `value` as a finite float; None for null, NaN, infinity and anything that is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def percent(share: Any, digits: int = 1) -> str:
    """Writes a share (0..1) in per cent, without the sign; never rounded up to 100 or down to 0.

    >>> percent(0.6123), percent(1.0), percent(0.9999), percent(None)
    ('61.2', '100', '99.9', '–')
    """
    value = number(share)
    if value is None:
        return NONE
    rounded = round(100 * value, digits)
    smallest = 10.0**-digits
    if value < 1 and rounded >= 100:
        rounded = 100 - smallest
    if value > 0 and rounded <= 0:
        rounded = smallest
    return f"{rounded:.{digits}f}" if rounded not in (0, 100) else f"{rounded:.0f}"


def decimal(value: Any, digits: int = 3) -> str:
    """Writes a number with fixed digits, such as bits per byte: `decimal(0.9121)` is "0.912"."""
    known = number(value)
    return NONE if known is None else f"{known:.{digits}f}"


def count(value: Any) -> str:
    """Writes a whole number in groups of three digits: `count(12345)` is "12 345" (narrow spaces)."""
    known = number(value)
    return NONE if known is None else f"{known:,.0f}".replace(",", NARROW)


def duration(seconds: Any) -> str:
    """Writes seconds as "41 s", "3 min 05 s" or "2 h 07 min"."""
    known = number(seconds)
    if known is None:
        return NONE
    if known < 10:
        return f"{known:.1f} s"
    whole = round(known)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(iso: Any) -> str:
    """Writes a time as "2026-11-22 09:14 UTC"; anything but an ISO time is returned as it is."""
    try:
        when = datetime.fromisoformat(str(iso))
    except ValueError:
        return "" if iso is None else str(iso)
    return f"{when:%Y-%m-%d %H:%M} {when.tzname() or ''}".rstrip()


def change(pair: Any, scale: float = 1.0, digits: int = 1) -> str:
    """Writes after minus before, signed: "+52.1". "–" where one of them is missing."""
    known = pair if isinstance(pair, Mapping) else {}
    before, after = number(known.get("before")), number(known.get("after"))
    if before is None or after is None:
        return NONE
    text = f"{scale * (after - before):+.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return text if text.strip("+0.\N{MINUS SIGN}") else "0"


def learned_words(arm: Mapping[str, Any]) -> str:
    """Says what an arm learned, as the predicate of a sentence: whole answers, then their tokens."""
    before, after = _pair(arm, "learned_whole")
    tokens_before, tokens_after = _pair(arm, "learned")
    if before is None and after is None and tokens_before is None and tokens_after is None:
        return "was not asked what it learned (no probes to learn)"
    if after is None and tokens_after is None:
        return f"knew {percent(before, 0)} % of the answers before; it was not asked again afterwards"
    tokens = f"{percent(tokens_after, 0)} % of the answer tokens{_was(tokens_before)}"
    if after is None:  # a summary that knows tokens alone
        return f"learned {tokens}"
    detail = "" if tokens_after is None else f" and {tokens}"
    return f"gave {percent(after, 0)} % of the answers right{_was(before)}{detail}"


def retained_words(arm: Mapping[str, Any]) -> str:
    """Says what an arm kept, as the predicate of a sentence."""
    known = number(arm.get("retained_probes"))
    before, after = _pair(arm, "retained_whole")
    if before is None and after is None:
        before, after = _pair(arm, "retained")
    if before is None and after is None:
        return "was not asked what it kept (no probes to retain that the untouched model answers)"
    if after is None:
        return "was not yet asked what it kept"
    start = "" if before is None or before > 0.995 else _was(before)
    asked = "" if known is None else f" ({count(known)} {form(known, 'fact')})"
    return f"kept {percent(after, 0)} % of what the model knew{start}{asked}"


def _pair(arm: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    """Returns a measure of an arm before and after."""
    pair = arm.get(name) or {}
    return number(pair.get("before")), number(pair.get("after"))


def _was(before: float | None) -> str:
    return "" if before is None else f" (before: {percent(before, 0)} %)"


def sentence(arm: Mapping[str, Any]) -> str:
    """Says the result of one arm as the predicate of a sentence; the arm's name is its subject.

    >>> sentence({"learned_whole": {"before": 0.02, "after": 0.4}, "retained_whole": {"before": 1, "after": 0.97}})
    'gave 40 % of the answers right (before: 2 %), and kept 97 % of what the model knew.'
    """
    return f"{learned_words(arm)}, and {retained_words(arm)}."
