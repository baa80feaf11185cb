"""Distance of each head of a model from a pattern, measured in forward passes without a (query, key) map."""

from collections.abc import Mapping

from jaxtyping import Bool, Int
from torch import Tensor, nn

from foci.attention.logits import QuerySlice
from foci.attention.patterns import on_pattern
from foci.attention.targets import Targets
from foci.attention.watching import check_watched, run_in_slices
from foci.focus import Pattern
from foci.models.architecture import base_of
from foci.models.padding import leading, moved


def head_distances(
    model: nn.Module,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"],
    heads: Mapping[int, Mapping[int, Pattern]],
    delimiters: Bool[Tensor, "batch seq"] | None = None,
) -> dict[tuple[int, int], float]:
    """Returns by (layer, head) the mean of ||A_i - P_i||^2 over queries with a key: 0 = the pattern, 2 = the most.

    `heads` is {layer: {head: pattern}}. No dropout. Raises ValueError for layers without attention, heads that are not
    there, and a pattern to which no query of these rows has a key.
    """
    known = check_watched(model)
    if absent := sorted(set(heads) - set(known)):
        raise ValueError(
            f"heads of layers {absent} are asked for, which have no attention that can be watched; choose among the "
            f"layers {sorted(known)}"
        )
    before = leading(attention_mask)
    input_ids, attention_mask = moved(input_ids, before), moved(attention_mask, before)
    delimiters = None if delimiters is None else moved(delimiters, before)
    real = attention_mask.bool()
    asked = {p: Targets.of(p, real, delimiters) for p in {p for named in heads.values() for p in named.values()}}
    if empty := sorted(pattern for pattern, targets in asked.items() if not bool(targets.counted.any())):
        raise ValueError(f"no query of {tuple(input_ids.shape)} tokens has a key in the patterns {empty}")
    sums: dict[tuple[int, int], float] = {(layer, head): 0.0 for layer, named in heads.items() for head in named}

    def see(layer: int, part: QuerySlice, probabilities: Tensor) -> None:
        for head, pattern in heads.get(layer, {}).items():
            if not 0 <= head < probabilities.shape[1]:
                raise ValueError(f"layer {layer} has heads 0 to {probabilities.shape[1] - 1}, got head {head}")
            p, targets, rows = probabilities[:, [head]], asked[pattern], slice(part.start, part.stop)
            apart = p.square().sum(-1) - 2 * on_pattern(p, part, targets) + 1
            sums[layer, head] += float((apart[:, 0] * targets.counted[:, rows]).sum())

    run_in_slices(base_of(model), input_ids, attention_mask, see)  # type: ignore[arg-type]
    counts = {pattern: int(targets.counted.sum()) for pattern, targets in asked.items()}
    return {(layer, head): total / counts[heads[layer][head]] for (layer, head), total in sums.items()}
