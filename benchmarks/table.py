"""The benchmarks' results as a Markdown table."""

from typing import Any


def lines(name: str, made: dict[str, Any]) -> list[str]:
    """A line per result for people who wait."""
    told = [f"{name}: {r['what']}: {r['missing'] or ratio(judged(r))}, {goal(r)}" for r in made["results"]]
    return [
        *told,
        *([f"{name}: failed: {made['error']}"] if "error" in made else []),
        f"{name}: {made['seconds']:.0f} s",
    ]


def table(found: dict[str, Any]) -> str:
    """Every result as a row; a rival that is missing and a benchmark that failed have a row that says so."""
    rows = [
        "| what | rival | foci | rival's | unit | ratio: median (min..max), turns | goal | |",
        "|---|---|---:|---:|---|---|---|---|",
    ]
    for name, made in found.items():
        rows += [row(result) for result in made["results"]]
        if "error" in made:
            rows.append(f"| {name} | | | | | **failed**: {escaped(made['error'])} | | |")
    return "\n".join(rows)


def row(result: dict[str, Any]) -> str:
    """One row; times are processor seconds where the goal is about these, with the clock's ratio behind."""
    named = f"| {result['what']} | {result['rival']} "
    if result["missing"]:
        return f"{named}| | | | {result['missing']} | {goal(result)} | |"
    of = judged(result)
    on_clock = result["judged"] == "found"
    unit = result["unit"] if on_clock else "processor s"
    note = [] if on_clock else [f"on the clock {result['found']['ratio']['median']:.2f}"]
    note += [escaped(result["note"])] if result["note"] else []
    both = " | ".join(number(of[side]["median"]) for side in ("ours", "theirs"))
    return f"{named}| {both} | {unit} | {ratio(of)} | {goal(result)} | {'; '.join(note)} |"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def judged(result: dict[str, Any]) -> dict[str, Any]:
    """The measurements that the goal is about."""
    return result.get(result["judged"]) or {}


def ratio(of: dict[str, Any]) -> str:
    """The median ratio, its smallest and largest value, and the turns; of one turn the ratio alone."""
    spread, turns = of["ratio"], of["turns"]
    if turns == 1:
        return f"{spread['median']:.3f} (one turn)"
    return f"{spread['median']:.3f} ({spread['min']:.3f}..{spread['max']:.3f}), {turns}"


def goal(result: dict[str, Any]) -> str:
    if result.get("goal") is None:
        return ""
    told = {None: "not measured", True: "met", False: "**missed**"}[result.get("met")]
    return f"<= {result['goal']:.3g}: {told}"


def escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
