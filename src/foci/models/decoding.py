"""Reads rows token by token: from a cache of earlier ones where a model's cache is right, else from the start.

Prompts of different lengths stand in one batch, padded on the left. Some models count that padding, pass it through a
recurrent state, or keep no cache of the usual kind. `decodes_from_cache` proves it on a few tokens, once per model.
"""

from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from foci.focus import Batch
from foci.models.architecture import base_of, equal_logits, evaluating, precision_of, sample_ids
from foci.models.head import head_of
from foci.models.losses import captured_hidden, hidden_states
from foci.models.padding import leading, moved, neighbour_limits

_FROM_CACHE: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def positions(attention_mask: Int[Tensor, "batch seq"] | Bool[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Returns position ids that start at 0 on a row's first real token, whichever side is padded."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


class Cached:
    """Reads a left-padded batch once, and then one token of each row at a time, with a cache of keys and values."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self.model, self.ids, self.mask = model, batch.input_ids, batch.attention_mask
        self.where = positions(self.mask)
        self.cache: object = None

    def last_hidden(self, ids: Int[Tensor, "batch one"] | None) -> Float[Tensor, "batch hidden"]:
        """Returns the LM head's input at each row's last token, after the next token `ids` (None: after the prompt)."""
        if ids is not None:
            self.ids, self.where = ids, self.where[:, -1:] + 1
            self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        read = {"input_ids": self.ids, "attention_mask": self.mask, "position_ids": self.where}
        with captured_hidden(self.model) as captured:
            out = self.model(**read, past_key_values=self.cache, use_cache=True)
        self.cache = out.past_key_values
        return captured[0][:, -1]


class FromStart:
    """Reads whole rows again after each token: slower, and right for every causal model."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        before = leading(batch.attention_mask)
        self.model, self.ids = model, moved(batch.input_ids, before)
        self.lengths = batch.attention_mask.long().sum(1)

    def last_hidden(self, ids: Int[Tensor, "batch one"] | None) -> Float[Tensor, "batch hidden"]:
        """Returns the LM head's input at each row's last token, after the next token `ids` (None: after the prompt)."""
        if ids is not None:
            self.ids = torch.cat([self.ids, ids], dim=1).scatter(1, self.lengths[:, None], ids)
            self.lengths = self.lengths + 1
        mask = (torch.arange(self.ids.shape[1], device=self.ids.device) < self.lengths[:, None]).long()
        hidden = hidden_states(self.model, Batch(self.ids, mask, self.ids))
        return hidden[torch.arange(len(hidden), device=hidden.device), self.lengths.to(hidden.device) - 1]


def reading(model: nn.Module, batch: Batch, more: int) -> Cached | FromStart:
    """Returns what reads a left-padded batch and up to `more` next tokens of each row: from a cache where it is right.

    Where a row gets so long that it changes how the model reads the others, or its own start (`neighbour_limits`), each
    row is read from its start.
    """
    longest = int(batch.attention_mask.sum(1).max()) + more
    alone = all(longest <= limit for limit, *_ in neighbour_limits(model))
    return (Cached if alone and decodes_from_cache(model) else FromStart)(model, batch)


def decodes_from_cache(model: nn.Module) -> bool:
    """Returns whether the model's cache gives the logits of whole, unpadded rows. A model is asked once.

    Two prompts, of 6 and 3 tokens, are continued by 2 given tokens.
    """
    base = base_of(model)  # type: ignore[arg-type]
    if base not in _FROM_CACHE:
        with torch.no_grad(), evaluating(model), torch.autocast(sample_ids(base).device.type, enabled=False):
            _FROM_CACHE[base] = _agrees(model, base)
    return _FROM_CACHE[base]


def _agrees(model: nn.Module, base: PreTrainedModel) -> bool:
    ids, head = sample_ids(base), head_of(model)
    prompts = torch.stack([ids[0, :6], torch.cat([ids[0, :1].repeat(3), ids[0, :3]])])
    mask = torch.ones_like(prompts)
    mask[1, :3] = 0
    cached, given = Cached(model, Batch(prompts, mask, prompts)), None
    for more in range(3):
        try:
            ours = head.logits(cached.last_hidden(given))
        except (AttributeError, TypeError, ValueError, RuntimeError):  # no such cache, or no such positions
            return False
        for row, length in enumerate((6 + more, 3 + more)):
            theirs = model(input_ids=ids[:, :length], attention_mask=torch.ones_like(ids[:, :length]), use_cache=False)
            theirs = theirs.logits[0, -1].float().nan_to_num()
            tolerance = precision_of(base.get_input_embeddings().weight.dtype)  # type: ignore[union-attr, arg-type]
            if not equal_logits(ours[row].float().nan_to_num(), theirs, tolerance):
                return False
        given = ids[0, [6 + more, 3 + more]][:, None] if more < 2 else None
    return True
