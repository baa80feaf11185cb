"""The trainer of a pretraining: a plan, an objective, and one loss for all arms."""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from foci.focus import Batch
from foci.models.losses import token_entropy, token_nll
from foci.pretrain.masking import masked_entropy, masked_nll
from foci.training.trainer import FocusTrainer


class Pretrainer(FocusTrainer):
    """A `FocusTrainer` whose loss is ours in every arm, so that arms differ in their methods alone."""

    def __init__(self, *given: Any, masked: bool, **named: Any) -> None:
        self.masked = self.reads_ahead = masked
        super().__init__(*given, **named)

    @property
    def replaces_loss(self) -> bool:
        """Always."""
        return True

    def token_nll(
        self, model: nn.Module, batch: Batch, where: Bool[Tensor, "batch seq"] | None = None
    ) -> Float[Tensor, "batch seq"]:
        """Computes the NLL in nats of the next tokens, or of the hidden ones."""
        return (masked_nll if self.masked else token_nll)(model, batch, where)

    def token_entropy(
        self, model: nn.Module, batch: Batch
    ) -> tuple[Float[Tensor, "batch seq"], Float[Tensor, "batch seq"]]:
        """Computes the NLL and the entropy, in nats, of the next tokens, or of the hidden ones."""
        return (masked_entropy if self.masked else token_entropy)(model, batch)
