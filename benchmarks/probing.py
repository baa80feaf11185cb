"""Probing SmolLM2 on 1000 LAMA facts: in batches, the head only at answers, beside one by one with all logits.

The facts are those of LAMA-ckl where its published files are (../shared/data/lama_ckl beside the repository), else
foci's own general facts; the row says which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.side_by_side import Result, in_turns
from foci import models
from foci.data import lama_ckl
from foci.data.suite import LeftOut
from foci.probes import Probe, answer, general, read_probes
from foci.probes.encode import encode

GOAL = 0.5
PROBES, QUICK = 1000, 40
PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "lama_ckl"
TOLERANCE = 1e-3
"""Nats per token between two orders of float32 sums."""


@dataclass(frozen=True)
class Said:
    """Returns a model's first choices as text, the share of them that are right, and mean nats per answer token."""

    predicted: str
    accuracy: float
    nll: float


def run(quick: bool = False) -> list[Result]:
    """Raises AssertionError unless both ways give the same answers."""
    loaded = models.load("smollm2-135m")
    known, name = facts()
    probes = spread(known, min(QUICK if quick else PROBES, len(known)))
    said: dict[str, list[Said]] = {}

    def ours() -> None:
        made = answer(loaded.model, loaded.tokenizer, probes)
        said["foci"] = [Said(a.predicted, a.accuracy, a.nll) for a in made]

    def theirs() -> None:
        said["rival"] = one_by_one(loaded, probes)

    seconds = in_turns({"foci": ours, "rival": theirs}, repeats=2, warmup=0 if quick else 1)
    worst = assert_same(said["foci"], said["rival"])
    note = f"the same first choices; NLL within {worst:.0e} nats"
    what = f"probing, {len(probes)} {name}, SmolLM2-135M, float32"
    return [
        Result.of(what, "s", seconds["foci"], seconds["rival"], rival="one by one, all logits", goal=GOAL, note=note)
    ]


def facts() -> tuple[list[Probe], str]:
    """The probes there are, and their name in the row."""
    files = [PUBLISHED / name for name in lama_ckl.FILES]
    if not all(file.is_file() for file in files):
        return read_probes(general.general_facts_path(), "retain"), "of foci's own general facts (no LAMA-ckl here)"
    found = lama_ckl.read_facts(files, LeftOut())
    return [fact.probe("learn" if fact.variant else "retain") for fact in found], "LAMA-ckl facts"


def spread(probes: Sequence[Probe], count: int) -> list[Probe]:
    """`count` probes from all over the file."""
    return [probes[n * len(probes) // count] for n in range(count)]


def one_by_one(loaded: models.Loaded, probes: Sequence[Probe]) -> list[Said]:
    """Each probe in a forward pass of its own, as an evaluation loop in plain Transformers has it."""
    found = []
    model = loaded.model.eval()
    for row in encode(probes, loaded.tokenizer):
        ids = torch.tensor([row.input_ids], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, :-1].float()
        where = torch.tensor(row.columns["answer"], device=model.device)[1:] > 0
        truth, at = ids[0, 1:][where], logits[where]
        chosen = at.argmax(-1)
        found.append(
            Said(
                loaded.tokenizer.decode(chosen).strip(),
                float((chosen == truth).float().mean()),
                float(F.cross_entropy(at, truth)),
            )
        )
    return found


def assert_same(ours: Sequence[Said], theirs: Sequence[Said]) -> float:
    """The largest difference of an NLL, where everything else is the same."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        assert a.predicted == b.predicted, f"first choices differ: {a} and {b}"
        assert abs(a.accuracy - b.accuracy) < 1e-6, f"accuracies differ: {a} and {b}"
        worst = max(worst, abs(a.nll - b.nll))
    assert worst <= TOLERANCE, f"NLL differ by {worst} nats, expected at most {TOLERANCE}"
    return worst
