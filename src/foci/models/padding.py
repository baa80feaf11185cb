"""Padding on the left, moved to the right before a model reads it.

A causal model reads a token without those after it, so padding on the right changes nothing, whatever the model counts:
absolute positions, positions from a padding id, the state of a recurrent layer. Padding on the left can change all of
these. `check_padding` proves once per model that padding on the right is not read. Some models choose their rotary
positions, or the tokens they attend to, by the longest row of a batch; `together` says which rows to read apart.
"""

import warnings
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from foci.models.architecture import base_of, equal_logits, evaluating, sample_ids

_CHECKED: WeakSet[PreTrainedModel] = WeakSet()


def leading(mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"]) -> Int[Tensor, " batch"]:
    """Returns how many tokens of padding stand before each row's first real token; 0 for a row without one.

    >>> leading(torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]))
    tensor([2, 0, 0])
    """
    return mask.bool().int().argmax(1)


def moved(values: Tensor, by: Int[Tensor, " batch"]) -> Tensor:
    """Returns (batch, seq, ...) with row b moved left by `by[b]` places; what falls off comes back on the right.

    `moved(moved(values, by), -by)` is `values`.

    >>> moved(torch.tensor([[0, 0, 5, 6], [7, 8, 0, 0]]), torch.tensor([2, 0]))
    tensor([[5, 6, 0, 0],
            [7, 8, 0, 0]])
    """
    at = (torch.arange(values.shape[1], device=values.device) + by.to(values.device)[:, None]) % values.shape[1]
    return values.gather(1, at.reshape(*at.shape, *[1] * (values.ndim - 2)).expand_as(values))


def check_side(mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"]) -> None:
    """Raises ValueError for a row with padding between its tokens, which models read in ways of their own."""
    real = mask.bool()
    begins = real[:, :1].sum(1) + (real[:, 1:] & ~real[:, :-1]).sum(1)
    if rows := (begins > 1).nonzero().flatten().tolist():
        raise ValueError(
            f"attention_mask has padding between the tokens of rows {rows[:8]} of {len(mask)}; padding stands before "
            "or after all tokens of a row: take these tokens out, or give them mask 1 and the label -100"
        )


def _states(output: Any) -> Tensor:
    """Returns the logits of a model's output; of a model without head, its hidden states."""
    found: Tensor = output["logits"] if "logits" in output else output[0]
    return found


def check_padding(model: nn.Module) -> None:
    """Raises ValueError, with the model's name, if padding on the right changes a row's logits.

    A row of 5 tokens is read alone, and padded beside one of 8 (tolerance: 1e-4 of the largest logit; in half
    precision, where a router's choice may change with the batch's shape, a quarter of it). Of a model without head its
    hidden states are compared. A model is checked once; one that reads these rows apart (`together`) need not be.
    """
    base = base_of(model)  # type: ignore[arg-type]
    if base in _CHECKED:
        return
    ids, pad = sample_ids(base), getattr(base.config.get_text_config(), "pad_token_id", None)
    rows = ids.repeat(2, 1)
    rows[1, 5:] = pad if isinstance(pad, int) and 0 <= pad < base.get_input_embeddings().weight.shape[0] else 0  # type: ignore[union-attr, index]
    mask = torch.ones_like(rows)
    mask[1, 5:] = 0
    if len(together(model, mask)) > 1:
        return
    with torch.no_grad(), evaluating(model), torch.autocast(ids.device.type, enabled=False):
        alone = _states(model(input_ids=ids[:, :5], attention_mask=mask[:1, :5], use_cache=False))
        padded = _states(model(input_ids=rows, attention_mask=mask, use_cache=False))[1:, -8:-3]
    half = base.get_input_embeddings().weight.dtype.itemsize == 2  # type: ignore[union-attr, operator]
    if not equal_logits(padded.float().nan_to_num(), alone[:, -5:].float().nan_to_num(), 0.25 if half else 1e-4):
        raise ValueError(
            f"{type(base).__name__} (model type {base.config.model_type!r}) reads its padding: the logits of 5 tokens "
            "differ by more than rounding where 3 tokens of padding follow them; give it rows of one length"
        )
    _CHECKED.add(base)


def neighbour_limits(model: nn.Module) -> Iterator[tuple[int, str, bool]]:
    """Yields the lengths in tokens above which a row changes how the model reads those beside it, and by what.

    The last value says whether rows above the limit change each other too.
    """
    config = base_of(model).config.get_text_config()  # type: ignore[arg-type]
    settings = getattr(config, "rope_parameters", None) or {}
    kinds = [settings] if "rope_type" in settings else [each for each in settings.values() if isinstance(each, dict)]
    for kind in kinds:
        limit = kind.get("original_max_position_embeddings") or getattr(config, "max_position_embeddings", None)
        if limit is not None and kind.get("rope_type") in ("longrope", "dynamic"):  # RecurrentGemma: any length
            yield limit, f"its rotary positions ({kind['rope_type']})", kind["rope_type"] == "dynamic"
    if chosen := getattr(config, "index_topk", None):
        yield chosen, f"which {chosen} earlier tokens it attends to, among equally good ones,", True


def together(
    model: nn.Module, mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"]
) -> list[tuple[Int[Tensor, " row"], int]]:
    """Returns which rows of a batch are read together, and how many tokens wide, so that each is read as it is alone.

    Padding stands on the right. Nearly always that is all rows. Rows above a limit change the others where a model

    - chooses rotary positions by the longest row of a batch: "longrope" (Phi-3), "dynamic";
    - has a top-k indexer (`index_topk`: DeepSeek-V3.2, GLM-5): it scores many tokens with 0, and the width of the batch
      decides which of these it takes.
    """
    rows = torch.arange(len(mask), device=mask.device)
    limits = [one for one in neighbour_limits(model) if one[0] < mask.shape[1]]
    if not limits or bool(mask.all()):
        return [(rows, mask.shape[1])]
    lengths, found = mask.sum(1), [rows]
    for limit, _, apart in limits:
        kinds = torch.where(lengths <= limit, 0, lengths if apart else 1)
        found = [some[kinds[some] == kind] for some in found for kind in kinds[some].unique()]
    return [(some, int(mask[some].any(0).nonzero().max()) + 1) for some in found]


def changes_of(model: nn.Module, mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"]) -> str | None:
    """Returns how the rows of a batch change each other (`together`), in words; None where they do not."""
    if len(together(model, mask)) == 1:
        return None
    shortest, longest = mask.sum(1).aminmax()
    limit, changed, _ = next(one for one in neighbour_limits(model) if int(longest) > one[0])
    return (
        f"{type(base_of(model)).__name__} changes {changed} where the longest row of a batch has more than {limit} "  # type: ignore[arg-type]
        f"tokens, so a row of {int(shortest)} tokens beside one of {int(longest)} is not read as it is alone; keep "
        f"rows of one length in batches of their own, or all rows to {limit} tokens (corpus.max_length)"
    )


def warn_of_neighbours(model: nn.Module, mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"]) -> None:
    """Warns if rows of a batch change each other, where the batch is read as it is."""
    if words := changes_of(model, mask):
        warnings.warn(words, stacklevel=2)


def warn_of_memory(model: nn.Module, width: int) -> None:
    """Warns if a batch of `width` tokens changes how the model reads later rows: "dynamic" rotary positions."""
    for limit, changed, _ in neighbour_limits(model):
        if "dynamic" in changed and width > limit:
            warnings.warn(
                f"{type(base_of(model)).__name__} keeps the rotary positions (dynamic) of the longest row that it has "  # type: ignore[arg-type]
                f"read, so what it says of a row of more than {limit} tokens depends on the rows before; keep rows to "
                f"{limit} tokens (corpus.max_length)",
                stacklevel=2,
            )
