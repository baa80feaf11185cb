"""The table of a suite in Markdown: what was learned and kept, differences from plain, costs, controls."""

from collections.abc import Mapping, Sequence
from typing import Any

from foci.bench import notes
from foci.report import tables
from foci.report.tables import Code, Emphasis
from foci.report.words import NONE, count, decimal, number
from foci.system.harmless import visible
from foci.system.words import form

Found = Mapping[str, Any]
"""The data of a suite's tables, as `foci.bench.table.table` returns them."""

SHARES = (
    "learned_whole", "retained_whole", "total_whole", "learned", "retained", "total", "balanced", "binding",
)  # fmt: skip
"""Metrics that are shares of answers or of their tokens; totals are sums of two."""
NATS = ("learned_nll", "retained_nll")
HEADS = {
    "learned_whole": "learned, %",
    "retained_whole": "retained, %",
    "total_whole": "learned + retained, %",
    "learned": "tokens learned, %",
    "retained": "tokens retained, %",
    "total": "tokens learned + retained, %",
    "balanced": "tokens balanced, %",
    "binding": "binding, %",
    "learned_nll": "NLL learned, nats",
    "retained_nll": "NLL retained, nats",
    "bits_per_byte": "bits per byte, text",
    "corpus_bits_per_byte": "bits per byte, corpus",
}
ALONG = {
    "learned_at_kept": "learned at {keep:g} % kept, %",
    "tokens_at_kept": "tokens learned at {keep:g} % kept, %",
    "kept_at_plain": "kept at {base}'s learned, %",
    "kept_tokens_at_plain": "tokens kept at {base}'s learned, %",
    "nll_at_prose": "NLL at {prose:g} x bits per byte, nats",
    "prose_at_nll": "bits per byte at {base}'s NLL",
}
"""The numbers that compare arms along their change."""
PERPLEXITIES = {
    "updated_micro": "updated, micro",
    "updated_macro": "updated, macro",
    "unchanged_micro": "unchanged, micro",
    "unchanged_macro": "unchanged, macro",
}


def markdown(table: Found, about: str = "") -> str:
    """Returns the text of table.md; `about`, its last line, says where and when it was measured."""
    parts = [f"# {tables.marked(table['name'])}", visible(notes.lead(table))]
    parts += [f"Failed: {tables.marked(name)}: {tables.marked(reason)}" for name, reason in table["failures"].items()]
    parts += [tables.marked(notes.unfinished(table))] if table["unfinished"] else []
    for title, shown in sections(table):
        parts += [f"## {title}", tables.markdown(shown)]
    meanings = [f"- **{tables.marked(term)}**: {visible(meaning)}" for term, meaning in notes.terms(table).items()]
    parts += ["## What the numbers are", "\n".join(meanings)]
    return "\n\n".join([*parts, *([about] if about else [])]) + "\n"


def sections(table: Found) -> list[tuple[str, tables.Table]]:
    """Returns every table with its title."""
    at = {"chosen": "At the chosen point", "end": "At the end"}
    if table["chosen_on"] == "end":
        del at["chosen"]
    found = []
    for place, title in at.items():
        found.append((title, _results(table, place)))
        if table["baseline"] and len(table["arms"]) > 1:
            found.append((f"{title}: difference from {table['baseline']}", _differences(table, place)))
        found.append((f"{title}: span perplexity", _perplexities(table, place)))
    if table["slide"] is not None:
        found += along(table)
    return [*found, ("Cost", _costs(table)), ("Methods", _methods(table))]


def _results(table: Found, place: str) -> tables.Table:
    names = _asked(table, place)
    heads = ["arm", *(HEADS[name] for name in names)]
    rows = [[_named(table, arm), *(value(n, told[place][n]) for n in names)] for arm, told in table["arms"].items()]
    controls = table["controls"] or {}
    majority, balanced = controls.get("majority"), controls.get("balanced_majority")
    always = {"learned_whole": majority, "learned": majority, "balanced": balanced}
    for label, known in {"untouched model": table["untouched"], "always the majority answer": always}.items():
        rows.append([Emphasis(label), *(value(name, {"mean": known.get(name)}) for name in names)])
    heads.append("top over epochs (selected on the test): tokens learned, % @ step; tokens retained, %")
    tops = [_top(told["top"]) for told in table["arms"].values()]
    rows = [[*row, *tops[n : n + 1]] if n < len(tops) else [*row, ""] for n, row in enumerate(rows)]
    return tables.Table(heads, rows)


def _differences(table: Found, place: str) -> tables.Table:
    names = _asked(table, place)
    rows = [
        [_named(table, arm, paired=True), *(value(n, told[place][n]["difference"] or {}, signed=True) for n in names)]
        for arm, told in table["arms"].items()
        if arm != table["baseline"]
    ]
    return tables.Table(["arm", *(HEADS[name] for name in names)], rows)


def _perplexities(table: Found, place: str) -> tables.Table:
    names = [name for name in PERPLEXITIES if table["untouched"].get(name) is not None]
    rows = [[_named(table, arm), *(value(n, told[place][n]) for n in names)] for arm, told in table["arms"].items()]
    rows.append([Emphasis("untouched model"), *(value(name, {"mean": table["untouched"][name]}) for name in names)])
    return tables.Table(["arm", *(PERPLEXITIES[name] for name in names)], rows)


def along(table: Found) -> list[tuple[str, tables.Table]]:
    """Returns the tables that compare arms along their change: by answers and by NLL, as far as they were asked."""
    pairs = {
        "At equal learning or equal forgetting": tuple(ALONG)[:4],
        "At equal bits per byte or equal NLL": tuple(ALONG)[4:],
    }
    found = []
    for title, names in pairs.items():
        arms = table["slide"]["arms"].values()
        asked = [n for n in names if any("mean" in told[n] or told[n]["not_reached"] for told in arms)]
        if asked:
            found.append((title, _along(table, asked)))
    return found[::-1] if table["slide"]["by"] == "nll" else found


def along_heads(table: Found) -> dict[str, str]:
    """Returns the head of every number that compares arms along their change."""
    slide = table["slide"]
    settings = {"keep": 100 * slide["keep"], "prose": slide["prose"], "base": table["baseline"]}
    return {name: head.format(**settings) for name, head in ALONG.items()}


def _along(table: Found, names: Sequence[str]) -> tables.Table:
    base, heads, shown = table["baseline"], ["arm"], along_heads(table)
    for name in names:
        heads += [shown[name], f"{shown[name]}: from {base}"] if base else [shown[name]]
    rows = []
    for arm, told in table["slide"]["arms"].items():
        row = [arm]
        for name in names:
            own = told[name]
            row += [reached(value(name, own), own)]
            row += [value(name, own["difference"] or {}, signed=True)] if base else []
        rows.append(row)
    return tables.Table(heads, rows)


def reached(text: str, told: Found, unit: str = " seeds") -> str:
    """Returns the text of a mean, with the number of its seeds where some have none; or that no seed reached it."""
    seeds, known = len(told["values"]), sum(value is not None for value in told["values"])
    if not known:
        return "not reached" if told["not_reached"] else NONE
    return text if known == seeds else f"{text} ({known} of {seeds}{unit})"


def _named(table: Found, arm: str, *, paired: bool = False) -> str:
    """Returns an arm's name, with the seeds that its numbers are of where they are fewer than the suite's.

    `paired`: the seeds that it has in common with the baseline.
    """
    there = table["arms"][arm]["seeds"]
    if paired:
        there = [seed for seed in there if seed in table["arms"][table["baseline"]]["seeds"]]
    if there == table["seeds"]:
        return arm
    return f"{arm} ({form(len(there), 'seed')} {', '.join(map(str, there))})" if there else f"{arm} (no seed)"


def _costs(table: Found) -> tables.Table:
    places = {"chosen": "the chosen point", "end": "the end"}
    if table["chosen_on"] == "end":
        del places["chosen"]
    heads = [f"{what} to {where}" for where in places.values() for what in ("updates", "tokens", "seconds")]
    rows = []
    for arm, told in table["arms"].items():
        costs = [told[place][name].get("mean") for place in places for name in ("step", "tokens", "seconds")]
        rows.append([_named(table, arm), *(_cost(cost) for cost in costs), _cost(told["peak_memory_mib"].get("mean"))])
    return tables.Table(["arm", *heads, "peak memory, MiB"], rows)


def _methods(table: Found) -> tables.Table:
    rows = []
    for arm, told in table["arms"].items():
        own = ", ".join(f"{key} = {setting}" for key, setting in told["train"].items())
        methods = ", ".join(told["methods"]) or "none (plain fine-tuning)"
        rows.append([arm, Code(methods), own or NONE, ", ".join(str(seed) for seed in told["seeds"])])
    return tables.Table(["arm", "methods", "own settings", "seeds"], rows, "llll")


def value(name: str, mean: Mapping[str, Any], *, signed: bool = False) -> str:
    """Writes a mean and its interval in the metric's unit: "61.2 [55.0, 67.4]"."""
    known = number(mean.get("mean"))
    if known is None:
        return NONE
    low, high = number(mean.get("low")), number(mean.get("high"))
    text = _number(name, known, signed)
    if low is None or high is None:
        return text
    return f"{text} [{_number(name, low, signed)}, {_number(name, high, signed)}]"


def _number(name: str, known: float, signed: bool) -> str:
    digits, scale = (1, 100) if name in (*SHARES, *tuple(ALONG)[:4]) else (1, 1) if name in PERPLEXITIES else (3, 1)
    shown = f"{scale * known:{'+' if signed else ''}.{digits}f}"
    return shown.replace("-", "\N{MINUS SIGN}")


def _top(told: Mapping[str, Any]) -> str:
    if not told.get("learned"):
        return NONE
    step = _cost(told["step"].get("mean"))
    return f"{value('learned', told['learned'])} @ {step}; {value('retained', told['retained'])}"


def _asked(table: Found, place: str) -> list[str]:
    """Returns the metrics that at least one arm has."""
    return [name for name in HEADS if any("mean" in told[place][name] for told in table["arms"].values())]


def _cost(cost: Any) -> str:
    known = number(cost)
    return NONE if known is None else decimal(known, 1) if known < 100 and known % 1 else count(known)
