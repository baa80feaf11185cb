"""How many tokens pass through a model at once, so that training fits in the memory there is."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from foci.config.train import TrainConfig
from foci.focus import Batch
from foci.models import LanguageModel, layer_count
from foci.models.architecture import base_of, recompute_activations, sample_ids
from foci.models.forward import device_of
from foci.models.packing import WIDTH
from foci.models.soft_targets import summed_loss
from foci.system import launch, machine, processes
from foci.training.passes import Passes

CPU_TOKENS = 768
"""Most positions of a pass on a CPU: longer ones take more memory there, and up to a tenth less time (LOG.md)."""
SHARE = 0.6
"""The share of the free memory that may be planned for activations; the rest is for all that is not counted."""
COMPARED = (16, 48)
"""Positions of the two passes whose difference tells the activations of a position."""


@dataclass(frozen=True)
class Fit:
    """How an arm reads its updates.

    `tokens`: most positions of a pass, padding counted; None: no limit. `recomputes`: the activations of each layer are
    computed again in the backward pass (activation checkpointing), since not even one row fits otherwise.
    """

    tokens: int | None
    recomputes: bool = False

    def words(self) -> str:
        """Returns in a sentence what a user should know; empty where nothing is out of the ordinary."""
        if not self.recomputes:
            return ""
        return (
            "memory is short: the activations of each layer are computed twice, which takes about a third more time; "
            "lower corpus.max_length to avoid it"
        )


def packs_of(train: TrainConfig, longest: int) -> int | None:
    """Returns the tokens of a long row, for rows of up to `longest` tokens; None where rows are not packed."""
    return max(WIDTH, longest) if train.packing else None


def passes_of(
    train: TrainConfig, model: LanguageModel, longest: int, dtype: torch.dtype, *, shares: int = 1
) -> tuple[Passes, list[str]]:
    """Returns how rows of up to `longest` tokens pass through the model, and sentences on what is out of the ordinary.

    `shares`: how many processes will share the model, which is still whole; all of them must call it then. `dtype` is
    the type that is computed in.
    """
    fit, packs = fitting(train, model, longest, dtype, shares=shares), packs_of(train, longest)
    told = [fit.words()] if fit.words() else []
    passes = Passes(lean=True, tokens=fit.tokens, packs=packs)
    if reason := passes.why_apart(model, longest):
        told.append(f"rows are not packed: {reason}")
        passes = replace(passes, packs=None)
    return passes, told


def fitting(train: TrainConfig, model: LanguageModel, longest: int, dtype: torch.dtype, *, shares: int = 1) -> Fit:
    """Returns how rows of up to `longest` tokens are read; `dtype` is the type that is computed in.

    `shares`: how many processes will share the model, which is still whole; all of them must call it then, and read
    as the one with the least free memory can.

    `train.batch_tokens` is taken where it is given. Else a pass takes as many positions as the free memory holds, and
    on a CPU no more than `CPU_TOKENS`. Where not even one row fits, the model is made to compute activations again, if
    it can.
    """
    if train.batch_tokens is not None:
        return Fit(train.batch_tokens)
    device = device_of(model)
    most = CPU_TOKENS if device.type == "cpu" else None
    free = machine.free_bytes(device)
    if free is None:
        return Fit(most)
    if device.type == "cpu":
        free //= launch.local_count()  # the processes of a machine share its memory
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    free += weights - (weights + later_bytes(model)) // shares
    if shares > 1:  # a layer that is computed again is gathered again, which takes all processes
        free = min(processes.gathered(free))
    each = kept_bytes(model, dtype)
    fits = int(SHARE * free / each)
    if fits >= longest:
        return Fit(min(fits, most or fits))
    try:
        recompute_activations(model)
    except ValueError:  # this architecture cannot
        return Fit(1)
    layers, size = layer_count(model), base_of(model).config.get_text_config().hidden_size
    again = each / layers + 4 * size * layers  # the activations of one layer, and the inputs of all
    return Fit(max(1, min(int(SHARE * free / again), most or fits + longest)), recomputes=True)


def later_bytes(model: LanguageModel) -> int:
    """Returns the bytes that the first update adds for good: gradients, and the two moments of AdamW."""
    return sum(3 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def kept_bytes(model: LanguageModel, dtype: torch.dtype) -> float:
    """Returns the bytes that a training pass keeps for the backward pass, per position of a short row.

    Attention that keeps a number for each pair of positions takes more in long rows, which is not counted.
    """
    short, long = (_kept(model, positions, dtype) for positions in COMPARED)
    return max(1.0, (long - short) / (COMPARED[1] - COMPARED[0]))


def _kept(model: LanguageModel, positions: int, dtype: torch.dtype) -> int:
    """Returns the bytes of all tensors that one pass over a row keeps for its backward pass; each storage once."""
    ids = sample_ids(base_of(model)).flatten()
    ids = ids.repeat(-(-positions // len(ids)))[None, :positions]
    batch = Batch(ids, torch.ones_like(ids), ids.clone())
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold the pass that made it, which holds the tensor, for good

    training = model.training
    nn.Module.train(model)
    try:
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast(ids.device.type, dtype=dtype, enabled=dtype != torch.float32),
            torch.random.fork_rng(devices=[]),
        ):
            loss, _ = summed_loss(model, batch, batch.predicted().float(), [], [])
    finally:
        nn.Module.train(model, training)
    del loss
    return sum(kept.values())
