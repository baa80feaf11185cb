"""What a model attends to: how much each token receives, the attention of single pairs, and maps for pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from foci.attention.scores import Block
from foci.attention.watching import check_watched, run_in_blocks
from foci.models.architecture import base_of

Queries = Literal["following", "later"]
"""`"following"`: a token and those after it; `"later"`: those after it only."""


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
    """The share of attention that each token receives (arXiv 2409.17954), between 0 and 1, higher = more looked at.

    s[j] = mean over queries i >= j of the mean over layers and heads of A[i, j], where row i of A sums to 1: n - j
    queries for token j of n, from 0. `queries="later"` leaves the token itself out (i > j), a mask keeps the chosen
    queries among i >= j. A token that no such query follows, and padding, have 0. `layers` and `heads` (of each of
    these layers) count from 0, None = all. `without_first` takes a row's first token, where idle heads look, out of
    every map and divides each row of it by what remains; that token then receives 0.

    The model runs in eval mode without gradient; its outputs do not change and no S x S map is held. ValueError for a
    model whose attention cannot be watched, by name, and for layers or heads that are not there.
    """
    real = _checked(input_ids, attention_mask)
    chosen, self_too = _queries(queries, real)
    total = torch.zeros(real.shape, dtype=torch.float64, device=real.device)
    at = torch.arange(real.shape[1], device=real.device)
    first = real.int().argmax(1) if without_first else None

    def see(seen: "_Seen") -> None:
        rows, keys = at[seen.block.start : seen.block.stop, None], at[seen.block.low : seen.block.high]
        counts = chosen[:, rows[:, 0], None] & (rows >= keys if self_too else rows > keys)
        maps = seen.probabilities if first is None else _without(seen.probabilities, first, seen.block)
        total[:, seen.block.low : seen.block.high] += (maps.sum(1) * counts).sum(1)

    maps = _see(model, input_ids, attention_mask, _Chosen.of(model, layers, heads), see)
    count = chosen.flip(1).cumsum(1).flip(1) - (0 if self_too else chosen.int())
    share = torch.where(real & (count > 0), total / (count.clamp(min=1) * maps), 0.0)
    return share.to(torch.promote_types(torch.float32, _dtype(model)))


def pair_attention(
    model: nn.Module,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"],
    pairs: Int[Tensor, "pair 3"],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Float[Tensor, "pair layer head"]:
    """The attention that single queries give single keys: A[query, key] of each (row, query, key), all from 0.

    Layers and heads in the order asked for, None = all. Runs the model and refuses like `received`; ValueError too for
    a pair that is not in the batch, or stands on padding.
    """
    real = _checked(input_ids, attention_mask)
    pairs = pairs.to(real.device)
    _check_pairs(pairs, real)
    picked = _Chosen.of(model, layers, heads)
    row, query, key = pairs.unbind(1)
    found: dict[int, Tensor] = {}

    def see(seen: "_Seen") -> None:
        block, p = seen.block, seen.probabilities
        made = found.setdefault(seen.layer, p.new_zeros(len(pairs), p.shape[1]))
        here = (query >= block.start) & (query < block.stop) & (key >= block.low) & (key < block.high)
        made[here] = p[row[here], :, query[here] - block.start, key[here] - block.low]

    _see(model, input_ids, attention_mask, picked, see)
    return torch.stack([found[layer] for layer in picked.layers], 1)


def attention_maps(
    model: nn.Module,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"],
    heads: Sequence[tuple[int, int]],
) -> Float[Tensor, "batch head query key"]:
    """Whole maps of chosen (layer, head) pairs, in their order, for pictures; rows of padding are 0.

    Holds these maps and no other. Runs the model and refuses like `received`.
    """
    real = _checked(input_ids, attention_mask)
    if not heads:
        raise ValueError("attention maps are asked for by (layer, head), got none; name at least one")
    batch, seq = real.shape
    made = torch.zeros(batch, len(heads), seq, seq, dtype=torch.float32, device=real.device)
    picked = _Chosen.of(model, sorted({layer for layer, _ in heads}), None)

    def see(seen: "_Seen") -> None:
        block = seen.block
        for n, (layer, head) in enumerate(heads):
            if layer == seen.layer:
                _check_heads(layer, seen.probabilities.shape[1], [head])
                made[:, n, block.start : block.stop, block.low : block.high] = seen.probabilities[:, head]

    _see(model, input_ids, attention_mask, picked, see)
    return made * real[:, None, :, None]


@dataclass(frozen=True)
class _Chosen:
    """Layers and heads that are asked for; heads None = all."""

    layers: Sequence[int]
    heads: Sequence[int] | None

    @classmethod
    def of(cls, model: nn.Module, layers: Sequence[int] | None, heads: Sequence[int] | None) -> "_Chosen":
        """Refuses layers that have no attention: an average over the others would be about another model."""
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
    """A block of queries of one layer, chosen heads alone."""

    layer: int
    block: Block
    probabilities: Float[Tensor, "batch head query key"]


def _see(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, picked: _Chosen, see: Callable[[_Seen], None]
) -> int:
    """Runs the model and shows what is asked for; returns how many maps that were."""
    maps = 0

    def look(layer: int, block: Block, probabilities: Tensor) -> None:
        nonlocal maps
        if layer not in picked.layers:
            return
        if picked.heads is not None:
            _check_heads(layer, probabilities.shape[1], picked.heads)
            probabilities = probabilities[:, picked.heads]
        maps += probabilities.shape[1] if block.start == 0 else 0
        see(_Seen(layer, block, probabilities))

    run_in_blocks(base_of(model), input_ids, attention_mask, look)  # type: ignore[arg-type]
    return maps


def _check_heads(layer: int, count: int, heads: Sequence[int]) -> None:
    if wrong := sorted({head for head in heads if not 0 <= head < count}):
        raise ValueError(f"layer {layer} has heads 0 to {count - 1}, got heads {wrong}; choose among those it has")


def _checked(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """True on real tokens."""
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
    """The queries that count, and whether a token's own query does."""
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


def _without(probabilities: Tensor, first: Tensor, block: Block) -> Tensor:
    """Maps without the first token of each row, their rows divided by what remains (a row of nothing stays 0)."""
    keys = torch.arange(block.low, block.high, device=first.device)
    kept = probabilities * (keys != first[:, None])[:, None, None]
    return kept / kept.sum(-1, keepdim=True).clamp(min=torch.finfo(kept.dtype).tiny)


def _dtype(model: nn.Module) -> torch.dtype:
    weight: Tensor = base_of(model).get_input_embeddings().weight  # type: ignore[arg-type, assignment]
    return weight.dtype
