"""Sentences that say what the numbers of a suite's tables are."""

from collections.abc import Mapping
from typing import Any

from foci.report.words import percent

Found = Mapping[str, Any]
"""The data of a suite's tables, as `foci.bench.table.table` returns them."""

HALVES = {
    "held_out": "the held-out probes",
    "held_out_learn": "the held-out probes to learn and half of the facts to retain, drawn by the seed",
    "held_out_retain": "the held-out probes to retain and half of the facts to learn, drawn by the seed",
}
"""The probes that choose a share of the change, by what is held out."""
CHOSEN_ON = {
    "held_out": "tokens learned + retained on held-out probes",
    "held_out_learn": "tokens learned on held-out probes (no held-out probe to retain counts)",
    "held_out_retain": "tokens retained on held-out probes (there are none to learn)",
    "held_out_text": "bits per byte of held-out rows of the corpus and of general text, together",
}
"""The measure that chooses an arm's point, by what is held out. Where nothing is held out, the point is the end."""


def lead(table: Found) -> str:
    """Says what the arms have in common, how many seeds and probes there are, and which point is reported."""
    asked = table["questions"]
    held = asked["held_out_learn"] + asked["held_out_retain"]
    held_out = (
        f" Held out beside these: {asked['held_out_learn']} to learn, {asked['held_out_retain']} to retain."
        if held
        else ""
    )
    varies = (
        f" These are the numbers of seed {table['seeds'][0]}: each seed holds out others."
        if table["questions_by_seed"]
        else ""
    )
    return (
        f"{table['model']}. All arms have in common: {table['matched']}. {_seeds(table)} {_differences(table)} "
        f"{asked['learn']} probes to learn. Of {asked['retain_asked']} probes to retain, {asked['retain']} count: "
        f"those that the untouched model answers.{held_out}{varies} {point(table)}"
    )


def terms(table: Found) -> dict[str, str]:
    """Returns the meaning of each column of the tables, by its head."""
    found = {
        "learned, retained": "share of the probes whose whole answer is right.",
        "tokens": "share of the answer tokens that the model predicts, given the true words before them.",
        "tokens balanced": "the same, with every answer counting alike.",
        "binding": "share of the pairs of facts whose answers the model would not exchange. A model that knows only "
        "which answers are common has 50.",
        "bits per byte, NLL": "lower is better.",
        "span perplexity": "exp of the mean NLL of an answer token: over all probes to learn (updated) or retain "
        "(unchanged), either over probes (micro) or over groups of them (macro). Lower is better.",
    }
    return found if table["slide"] is None else found | along_terms(table)


def along_terms(table: Found) -> dict[str, str]:
    """Returns the meaning of the columns that compare arms along the change that training made, by their heads."""
    slide, base = table["slide"], table["baseline"]
    change = "scaled" if slide["how"] == "scale" else "pruned"
    shares = ", ".join(f"{share:g}" for share in slide["points"])
    found = {
        "along the change": f"the change that training made to the weights is {change} to the shares {shares}, and the "
        f"probes are asked at each. The share that a column needs is chosen on {_half(table)}; the numbers are those "
        "of the other probes. Between two neighbouring shares they are interpolated linearly. Nothing is extrapolated: "
        "what no share reaches is called not reached.",
        f"learned at {100 * slide['keep']:g} % kept": "the most that is learned at a share that keeps so much of what "
        "was known.",
        f"NLL at {slide['prose']:g} x bits per byte": "the smallest NLL of the probes to learn at a share whose bits "
        "per byte of prose are at most so many times the untouched model's.",
    }
    if base:
        found |= {
            f"kept at {base}'s learned": "what is retained at the share at which an arm first learns as many answer "
            f"tokens as the whole change of {base}.",
            f"bits per byte at {base}'s NLL": "those of prose, at the share at which an arm's NLL is first as low.",
        }
    return found


def point(table: Found) -> str:
    """Says at which update each arm is reported."""
    if table["chosen_on"] == "end":
        return "No probes are held out to choose a point, so each arm is reported at its end."
    return f"The chosen point is the probed step with the best {CHOSEN_ON[table['chosen_on']]}."


def unfinished(table: Found) -> str:
    """Says which cells are not in the table because the suite was stopped before they were done."""
    names = table["unfinished"]
    return f"Not finished when this table was written: {'; '.join(names)}. The same command goes on with them."


def _half(table: Found) -> str:
    """Says which probes choose a share of the change: held-out ones of a role, or else half of its facts."""
    held = [f"held_out_{role}" for role in ("learn", "retain") if table["questions"][f"held_out_{role}"]]
    return HALVES.get("held_out" if len(held) == 2 else "".join(held), "half of the facts, drawn by the seed")


def _seeds(table: Found) -> str:
    seeds = ", ".join(str(seed) for seed in table["seeds"])
    if len(table["seeds"]) == 1:
        return f"One seed ({seeds}): no intervals."
    confidence = percent(table["confidence"], 0)
    fewer = any(told["seeds"] != table["seeds"] for told in table["arms"].values())
    but = " An arm that has fewer of them names them." if fewer else ""
    count = len(table["seeds"])
    return f"Mean over {count} seeds ({seeds}) with {confidence} % interval (Student t), per comparison.{but}"


def _differences(table: Found) -> str:
    if not table["baseline"]:
        return "Every arm has methods, so no differences are shown."
    return f"Differences are from {table['baseline']}, paired by seed."
