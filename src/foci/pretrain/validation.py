"""The loss on held-out text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from foci.focus import Row
from foci.models.forward import answering, buckets, device_of
from foci.models.losses import token_nll
from foci.pretrain.masking import MaskedCollator, Masking, masked_nll
from foci.pretrain.text import Material, token_bytes
from foci.seeds import generator
from foci.training.dataset import Collator, batch_of


@dataclass(frozen=True)
class Validation:
    """Held-out rows and how they are read. With `masking` the same tokens are hidden each time, whatever the seed.

    `dtype` is what is computed in: that of training, because a model that trains under autocast keeps to it.
    """

    material: Material
    masking: Masking | None = None
    dtype: torch.dtype = torch.float32

    def measure(self, model: nn.Module, batch_size: int = 32) -> dict[str, float]:
        """Computes `nats` per predicted token and `bits_per_byte` of the predicted text. Lower is better.

        Of a masked model these are the hidden tokens alone, given all others: not comparable with a causal model's.
        """
        rows = self._rows()
        pad = int(self.material.tokenizer.pad_token_id or 0)
        collate = Collator(pad) if self.masking is None else MaskedCollator(pad)
        loss = token_nll if self.masking is None else masked_nll
        sizes = torch.tensor(token_bytes(self.material.tokenizer), device=device_of(model))
        nats, tokens, size = 0.0, 0, 0
        with answering(model, self.dtype):
            for bucket in buckets([len(row) for row in rows], batch_size):
                batch = batch_of(collate([rows[i] for i in bucket])).to(device_of(model))
                where = batch.predicted()
                nats += float(loss(model, batch).double().sum())
                tokens += int(where.sum())
                size += int(sizes[batch.labels[where]].sum())
        return {"nats": nats / max(tokens, 1), "bits_per_byte": nats / math.log(2) / max(size, 1)}

    def _rows(self) -> Sequence[Row]:
        if self.masking is None:
            return self.material.held_out
        return [self.masking.edit(row, generator("held out", row.row_id)) for row in self.material.held_out]
