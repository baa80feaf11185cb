"""How far a weigher got, on pairs that it never saw."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from foci.inner_step import InnerStep
from foci.measure import SAMPLES, words_of
from foci.meta.material import Material, answers_in_top
from foci.meta.objectives import Objective, later_after
from foci.probes.forward import answering
from foci.weigher import Weigher


def weights_of(material: Material, weigher: Weigher) -> Float[Tensor, "pairs seq"]:
    """The weights of the held-out documents, computed in float32."""
    with answering(weigher.body, torch.float32):
        return weigher(material.documents(material.held_out)).detach()


def measured(material: Material, weights: Float[Tensor, "pairs seq"], step: InnerStep) -> dict[str, float | None]:
    """On the held-out pairs: the later loss in nats before, after a plain step, and after one by these weights; how
    often the answer (where the documents mark it) is among the 5 % of tokens of largest weight.
    """
    batch = material.documents(material.held_out)
    counted = batch.predicted()

    def after(of: Tensor, by: InnerStep) -> float:
        return later_after(material, material.held_out, of * counted, by)

    hits = answers_in_top(weights, batch) if "answer" in batch.columns else torch.zeros(0)
    return {
        "later_nll_before": after(torch.ones_like(weights), InnerStep()),
        "later_nll_after_plain": after(torch.ones_like(weights), step),
        "later_nll_after_weighed": after(weights.clone(), step),
        "answer_in_top_5_percent": float(hits.mean()) if len(hits) else None,
    }


def described(
    material: Material, objective: Objective, before: Float[Tensor, "pairs seq"], after: Float[Tensor, "pairs seq"]
) -> list[dict[str, Any]]:
    """samples.json: the first held-out documents, what is asked about them, and their tokens' weights."""
    found = []
    for pair, *lines in list(zip(material.held_out, before.tolist(), after.tolist(), strict=True))[:SAMPLES]:
        document = pair.document
        wanted = objective.targets_of(pair)
        columns = dict(zip(("before", "after"), lines, strict=True)) | ({} if wanted is None else {"influence": wanted})
        found.append(
            {
                "asked": pair.question(),
                "answered": pair.answer(),
                "tokens": words_of(document, material.tokenizer),
                **{name: [round(value, 6) for value in line[: len(document)]] for name, line in columns.items()},
                **({"answer": list(document.columns["answer"])} if "answer" in document.columns else {}),
            }
        )
    return found
