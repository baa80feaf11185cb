"""K-Adapter (arXiv 2002.01808): small transformer layers beside a frozen language model, read before its LM head.

    adapter = KAdapter(KAdapterConfig(hidden=576, reads=(0, 14, 29)))
    model = KAdapterModel(base, adapter, layers, body)   # base frozen; its body now gives h + 0.1 LN(adapter)

With h_i the layer-normalised output of the i-th layer that is read, o_0 = 0 and [;] the concatenation:

    o_i = h_i + o_(i-1) + up(transformer(down([h_i ; o_(i-1)])))
    what the LM head reads = h + scale * LayerNorm(o_last)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.utils import ModelOutput

EPSILON = 1e-5
"""LayerNorm's, as in the published code."""
PROJECTION_SPREAD, SPREAD = 2e-4, 0.02
"""Standard deviation that weights are drawn with, down and up projections and all others; the published code's."""


@dataclass(frozen=True)
class KAdapterConfig:
    """Sizes of a K-Adapter for a model of `hidden` numbers per token whose layers `reads` (from 0) feed it.

    Each adapter layer projects down to `width` and runs `depth` transformer layers of `heads` heads; `dropout` acts on
    attention and on what each half of a transformer layer adds. The normalised output is multiplied by `scale`; the
    last LayerNorm's gain begins at `gain`: with 0 the model answers as before until it is trained.
    """

    hidden: int
    reads: tuple[int, ...]
    depth: int = 2
    width: int = 768
    heads: int = 12
    dropout: float = 0.0
    scale: float = 0.1
    gain: float = 0.0


class CacheLayer(DynamicLayer):
    """Keys and values of one of the adapter's transformer layers, kept behind the model's own in its cache."""


class TransformerLayer(nn.Module):
    """Causal self-attention, then an MLP of four times the width, each added to its input and normalised (BERT's).

    Without positions of its own: those are in the hidden states that it reads.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(
        self,
        states: Float[Tensor, "batch query width"],
        visible: Bool[Tensor, "batch query key"],
        cache: DynamicLayer | None = None,
    ) -> Float[Tensor, "batch query width"]:
        """The next states; with a cache, keys and values of earlier tokens come from it."""
        parts = self.attention_in(states).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        if cache is not None:
            key, value = cache.update(key, value)
        rate = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None], dropout_p=rate)
        added = self.attention_out(seen.transpose(1, 2).flatten(2))
        states = self.attention_norm(states + F.dropout(added, rate))
        added = self.mlp_out(F.gelu(self.mlp_in(states)))
        result: Tensor = self.mlp_norm(states + F.dropout(added, rate))
        return result


class AdapterLayer(nn.Module):
    """Down-projection of [hidden state ; output of the layer before], transformer layers, up-projection, skip."""

    def __init__(self, config: KAdapterConfig) -> None:
        super().__init__()
        self.down = nn.Linear(2 * config.hidden, config.width)
        self.transformer = nn.ModuleList(
            TransformerLayer(config.width, config.heads, config.dropout) for _ in range(config.depth)
        )
        self.up = nn.Linear(config.width, config.hidden)

    def forward(
        self,
        hidden: Float[Tensor, "batch query hidden"],
        before: Float[Tensor, "batch query hidden"],
        visible: Bool[Tensor, "batch query key"],
        caches: Sequence[DynamicLayer | None],
    ) -> Float[Tensor, "batch query hidden"]:
        """The layer's output, hidden + before + up(transformer(down([hidden ; before])))."""
        states = self.down(torch.cat([hidden, before], -1))
        for layer, cache in zip(self.transformer, caches, strict=True):
            states = layer(states, visible, cache)
        result: Tensor = hidden + before + self.up(states)
        return result


def visible_keys(
    mask: Int[Tensor, "batch key"] | Bool[Tensor, "batch key"], queries: int
) -> Bool[Tensor, "batch query key"]:
    """True where one of the last `queries` tokens may look: at itself, and at real tokens before it.

    Padding looks at itself alone, so that no row of an attention map is empty.
    """
    at = torch.arange(mask.shape[1], device=mask.device)
    own = at[-queries:, None]
    return ((at < own) & mask.bool()[:, None]) | (at == own)


class KAdapter(nn.Module):
    """The adapter layers one after another, and the LayerNorm of what the last one gives."""

    def __init__(self, config: KAdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(AdapterLayer(config) for _ in config.reads)
        self.norm = nn.LayerNorm(config.hidden, eps=EPSILON)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Draws all weights anew from torch's global generator; biases are 0, the last gain is the configuration's."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0.0, PROJECTION_SPREAD if name.endswith((".down", ".up")) else SPREAD)
                module.bias.zero_()
        self.norm.weight.fill_(self.config.gain)

    @property
    def depth(self) -> int:
        """Transformer layers in all adapter layers together."""
        return len(self.layers) * self.config.depth

    def forward(
        self,
        read: Sequence[Float[Tensor, "batch query hidden"]],
        last: Float[Tensor, "batch query hidden"],
        mask: Int[Tensor, "batch key"] | Bool[Tensor, "batch key"],
        caches: Sequence[DynamicLayer] | None = None,
    ) -> Float[Tensor, "batch query hidden"]:
        """What the LM head reads in place of `last`.

        `read` are outputs of the layers `config.reads`; `mask` is False or 0 on padding, over cached tokens too.
        """
        kept = caches or [None] * self.depth
        visible = visible_keys(mask, last.shape[1])
        output = torch.zeros_like(last, dtype=self.norm.weight.dtype)
        depth = self.config.depth
        for number, (layer, hidden) in enumerate(zip(self.layers, read, strict=True)):
            normalised = F.layer_norm(hidden.to(output.dtype), (self.config.hidden,), eps=EPSILON)
            output = layer(normalised, output, visible, kept[number * depth : (number + 1) * depth])
        return (last + self.config.scale * self.norm(output)).to(last.dtype)


class KAdapterModel(nn.Module):
    """A frozen language model with a K-Adapter, used as the model itself: its attributes and `generate` are found here.

    `layers` are the modules whose outputs `adapter.config.reads` stand for, `body` the module of `base` whose
    `last_hidden_state` the LM head reads. Hooks on them stay for good, so that `base` too answers with the adapter.
    `state_dict` holds the adapter alone, and `load_state_dict` wants no more.
    """

    def __init__(self, base: PreTrainedModel, adapter: KAdapter, layers: Sequence[nn.Module], body: nn.Module) -> None:
        super().__init__()
        self.base_model = nn.ModuleDict({"model": base.requires_grad_(False)})  # parameters are named as PEFT's are
        self.k_adapter = adapter
        self.read: dict[int, Tensor] = {}
        for number, layer in enumerate(layers):
            layer.register_forward_hook(partial(self._keep, number))
        body.register_forward_hook(self._adapt, with_kwargs=True)
        self.register_state_dict_post_hook(_without_base)
        self.register_load_state_dict_post_hook(_base_is_not_missing)

    def get_base_model(self) -> PreTrainedModel:
        """The Transformers model, adapter in place."""
        base = self.base_model["model"]
        assert isinstance(base, PreTrainedModel)
        return base

    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"] | None = None,
        attention_mask: Tensor | None = None,
        labels: Int[Tensor, "batch seq"] | None = None,
        **inputs: Any,
    ) -> Any:
        """The base model's own forward; its LM head reads the adapted hidden state."""
        return self.get_base_model()(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **inputs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_model":  # not there yet: the constructor is running
                raise
            return getattr(self.base_model["model"], name)

    def _keep(self, number: int, _layer: nn.Module, _inputs: Any, output: Any) -> None:
        self.read[number] = output[0] if isinstance(output, tuple) else output

    def _adapt(self, body: nn.Module, _inputs: Any, options: dict[str, Any], output: Any) -> ModelOutput:
        """The body's output with the adapted last hidden state."""
        name = type(self.get_base_model()).__name__
        read, count = [self.read[number] for number in sorted(self.read)], len(self.k_adapter.layers)
        self.read.clear()
        if len(read) != count or not isinstance(output, ModelOutput) or "attention_mask" not in options:
            raise ValueError(
                f"{name} cannot have a K-Adapter: its forward ran {len(read)} of {count} layers that feed it, gave a "
                f"{type(output).__name__} and was called with {', '.join(options) or 'nothing by name'} (expected a "
                "ModelOutput and an attention_mask); use lora, rslora, dora or osf"
            )
        last = output.last_hidden_state
        caches = self._caches(output.get("past_key_values"))
        earlier = caches[0].get_seq_length() if caches else 0
        mask = options["attention_mask"]
        if mask is None:
            mask = torch.ones(last.shape[0], earlier + last.shape[1], dtype=torch.long, device=last.device)
        cached = int(output.past_key_values.get_seq_length()) if caches else last.shape[1]
        if mask.shape != (last.shape[0], earlier + last.shape[1]) or cached != earlier + last.shape[1]:
            raise ValueError(
                f"a K-Adapter with {earlier} tokens in its cache reads {last.shape[1]} more under an attention_mask of "
                f"shape {(last.shape[0], earlier + last.shape[1])}, got {tuple(mask.shape)} and a model's cache of "
                f"{cached} tokens; give no 4-D mask, and no cache that was filled without the adapter"
            )
        self.k_adapter.train(body.training)  # so that whoever evaluates the base model alone sees no dropout
        output.last_hidden_state = self.k_adapter(read, last, mask, caches)
        return output

    def _caches(self, cache: Cache | None) -> list[CacheLayer] | None:
        """The adapter's own layers of the model's cache, put behind the model's where there are none yet."""
        if cache is None:
            return None
        own = [layer for layer in cache.layers if isinstance(layer, CacheLayer)]
        if not own:
            own = [CacheLayer() for _ in range(self.k_adapter.depth)]
            cache.layers.extend(own)
        return own


def _without_base(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in [name for name in state if name.startswith(prefix + "base_model.")]:
        del state[name]


def _base_is_not_missing(_module: nn.Module, found: Any) -> None:
    found.missing_keys[:] = [name for name in found.missing_keys if "base_model.model." not in name]
