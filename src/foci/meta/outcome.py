"""The results of a weigher on pairs that it never saw."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from foci.corpus.samples import SAMPLES, words_of
from foci.gradients.inner_step import InnerStep
from foci.meta.material import Material, answers_in_top
from foci.meta.objectives import After, Objective, after
from foci.methods.train_attention.weigher import Weigher
from foci.models.forward import answering


def weights_of(material: Material, weigher: Weigher) -> Float[Tensor, "pairs seq"]:
    """Computes the weights of the held-out documents in float32."""
    with answering(weigher.body, torch.float32):
        return weigher(material.documents(material.held_out)).detach()


def measured(
    material: Material, objective: Objective, weights: Float[Tensor, "pairs seq"], step: InnerStep, *, seed: int = 0
) -> dict[str, float | None]:
    """Measures the held-out pairs before a step, after a plain step, and after a step by these weights.

    Gives the later loss in nats of all three (both steps begin where the objective's do); how often the answer, where
    the documents mark it, is among the 5 % of tokens of largest weight; and, with the locality term, the divergence on
    held-out windows of unrelated text, in nats per token, after either step.
    """
    batch = material.documents(material.held_out)
    counted = batch.predicted()

    def moved(of: Tensor, by: InnerStep) -> After:
        return after(material, material.held_out, of * counted, by, seed=seed)

    before = moved(torch.ones_like(weights), InnerStep())
    with objective.warmed(batch):
        plain, weighed = moved(torch.ones_like(weights), step), moved(weights.clone(), step)
    at_large = {"locality_after_plain": plain.divergence, "locality_after_weighed": weighed.divergence}
    hits = answers_in_top(weights, batch) if "answer" in batch.columns else torch.zeros(0)
    return {
        "later_nll_before": before.nll,
        "later_nll_after_plain": plain.nll,
        "later_nll_after_weighed": weighed.nll,
        **({} if material.locality is None else at_large),
        "answer_in_top_5_percent": float(hits.mean()) if len(hits) else None,
    }


def described(
    material: Material, objective: Objective, before: Float[Tensor, "pairs seq"], after: Float[Tensor, "pairs seq"]
) -> list[dict[str, Any]]:
    """Returns samples.json: the first held-out documents, their questions, and their tokens' weights."""
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
