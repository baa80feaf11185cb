"""Pulls weights back to their start, harder the more they mattered for old text: EWC (arXiv 1612.00796).

The penalty (strength / 2) sum_i F_i (theta_i - theta0_i)^2 with the diagonal of the empirical Fisher information:
F_i = mean over rows of (d log p(row) / d theta_i)^2, labels being the text's own tokens (not the model's draws).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foci.corpus import read_corpus
from foci.corpus.store import rows_key
from foci.focus import Context, HoldsWeights, Prepares, Row
from foci.methods._prepared import Prepared
from foci.models import evaluating, fingerprint
from foci.models.forward import device_of, pad_id, padded
from foci.models.losses import token_nll
from foci.models.quantised import check_whole
from foci.probes.general import general_text_path
from foci.seeds import drawn
from foci.system.cache import kept


def diagonal_fisher(parameters: Mapping[str, Tensor], losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """Returns the mean over examples of the squared gradient of each example's NLL (nats), by the parameters' names.

    `losses` gives one scalar per example; each is differentiated before the next is asked for.
    """
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    count = 0
    for loss in losses:
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for sums, gradient in zip(total.values(), gradients, strict=True):
            if gradient is not None:
                sums.addcmul_(gradient, gradient)
        count += 1
    if not count:
        raise ValueError("the Fisher information needs at least one example, got none")
    return {name: sums / count for name, sums in total.items()}


def of_mean_one(fisher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the same, divided by its mean over all elements. Raises ValueError where it is 0 or not finite."""
    mean = float(sum(f.double().sum() for f in fisher.values())) / sum(f.numel() for f in fisher.values())
    if not 0 < mean < float("inf"):
        raise ValueError(f"the mean Fisher information is {mean}, expected finite and above 0; look at the retain text")
    return {name: f / mean for name, f in fisher.items()}


def held_parameters(model: PreTrainedModel, weights: Literal["all", "linear"]) -> dict[str, nn.Parameter]:
    """Returns all parameters, or the weights of linear layers but the head, which are those that adapters adapt."""
    named = dict(model.named_parameters())
    if weights == "all":
        return named
    head = model.get_output_embeddings()
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head}
    return {name: p for name, p in named.items() if name.removesuffix(".weight") in linear}


@dataclass(frozen=True)
class Ewc(Prepares):
    """After each step, moves each weight toward its start, in proportion to its Fisher information on old text.

    The step back is learning rate * `strength` * Fisher information (divided by its mean) * distance. `path` names the
    old text (files as in `corpus.path`), None the general page of foci; the information is the mean over at most `rows`
    of its rows, which the seed draws. `weights` "linear" is for runs with an adapter: only what it
    adapts is held; "all" is for training all weights.
    """

    grows: ClassVar[bool] = False

    strength: float = 100.0
    path: str | tuple[str, ...] | None = None
    rows: int = 256
    weights: Literal["all", "linear"] = "all"

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf"):
            raise ValueError(f"ewc's strength is a finite number above 0, got {self.strength!r}; 100 is the default")
        if self.rows < 1:
            raise ValueError(f"ewc's rows, of old text, are at least 1, got {self.rows!r}; 256 is the default")
        if self.weights not in ("all", "linear"):
            raise ValueError(f"ewc's weights are 'all' or 'linear' (with an adapter), got {self.weights!r}")

    def prepare(self, context: Context) -> tuple["EwcPull", Sequence[Row]]:
        """Computes the Fisher information of the untouched model, or reads what was kept. New rows stay as they are.

        Raises ValueError where what was kept is of another model or text, and for weights in few bits.
        """
        check_whole(context.model, "ewc")
        paths: str | tuple[str, ...] = str(general_text_path()) if self.path is None else self.path
        longest = max(len(row) for row in context.rows)
        found = read_corpus(paths, context.tokenizer, max_length=longest).rows
        old = drawn(found, context.seed, lambda row: row.row_id)[: self.rows]
        device = str(device_of(context.model))
        fisher = kept(
            context.folder / "fisher.safetensors",
            {"model": fingerprint(context.model), "text": rows_key(old), "weights": self.weights},
            lambda: self._fisher(context, old),
            save_file,
            lambda path: load_file(path, device=device),
        )
        return EwcPull(self, {name: self.strength * f for name, f in fisher.items()}), context.rows

    def _fisher(self, context: Context, old: Sequence[Row]) -> dict[str, Tensor]:
        with evaluating(context.model), torch.autocast(device_of(context.model).type, enabled=False):
            losses = _row_losses(context, old)
            return of_mean_one(diagonal_fisher(held_parameters(context.model, self.weights), losses))


@dataclass(frozen=True, repr=False, eq=False)
class EwcPull(Prepared, HoldsWeights):
    """Pulls each weight by `pulls`: strength * Fisher information, by the parameter's name."""

    settings: Ewc
    pulls: Mapping[str, Tensor] = field(repr=False)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, EwcPull)
            and (self.settings, self.pulls.keys()) == (other.settings, other.pulls.keys())
            and all(torch.equal(pull, other.pulls[name]) for name, pull in self.pulls.items())
        )

    __hash__ = None  # type: ignore[assignment]

    def pull(self, step: int) -> Mapping[str, Tensor]:
        """Returns `pulls`, at every update."""
        return self.pulls


def _row_losses(context: Context, rows: Sequence[Row]) -> Iterator[Tensor]:
    """Computes -log p of each row in nats: the sum over its predicted tokens, of a conversation over its answers."""
    device = device_of(context.model)
    for row in rows:
        batch = padded([row], pad_id(context.tokenizer), "right", device)
        yield token_nll(context.model, batch, batch.learned()).sum()
