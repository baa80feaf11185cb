"""Base models whose linear layers are stored in 4 or 8 bits by bitsandbytes, for an adapter to train upon.

4 bits: NF4 with quantised scales, as QLoRA has them (arXiv 2305.14314). 8 bits: each row of a weight is rounded to
8-bit integers, as in LLM.int8() (arXiv 2208.07339); what flows into a layer is not rounded. That paper rounds it too,
except for columns that are large in any token of a batch, so that a token's logits change with later tokens and with
other rows. The embedding, the norms, the LM head and experts that are no linear layers stay in float32.
"""

import importlib.util
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from transformers import BitsAndBytesConfig


def arguments(bits: int | None, device: str) -> dict[str, Any]:
    """Returns what `from_pretrained` needs to store linear layers in 4 or 8 bits on a device; None: nothing.

    Raises ValueError for other bits, and where bitsandbytes is not installed.
    """
    if bits is None:
        return {}
    if bits not in (4, 8):
        raise ValueError(f"linear layers are stored in 4 or 8 bits, got bits {bits}; change it, or leave it out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            f"model.bits: {bits} needs the package bitsandbytes, which is not installed: pip install 'foci[bits]'"
        )
    # float32: autocast chooses what is computed in, as for any other model
    four: dict[str, Any] = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
                            "bnb_4bit_compute_dtype": torch.float32}  # fmt: skip
    settings = BitsAndBytesConfig(**(four if bits == 4 else {"load_in_8bit": True}))
    return {"quantization_config": settings, "device_map": {"": _with_number(device)}}


def _with_number(device: str) -> str:
    """Returns "cuda" with the number of this process' GPU: Transformers loads in threads, whose GPU would be the first.

    >>> _with_number("cpu"), _with_number("cuda:1")
    ('cpu', 'cuda:1')
    """
    return f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device


def made_exact(model: nn.Module, name: str) -> None:
    """Makes the layers in few bits of a model that was just loaded compute the same in training and when asked.

    On CPUs with AVX512-BF16 a 4-bit layer of bitsandbytes 0.50 repacks its weight at the first pass without gradients:
    from then on it computes in bfloat16, and passes no gradient on to the layers below. That is switched off. An 8-bit
    layer gets a pass of its own. Raises ValueError where no layer is in few bits.
    """
    if not is_quantised(model):
        raise ValueError(
            f"model {name!r}: bitsandbytes stored none of the layers of {type(model).__name__} in few bits; leave "
            "model.bits out"
        )
    module: Any
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
        elif type(module).__name__ == "Linear8bitLt":
            module.__dict__["forward"] = partial(_eight_bits, module)


def _eight_bits(module: Any, x: Tensor) -> Tensor:
    """Returns x W^T + bias, W in the number format of autocast, or of x."""
    product: Tensor = _EightBits.apply(x, module.weight.data, module.weight.SCB)
    return product if module.bias is None else product + module.bias.to(product.dtype)


class _EightBits(Function):
    """The product with a weight of 8-bit integers, which is made whole for a moment, in the backward pass again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, integers: Tensor, largest: Tensor) -> Tensor:
        ctx.save_for_backward(integers, largest)
        return F.linear(x, _whole(integers, largest, x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        integers, largest = ctx.saved_tensors
        return gradient @ _whole(integers, largest, gradient.dtype), None, None


def _whole(integers: Tensor, largest: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a weight whose rows are integers times a scale: 127 stands for the row's largest number."""
    return (integers * (largest / 127)[:, None]).to(dtype)


def count(parameter: nn.Parameter) -> int:
    """Returns how many weights a parameter holds: a 4-bit one holds two in each of its numbers."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def scales(parameter: nn.Parameter) -> Iterator[Tensor]:
    """Yields the numbers beside a parameter in few bits, without which it stands for nothing; none of another."""
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        yield state.absmax
        yield from (state.offset, state.state2.absmax) if state.nested else ()
    largest = getattr(parameter, "SCB", None)
    if largest is not None:
        yield largest


def is_quantised(model: nn.Module) -> bool:
    """Returns whether a model, or the one below its adapter, has layers in 4 or 8 bits."""
    return any(type(module).__name__ in ("Linear4bit", "Linear8bitLt") for module in model.modules())


def check_whole(model: nn.Module, method: str) -> None:
    """Raises ValueError, which names a method that moves all weights, for a model whose weights are in few bits."""
    if is_quantised(model):
        raise ValueError(
            f"{method} needs the gradients of all weights, and those of linear layers are in few bits (model.bits); "
            "leave model.bits out, or take another method"
        )
