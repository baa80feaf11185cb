"""Reads rows token by token: from a cache of earlier ones where a model's cache is right, else from the start.

Prompts of different lengths stand in one batch, padded on the left. Some models count that padding, pass it through a
recurrent state, or keep no cache of the usual kind. `decodes_from_cache` proves it on a few tokens, once per model and
with or without padding.
"""

from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foci.focus import Batch
from foci.models.architecture import base_of, equal_logits, evaluating, precision_of, sample_ids
from foci.models.head import head_of
from foci.models.losses import captured_hidden, hidden_states
from foci.models.padding import leading, moved, neighbour_limits

_FROM_CACHE: WeakKeyDictionary[PreTrainedModel, dict[bool, bool]] = WeakKeyDictionary()


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
    lengths = batch.attention_mask.sum(1)
    alone = all(int(lengths.max()) + more <= limit for limit, *_ in neighbour_limits(model))
    uneven = bool((lengths != lengths[0]).any())
    return (Cached if alone and decodes_from_cache(model, uneven=uneven) else FromStart)(model, batch)


def decodes_from_cache(model: nn.Module, *, uneven: bool = True) -> bool:
    """Returns whether the model's cache gives the logits of whole rows that are read alone. A model is asked once.

    A prompt of 6 tokens is continued by given tokens; with it, where prompts may be `uneven`, a padded one of 3.
    """
    base = base_of(model)  # type: ignore[arg-type]
    known = _FROM_CACHE.setdefault(base, {})
    if uneven not in known:
        with torch.no_grad(), evaluating(model), torch.autocast(sample_ids(base).device.type, enabled=False):
            known[uneven] = _agrees(model, base, uneven)
    return known[uneven]


def _agrees(model: nn.Module, base: PreTrainedModel, uneven: bool) -> bool:
    ids, head = sample_ids(base), head_of(model)
    starts, rows = (
        ((6, 3), [ids[0, :6], torch.cat([ids[0, :1].repeat(3), ids[0, :3]])]) if uneven else ((6,), [ids[0, :6]])
    )
    prompts = torch.stack(rows)
    mask = torch.ones_like(prompts)
    mask[1:, :3] = 0
    cached, given = Cached(model, Batch(prompts, mask, prompts)), None
    for more in range(3 if uneven else 2):
        try:
            ours = head.logits(cached.last_hidden(given))
        except (AttributeError, TypeError, ValueError, RuntimeError):  # no such cache, or no such positions
            return False
        lengths = [start + more for start in starts]
        for row, length in enumerate(lengths if uneven or more else ()):  # one row alone, from its start, is as it is
            theirs = model(input_ids=ids[:, :length], attention_mask=torch.ones_like(ids[:, :length]), use_cache=False)
            theirs = theirs.logits[0, -1].float().nan_to_num()
            tolerance = precision_of(base.get_input_embeddings().weight.dtype)  # type: ignore[union-attr, arg-type]
            if not equal_logits(ours[row].float().nan_to_num(), theirs, tolerance):
                return False
        given = ids[0, lengths][:, None] if more < 2 else None
    return True


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Returns tokens that end a text, by the tokenizer, the model's configuration and its generation settings."""
    found: set[int] = set()
    base = base_of(model)
    for settings in (tokenizer, base.config.get_text_config(), getattr(base, "generation_config", None)):
        token = getattr(settings, "eos_token_id", None)
        found.update(token if isinstance(token, list | tuple) else [] if token is None else [token])
    return frozenset(found)
