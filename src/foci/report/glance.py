"""The top of a run's page: three lines, one picture and a few answers, understood in ten seconds."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from foci.report import style
from foci.report.batches import earlier_pages
from foci.report.measure import MEASURED, Answer, best_arm, by_probe, verdict
from foci.report.plots import inline
from foci.report.read import Arm
from foci.report.style import PAGE, page_colour
from foci.report.words import count, decimal, duration, number, percent
from foci.system.words import counted, form

Numbers = Mapping[str, Any]
EXAMPLES = 4
"""Answers that are shown, at most."""
SHORT, LONG = 14, 160
"""Characters of an arm's name in the picture, and of a prompt or an answer in an example, at most."""
ALIKE = 0.01
"""The share by which bits per byte may move and still be called as before."""
NOT_YET = "Not known yet."


def glance(label: str, arms: Sequence[tuple[str, Arm]], examples: int = EXAMPLES) -> dict[str, Any]:
    """Returns the top of one run: `lines` (a word and a sentence each), and `examples` of answers before and after.

    They are those of the arm with the most learned and retained (`best_arm`); `of` says which and of how many.
    `arms` have their names in the report, `label` is the run's.
    """
    best = best_arm({name: arm.numbers for name, arm in arms})
    own = dict(arms)[best]
    others = {name: arm.numbers for name, arm in arms if name != best}
    known = any(_pair(own.numbers, key)[1] is not None for key in MEASURED)
    return {
        "label": label,
        "of": f"These are of {best}, which learned and kept the most of {len(arms)} arms." if others and known else "",
        "lines": [
            ("Learned", _learned(own.numbers, others)),
            ("Lost", _lost(own.numbers, others)),
            ("Cost", _cost(own.numbers)),
        ],
        "examples": _examples(own, examples),
    }


def _learned(arm: Numbers, others: Mapping[str, Numbers]) -> str:
    """Says in one sentence what an arm learned."""
    before, after = _pair(arm, "learned_whole")
    asked = number(arm.get("learn_probes"))
    if after is not None and asked:
        was = "" if before is None else f", {count(round(before * asked))} before"
        also = _also(others, lambda one: _right(one, asked))
        right = round(after * asked)
        said = (
            f"{count(right)} of {count(asked)} {form(asked, 'question')} {form(right, 'is', 'are')} answered right"
            f"{was}{also}."
        )
        first, last = _pair(arm, "learned")
        if after or last is None:
            return said
        return f"{said} Of the answer tokens {percent(last, 0)} % are predicted, {percent(first, 0)} % before."
    before, after = _pair(arm, "learned")
    if after is not None:
        return f"{percent(after)} % of the answer tokens are predicted, {percent(before)} % before."
    before, after = _pair(arm, "corpus_bits_per_byte")
    if after is None:
        return NOT_YET
    better = "" if before is None else f"{_moved(before, after)}, "
    return f"The text is predicted {better}{decimal(after)} bits per byte ({decimal(before)} before; lower is better)."


def _lost(arm: Numbers, others: Mapping[str, Numbers]) -> str:
    """Says in one sentence or two what an arm lost."""
    words = []
    known, (_, kept) = number(arm.get("retained_probes")), _pair(arm, "retained_whole")
    if known and kept is not None:
        gone = round((1 - kept) * known)
        also = _also(others, lambda one: _gone(one, known))
        words.append(f"{count(gone) if gone else 'None'} of the {count(known)} answers that it knew{also}.")
    if (earlier := earlier_pages(arm)) is not None:
        asked, was, now = earlier
        words.append(
            f"Of {count(asked)} {form(asked, 'question')} about earlier pages {count(now)} "
            f"{form(now, 'is', 'are')} answered right, {was} before."
        )
    before, after = _pair(arm, "bits_per_byte")
    if before is not None and after is not None:
        words.append(f"General text is predicted {_moved(before, after)}.")
    return " ".join(words) or ("Nothing was asked that it knew." if _pair(arm, "learned")[1] is not None else NOT_YET)


def _cost(arm: Numbers) -> str:
    """Says in one sentence what an arm's training cost."""
    seconds, peak, steps = (number(arm.get(key)) for key in ("seconds", "peak_memory_mib", "steps"))
    if seconds is None:
        return NOT_YET
    updates = "" if steps is None else f" ({count(steps)} update{'s' * (steps != 1)})"
    memory = "" if peak is None else f", {peak / 1024:.1f} GiB of memory"
    return f"{duration(seconds)} of training{updates}{memory}."


def _right(arm: Numbers, asked: float) -> str:
    after = _pair(arm, "learned_whole")[1]
    return "" if after is None else count(round(after * asked))


def _gone(arm: Numbers, known: float) -> str:
    kept = _pair(arm, "retained_whole")[1]
    return "" if kept is None else count(round((1 - kept) * known))


def _also(others: Mapping[str, Numbers], said: Any) -> str:
    """Returns what the other arms have, in brackets: at most three of them."""
    found = [f"{name}: {words}" for name, one in others.items() if (words := said(one))]
    more = f"; {counted(len(found) - 3, 'more arm')} below" if len(found) > 3 else ""
    return f" ({'; '.join(found[:3])}{more})" if found else ""


def _moved(before: float, after: float) -> str:
    """Says how much better or worse text is predicted, by its bits per byte."""
    share = after / before - 1 if before else 0.0
    if abs(share) <= ALIKE:
        return "as well as before"
    return f"{percent(abs(share), 0)} % {'worse' if share > 0 else 'better'} than before"


def _pair(arm: Numbers, name: str) -> tuple[float | None, float | None]:
    pair = arm.get(name) or {}
    return number(pair.get("before")), number(pair.get("after"))


def flipped(was: Answer | None, now: Answer | None) -> int:
    """Returns where a probe belongs in a table: 0 forgotten, 1 newly right, 2 and 3 the same where it does not count.

    4 is for all others, whose outcome did not change.
    """
    place = {"forgotten": 0, "newly right": 1}.get(verdict(was, now))
    if place is None:
        return 4
    return place if (was or {}).get("counted", True) else place + 2


def _examples(arm: Arm, most: int) -> list[dict[str, str]]:
    """Returns answers before and after: newly right ones and a forgotten one first, then others to learn."""
    after = by_probe(arm.after)
    pairs = [(was, after[key]) for key, was in by_probe(arm.before).items() if key in after]
    by_place: dict[int, list[tuple[Answer, Answer]]] = {}
    for was, now in pairs:
        by_place.setdefault(flipped(was, now), []).append((was, now))
    wrong = [pair for pair in by_place.get(4, []) if pair[0].get("role") == "learn" and not pair[1].get("correct")]
    lost = by_place.get(0, [])[:1]
    newly = [pair for pair in by_place.get(1, []) if pair[0].get("role") == "learn"]
    chosen = [*newly[: most - len(lost)], *lost]
    return [_example(*pair) for pair in [*chosen, *wrong[: max(0, min(2, most) - len(chosen))]]]


def _example(was: Answer, now: Answer) -> dict[str, str]:
    words = {name: _clipped(one.get(key)) for name, one, key in (
        ("answer", was, "answer"), ("before", was, "predicted"), ("after", now, "predicted"))}  # fmt: skip
    prompt = " ".join(str(was.get("prompt") or "").split())
    return {
        **words,
        "prompt": prompt if len(prompt) <= LONG else f"… {prompt[-LONG:]}",
        "outcome": verdict(was, now),
        "class": verdict(was, now).replace(" ", "-"),
    }


def _clipped(text: Any) -> str:
    said = " ".join(str(text or "").split())
    return (said if len(said) <= LONG // 2 else f"{said[: LONG // 2]} …") or "–"  # noqa: RUF001 - the dash of no answer


PANELS = (
    ("learned_whole", "questions answered right, %"),
    ("retained_whole", "kept of what it knew, %"),
)


def picture(arms: Sequence[tuple[str, Numbers]]) -> Markup | None:
    """Draws what each arm learned and kept as bars from 0 to 100 %, a line where it was before; None without numbers.

    Where no questions to learn were asked, the first bar is the bits per byte of the corpus.
    """
    found = [panel for panel in PANELS if any(_pair(arm, panel[0])[1] is not None for _, arm in arms)]
    if not found or found[0] != PANELS[0]:
        text = ("corpus_bits_per_byte", "your text, bits per byte, less is better")
        found = [text, *found] if any(_pair(arm, text[0])[1] is not None for _, arm in arms) else found
    if not found:
        return None
    high = 0.26 + 0.3 * len(arms)
    figure, tips = Figure(figsize=(4.8, high), facecolor="none"), dict[str, str]()
    named = 0.02 if len(arms) == 1 else 0.21
    width = (0.98 - named) / len(found)
    for column, (key, title) in enumerate(found):
        place = (named + column * width, 0.0, width * 0.72, 1 - 0.22 / high)
        axes = style.framed(figure.add_axes(place, facecolor="none"), PAGE)
        axes.set_axis_off()
        axes.text(0, 1.02, title, transform=axes.transAxes, va="bottom", color=PAGE.faint, fontsize=8.5)
        _bars(axes, arms, key, tips, first=column == 0 and len(arms) > 1)
    return inline(figure, "What each arm learned and kept", "glance", tips)


def _bars(axes: Any, arms: Sequence[tuple[str, Numbers]], key: str, tips: dict[str, str], *, first: bool) -> None:
    """Draws one bar for each arm, the first arm on top, with its numbers behind it."""
    text = key == "corpus_bits_per_byte"
    top = max((v for _, arm in arms for v in _pair(arm, key) if v is not None), default=1.0) if text else 1.0
    axes.set(xlim=(0, top), ylim=(len(arms) - 0.5, -0.5))
    said = decimal if text else lambda value: percent(value, 0)
    for n, (name, arm) in enumerate(arms):
        before, after = _pair(arm, key)
        if first:
            short = name if len(name) <= SHORT else f"{name[: SHORT - 1]}…"
            axes.text(-0.04 * top, n, short, ha="right", va="center_baseline", color=PAGE.ink, fontsize=9.5)
        axes.barh(n, top, 0.5, color=PAGE.rule)
        if after is None:
            continue
        axes.barh(n, after, 0.5, color=page_colour(n), gid=(gid := f"{key}-{n}"))
        tips[gid] = f"{name} · {said(before)} → {said(after)}{'' if text else ' %'}"
        if before is not None:
            axes.plot([before, before], [n - 0.38, n + 0.38], color=PAGE.ink, linewidth=1.4, clip_on=False)
        words = {"ha": "left", "va": "center_baseline", "color": PAGE.ink, "fontsize": 9.5, "fontweight": "bold"}
        axes.text(1.04 * top, n, said(after), **words)
