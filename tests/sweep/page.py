"""The page docs/models.md: what foci does with each architecture, from the results of the sweep."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny_models

COLUMNS = {
    "load": "loads",
    "loss": "loss",
    "left": "left padding",
    "gradient": "gradient",
    "decoding": "answers",
    "attention": "attention",
    "norms": "norms",
    "influence": "influence",
    "adapter": "LoRA",
    "updates": "training",
}
TRAINED = ("load", "loss", "gradient", "decoding", "updates")
"""What a model needs to be trained, asked and saved."""
HEAD = """\
# Models

foci was tried on tiny random models of the causal architectures of Transformers. This page is made by `make sweep`,
with {versions}.

Each number of foci is compared with a slow reference: the model's own logits, one row at a time, without padding.
"yes" means equal up to rounding. A number in brackets means that foci refuses by name, for the reason under the table.
{silent} cells are wrong without a word, and {crashes} end in another error.

- *loads*: a saved model has the same logits after `models.load`, and its blocks are known.
- *loss*, *left padding*: the loss of each token, in rows that are padded on the right and on the left.
- *gradient*: that of the loss, by every parameter.
- *answers*: greedy answers to prompts of several lengths. "whole" means that the model's cache is not used.
- *attention*: what each token receives, in the layers that have attention.
- *norms*: gradient norms by block, of three rows and of one.
- *influence*: the influence of each token's weight, against a double backward.
- *LoRA*: the loss with an adapter, after merging, and after saving and loading.
- *training*: the weights after three updates under a plan, and after saving and loading.

{right} of {built} architectures ({share:.0%}) load, have the right loss and gradient, answer, train and save rightly.

"""


def write(found: Sequence[dict[str, Any]], file: Path) -> None:
    """Writes the page from the results, one for each architecture."""
    found = sorted(found, key=lambda one: one["name"])
    reasons: dict[str, int] = {}
    lines = [f"| model type | class | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for one in found:
        cells = [_cell(one, kind, reasons) for kind in COLUMNS]
        lines.append(f"| {one['name']} | {one.get('class', '')} | {' | '.join(cells)} |")
    states = [one["cells"].get(kind, {"state": "-"})["state"] for one in found for kind in COLUMNS]
    right = sum(all(one["cells"].get(kind, {}).get("state") == "right" for kind in TRAINED) for one in found)
    head = HEAD.format(
        versions=", ".join(f"{name} {version}" for name, version in found[0]["versions"].items()),
        silent=states.count("wrong"), crashes=states.count("crash") + states.count("unclear"),
        right=right, built=len(found), share=right / len(found),
    )  # fmt: skip
    notes = [f"{number}. {words}" for words, number in reasons.items()]
    left_out = [f"- {name}: {why}" for name, why in tiny_models.LEFT_OUT.items()]
    waiting = sorted({*tiny_models.names()} - {one["name"] for one in found} - tiny_models.LEFT_OUT.keys())
    left_out += [f"- {', '.join(waiting)}: the sweep has not come to them"] * bool(waiting)
    parts = [head + "\n".join(lines), "## Why not", "\n".join(notes), "## Not tried", "\n".join(left_out)]
    file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _cell(one: dict[str, Any], kind: str, reasons: dict[str, int]) -> str:
    cell = one["cells"].get(kind)
    if cell is None:
        return "-"
    if cell["state"] == "wrong":
        return f"**wrong** ({cell['error']:.1g})"
    if cell["state"] == "right":
        return "whole" if kind == "decoding" and not one["notes"].get("decodes from its cache") else "yes"
    words = re.sub(r"\s+", " ", cell["words"].replace(one["class"], "MODEL"))
    words = re.sub(r"MODEL \(model type '[^']*'\)", "MODEL", words).replace("|", "/")
    words = re.sub(r"the (model|adapter) '[^']*'", r"the \1", words)
    number = reasons.setdefault(words, len(reasons) + 1)
    return f"[{number}]" if cell["state"] == "refused" else f"**{cell['state']}** [{number}]"
