"""Attention that each token receives, attention of single (query, key) pairs, and whole maps for pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from foci.attention.logits import QuerySlice
from foci.attention.watching import check_watched, run_in_slices
from foci.models.architecture import base_of
from foci.models.padding import check_padding, check_side, leading, moved, warn_of_neighbours

Queries = Literal["following", "later"]
"""`"following"`: the token itself and all later ones; `"later"`: the later ones alone."""


def received(
    model: nn.Module,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"],
    *,
    queries: Queries | Bool[Tensor, "batch seq"] = "following",
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    without_first: bool = False,
) -> Float[Tensor, "batch seq"]:
    """Returns the share of attention that each token receives (arXiv 2409.17954), 0 to 1, higher = more attended.

    s[j] = mean over queries i >= j of the mean over layers and heads of A[i, j], where row i of A sums to 1: n - j
    queries for token j of n, from 0. `queries="later"` leaves the token itself out (i > j), a mask keeps the chosen
    queries among i >= j. Padding, and a token without such a query, receive 0. `layers` and `heads` (of each of
    these layers) count from 0, None = all. `without_first` removes a row's first token, where idle heads look, from
    every map and rescales each row of the map to sum to 1; that token then receives 0.

    The model runs in eval mode without gradient; its outputs do not change and no whole map is stored. Raises
    ValueError for a model whose attention cannot be watched, and for layers or heads that do not exist.
    """
    real = _checked(input_ids, attention_mask)
    before = leading(real)
    chosen, self_too = _queries(queries, real)
    real, chosen = moved(real, before), moved(chosen, before)
    total = torch.zeros(real.shape, dtype=torch.float64, device=real.device)
    at = torch.arange(real.shape[1], device=real.device)
    first = real.int().argmax(1) if without_first else None

    def see(seen: "_Seen") -> None:
        rows, keys = at[seen.part.start : seen.part.stop, None], at[seen.part.low : seen.part.high]
        counts = chosen[:, rows[:, 0], None] & (rows >= keys if self_too else rows > keys)
        maps = seen.probabilities if first is None else _without(seen.probabilities, first, seen.part)
        total[:, seen.part.low : seen.part.high] += (maps.sum(1) * counts).sum(1)

    maps = _see(model, input_ids, attention_mask, _Chosen.of(model, layers, heads), see)
    count = chosen.flip(1).cumsum(1).flip(1) - (0 if self_too else chosen.int())
    share = torch.where(real & (count > 0), total / (count.clamp(min=1) * maps), 0.0)
    return moved(share, -before).to(torch.promote_types(torch.float32, _dtype(model)))


def pair_attention(
    model: nn.Module,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"],
    pairs: Int[Tensor, "pair 3"],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Float[Tensor, "pair layer head"]:
    """Returns A[query, key] of each (row, query, key), all counted from 0.

    Layers and heads stand in the order asked for, None = all. Runs the model and raises as `received` does; ValueError
    also for a pair that is outside of the batch or on padding.
    """
    real = _checked(input_ids, attention_mask)
    pairs = pairs.to(real.device)
    _check_pairs(pairs, real)
    picked = _Chosen.of(model, layers, heads)
    row = pairs[:, 0]
    query, key = (pairs[:, 1:] - leading(real)[row, None]).unbind(1)
    found: dict[int, Tensor] = {}

    def see(seen: "_Seen") -> None:
        part, p = seen.part, seen.probabilities
        made = found.setdefault(seen.layer, p.new_zeros(len(pairs), p.shape[1]))
        here = (query >= part.start) & (query < part.stop) & (key >= part.low) & (key < part.high)
        made[here] = p[row[here], :, query[here] - part.start, key[here] - part.low]

    _see(model, input_ids, attention_mask, picked, see)
    return torch.stack([found[layer] for layer in picked.layers], 1)


def attention_maps(
    model: nn.Module,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"],
    heads: Sequence[tuple[int, int]],
) -> Float[Tensor, "batch head query key"]:
    """Returns whole maps of the chosen (layer, head) pairs, in their order; rows of padding are 0.

    Stores these maps alone. Runs the model and raises as `received` does.
    """
    real = _checked(input_ids, attention_mask)
    if not heads:
        raise ValueError("attention maps are asked for by (layer, head), got none; name at least one")
    batch, seq = real.shape
    made = torch.zeros(batch, len(heads), seq, seq, dtype=torch.float32, device=real.device)
    picked = _Chosen.of(model, sorted({layer for layer, _ in heads}), None)

    def see(seen: "_Seen") -> None:
        part = seen.part
        for n, (layer, head) in enumerate(heads):
            if layer == seen.layer:
                _check_heads(layer, seen.probabilities.shape[1], [head])
                made[:, n, part.start : part.stop, part.low : part.high] = seen.probabilities[:, head]

    _see(model, input_ids, attention_mask, picked, see)
    before = -leading(real)
    for axis in (2, 3):
        made = moved(made.transpose(1, axis), before).transpose(1, axis)
    return made * real[:, None, :, None]


@dataclass(frozen=True)
class _Chosen:
    """The layers and heads to measure; heads None = all."""

    layers: Sequence[int]
    heads: Sequence[int] | None

    @classmethod
    def of(cls, model: nn.Module, layers: Sequence[int] | None, heads: Sequence[int] | None) -> "_Chosen":
        """Checks the layers. One without attention is an error: a mean over the others would be another number."""
        inner = base_of(model)  # type: ignore[arg-type]
        known = check_watched(model)
        wanted = range(inner.config.get_text_config().num_hidden_layers) if layers is None else layers
        if missing := sorted(set(wanted) - set(known)):
            raise ValueError(
                f"{type(inner).__name__} (model type {inner.config.model_type!r}): layers {missing} have no attention "
                f"that can be watched, layers {sorted(known)} have; name layers=[...] among these"
            )
        if not len(wanted) or (heads is not None and not len(heads)):
            raise ValueError(f"expected at least one layer and one head, got layers {layers} and heads {heads}")
        return cls(list(wanted), None if heads is None else list(heads))


@dataclass(frozen=True)
class _Seen:
    """A slice of queries of one layer, the chosen heads alone."""

    layer: int
    part: QuerySlice
    probabilities: Float[Tensor, "batch head query key"]


def _see(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, picked: _Chosen, see: Callable[[_Seen], None]
) -> int:
    """Runs the model, calls `see` for the chosen layers and heads, and returns how many maps there were.

    `see` gets the rows with their padding on the right.
    """
    if not bool(attention_mask.all()):
        check_side(attention_mask)
        check_padding(model)
        warn_of_neighbours(model, attention_mask)
    before = leading(attention_mask)
    input_ids, attention_mask = moved(input_ids, before), moved(attention_mask, before)
    maps = 0

    def look(layer: int, part: QuerySlice, probabilities: Tensor) -> None:
        nonlocal maps
        if layer not in picked.layers:
            return
        if picked.heads is not None:
            _check_heads(layer, probabilities.shape[1], picked.heads)
            probabilities = probabilities[:, picked.heads]
        maps += probabilities.shape[1] if part.start == 0 else 0
        see(_Seen(layer, part, probabilities))

    run_in_slices(base_of(model), input_ids, attention_mask, look)  # type: ignore[arg-type]
    return maps


def _check_heads(layer: int, count: int, heads: Sequence[int]) -> None:
    if wrong := sorted({head for head in heads if not 0 <= head < count}):
        raise ValueError(f"layer {layer} has heads 0 to {count - 1}, got heads {wrong}; choose among those it has")


def _checked(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Returns True on real tokens; raises ValueError where the shapes differ."""
    if input_ids.shape != attention_mask.shape:
        raise ValueError(
            f"input_ids and attention_mask must have the same shape (batch, seq), got {tuple(input_ids.shape)} and "
            f"{tuple(attention_mask.shape)}; the mask is 1 on tokens and 0 on padding"
        )
    return attention_mask.bool()


def _check_pairs(pairs: Tensor, real: Tensor) -> None:
    limits = torch.tensor([real.shape[0], real.shape[1], real.shape[1]], device=pairs.device)
    inside = ((pairs >= 0) & (pairs < limits)).all(1)
    row, query, key = torch.where(inside[:, None], pairs, 0).unbind(1)
    wrong = ~(inside & real[row, query] & real[row, key])
    if not len(pairs) or wrong.any():
        raise ValueError(
            f"pairs are (row, query, key) of real tokens in a batch of shape {tuple(real.shape)}, got "
            f"{pairs[wrong].tolist()[:4] or 'none'}; count from 0, padding included"
        )


def _queries(queries: str | Tensor, real: Tensor) -> tuple[Tensor, bool]:
    """Returns the queries that count, and whether a token's own query counts."""
    if isinstance(queries, Tensor):
        if queries.shape != real.shape or not (queries.to(real.device) & real).any():
            raise ValueError(
                f"chosen queries are True on at least one real token of shape {tuple(real.shape)}, got shape "
                f"{tuple(queries.shape)} with {int(queries.sum())} True; mark the tokens whose attention counts"
            )
        return queries.to(real.device) & real, True
    if queries not in ("following", "later"):
        raise ValueError(f"queries are 'following', 'later' or a mask of (batch, seq), got {queries!r}")
    return real, queries == "following"


def _without(probabilities: Tensor, first: Tensor, part: QuerySlice) -> Tensor:
    """Removes the first token of each row from the maps and rescales their rows (an empty row stays 0)."""
    keys = torch.arange(part.low, part.high, device=first.device)
    kept = probabilities * (keys != first[:, None])[:, None, None]
    return kept / kept.sum(-1, keepdim=True).clamp(min=torch.finfo(kept.dtype).tiny)


def _dtype(model: nn.Module) -> torch.dtype:
    weight: Tensor = base_of(model).get_input_embeddings().weight  # type: ignore[arg-type, assignment]
    return weight.dtype
