"""A gradient profile: which layers hold what new text changes, and how fast each may move for it.

    R_b = mean over spans of g_b / mean over reference sequences of g_b          (arXiv 2411.04448)

g_b is the L2 norm of the gradient of block b for one example (`foci.gradients.norms`). Only the shape of R over the
layers matters: short spans raise all of R together, which is what random spans of the same lengths show.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from foci.focus import Batch, Row
from foci.gradients.norms import block_norms
from foci.methods.grad_profile.spans import Span
from foci.models import block_of, blocks, evaluating
from foci.models.forward import buckets, device_of
from foci.models.losses import token_nll

Order = Literal["measured", "reversed", "random"]
Mode = Literal["frozen", "adaptive", "auto_rgn"]
Values = dict[str, float]
"""A number for every block, in depth order."""

BATCH = 16
"""Spans in one backward pass, at most; `buckets` takes fewer of long ones."""
TOKENS = 2048
"""Tokens in one backward pass, at most."""
DRAWS = 2000
"""Resamplings of a bootstrap."""


def batch_of(spans: Sequence[Span], pad: int, device: torch.device) -> tuple[Batch, Tensor]:
    """Returns the spans' texts in one batch, and the mask (batch, seq) of the spans' own tokens."""
    rows = [
        Row(str(n), span.ids, columns={"span": tuple(float(t >= span.start) for t in range(len(span.ids)))})
        for n, span in enumerate(spans)
    ]
    batch = Batch.of(rows, pad).to(device)
    return batch, batch.columns["span"] > 0


def span_norms(model: PreTrainedModel, spans: Sequence[Span], pad: int) -> dict[str, Float[Tensor, " span"]]:
    """Returns the gradient norm of every block for each span's mean NLL, in the spans' order, float64 on the CPU."""
    found: dict[str, Tensor] = {}
    with torch.autocast(device_of(model).type, enabled=False):
        for bucket in buckets([len(span.ids) for span in spans], BATCH, TOKENS):
            batch, mask = batch_of([spans[n] for n in bucket], pad, device_of(model))
            for block, norms in block_norms(model, batch, mask).items():
                found.setdefault(block, torch.zeros(len(spans), dtype=torch.float64))[bucket] = norms.double().cpu()
    return found


def mean_gradient(model: PreTrainedModel, spans: Sequence[Span], pad: int) -> Values:
    """Returns ||g_b|| / ||theta_b||, g being the gradient of the mean over spans of each span's mean NLL (auto-RGN)."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = [torch.zeros_like(p) for p in named.values()]
    with evaluating(model), torch.enable_grad(), torch.autocast(device_of(model).type, enabled=False):
        for bucket in buckets([len(span.ids) for span in spans], BATCH, TOKENS):
            batch, mask = batch_of([spans[n] for n in bucket], pad, device_of(model))
            nll = token_nll(model, batch, mask)
            loss = (nll.sum(1) / mask.sum(1)).sum() / len(spans)
            for sums, grad in zip(
                total, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True
            ):
                if grad is not None:
                    sums.add_(grad)
    gradient, weight = dict.fromkeys(blocks(model), 0.0), dict.fromkeys(blocks(model), 0.0)
    for (name, p), sums in zip(named.items(), total, strict=True):
        gradient[block_of(name)] += float(sums.double().square().sum())
        weight[block_of(name)] += float(p.detach().double().square().sum())
    return {block: (gradient[block] / weight[block]) ** 0.5 for block in gradient if weight[block]}


def relative(
    spans: Mapping[str, Float[Tensor, " span"]], reference: Mapping[str, Float[Tensor, " sequence"]]
) -> Values:
    """Returns R of every block: the mean norm over spans divided by that over reference sequences.

    Raises ValueError where a block's mean over the reference is 0.
    """
    below = {block: float(norms.mean()) for block, norms in reference.items()}
    if still := [block for block, mean in below.items() if not mean]:
        raise ValueError(
            f"reference rows have no gradient in {still}, so nothing can be relative to it; give other text"
        )
    return {block: float(norms.mean()) / below[block] for block, norms in spans.items()}


def bootstrap(
    spans: Mapping[str, Float[Tensor, " span"]],
    reference: Mapping[str, Float[Tensor, " sequence"]],
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> tuple[Values, Values]:
    """Returns lower and upper limits of R: percentiles over `DRAWS` resamplings of spans and of sequences."""

    def means(norms: Mapping[str, Tensor]) -> np.ndarray:
        values = torch.stack(list(norms.values())).numpy()
        n = values.shape[1]
        return rng.multinomial(n, np.full(n, 1 / n), DRAWS) @ values.T / n

    ratios = means(spans) / means({block: reference[block] for block in spans})
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return dict(zip(spans, low.tolist(), strict=True)), dict(zip(spans, high.tolist(), strict=True))


def rates_of(profile: Values, mode: Mode) -> Values:
    """Returns the learning-rate multiplier of every block: 1 above the mean, else 0 ("frozen"), or value / maximum.

    Mean and maximum are those of the layers; embeddings, norm and head count as a layer of mean value.

    >>> rates_of({"embeddings": 9.0, "layers.0": 3.0, "layers.1": 1.0, "layers.2": 2.0}, "frozen")
    {'embeddings': 0.0, 'layers.0': 1.0, 'layers.1': 0.0, 'layers.2': 0.0}
    >>> rates_of({"embeddings": 9.0, "layers.0": 4.0, "layers.1": 1.0}, "adaptive")
    {'embeddings': 0.625, 'layers.0': 1.0, 'layers.1': 0.25}
    """
    counted = {block: v for block, v in profile.items() if block.startswith("layers.")}
    mean = math.fsum(counted.values()) / len(counted)
    values = {block: counted.get(block, mean) for block in profile}
    if mode == "frozen":
        return {block: float(value > mean) for block, value in values.items()}
    return {block: value / max(counted.values()) for block, value in values.items()}


def reordered(profile: Values, order: Order, rng: np.random.Generator) -> Values:
    """Puts the layers' values on other layers; the rest stays.

    "reversed": the largest where the smallest was, the second largest where the second smallest was, and so on;
    "random": any permutation. So a control has exactly the rates of the profile, elsewhere.

    >>> rng = np.random.default_rng(0)
    >>> reordered({"layers.0": 5.0, "layers.1": 1.0, "layers.2": 2.0, "norm": 9.0}, "reversed", rng)
    {'layers.0': 1.0, 'layers.1': 5.0, 'layers.2': 2.0, 'norm': 9.0}
    """
    layers = [block for block in profile if block.startswith("layers.")]
    ranked = sorted(layers, key=lambda block: profile[block])
    if order == "reversed":
        given = dict(zip(ranked, reversed(ranked), strict=True))
    elif order == "random":
        given = dict(zip(layers, (layers[i] for i in rng.permutation(len(layers))), strict=True))
    else:
        given = {}
    return {block: profile[given.get(block, block)] for block in profile}


def thirds(profile: Values) -> dict[str, float] | None:
    """Returns the means of the early, middle and late third of the layers, over that of all layers (1 = like it).

    Where layers do not divide by three, the middle has what is left. None for fewer than three layers.

    >>> thirds({"layers.0": 4.0, "layers.1": 2.0, "layers.2": 2.0, "layers.3": 0.0, "norm": 7.0})
    {'early': 2.0, 'middle': 1.0, 'late': 0.0}
    """
    values = [value for block, value in profile.items() if block.startswith("layers.")]
    if len(values) < 3:
        return None
    size, mean = len(values) // 3, sum(values) / len(values)
    parts = {"early": values[:size], "middle": values[size : len(values) - size], "late": values[len(values) - size :]}
    return {name: sum(part) / len(part) / mean for name, part in parts.items()}
