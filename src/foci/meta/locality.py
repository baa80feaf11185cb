"""The locality term: how far a step moves the learner on unrelated text.

The locality term of CaMeLS (arXiv 2305.15076, section 3): the divergence of the learner's next tokens from those of the
untouched learner, on unrelated text, added to the loss of the task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from foci.corpus import Document, make_rows
from foci.focus import Batch, Row
from foci.gradients.influence import deterministic
from foci.meta.config import LocalityConfig
from foci.models import head_of
from foci.models.forward import device_of, pad_id, padded
from foci.models.losses import hidden_states
from foci.probes.general import general_text
from foci.seeds import generator
from foci.system.texts import read_text


def log_probabilities(model: nn.Module, batch: Batch) -> Float[Tensor, "token vocab"]:
    """Computes the log-probabilities (nats) of the whole vocabulary at every predicted token, row after row.

    At least float32, without dropout; differentiable. All of it is held at once: tokens x vocabulary numbers.
    """
    with deterministic(model):
        picked = hidden_states(model, batch)[:, :-1][batch.predicted()[:, 1:]]
        logits = head_of(model).logits(picked)
        return (logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits).log_softmax(-1)


@dataclass(frozen=True)
class Reference:
    """Text, and the untouched model's log-probabilities of its tokens."""

    batch: Batch
    before: Float[Tensor, "token vocab"]

    def divergence(self, model: nn.Module) -> Float[Tensor, ""]:
        """Computes KL(before || now) in nats: the mean over tokens of the vocabulary's sum of p (log p - log q)."""
        now = log_probabilities(model, self.batch)
        return F.kl_div(now, self.before, reduction="none", log_target=True).sum(-1).mean()


def reference(model: nn.Module, batch: Batch) -> Reference:
    """Records the model's log-probabilities on a batch."""
    with torch.no_grad():
        return Reference(batch, log_probabilities(model, batch))


@dataclass(frozen=True)
class Locality:
    """Windows of a text to draw from, windows held out, and how much their divergence counts.

    `held_out` was asked before any step; so must be what is drawn.
    """

    strength: float
    rows: Sequence[Row]
    held_out: Reference
    at_a_time: int
    pad: int

    def drawn(self, model: nn.Module, *key: object) -> Reference:
        """Draws windows by `key` and records what the model, which must be untouched, says of them."""
        order = generator("locality", *key).permutation(len(self.rows))[: self.at_a_time]
        return reference(model, padded([self.rows[i] for i in order], self.pad, "right", device_of(model)))


def locality(config: LocalityConfig, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Locality | None:
    """Makes the locality term of a file for an untouched model; None at strength 0.

    The last windows of the text are held out. Raises FileNotFoundError where there is no such file, ValueError for a
    text without enough windows.
    """
    if config.strength == 0:
        return None
    document = Document(_text(config.text).strip(), config.text, 1)
    rows = make_rows([document], tokenizer, max_length=config.max_length, add_eos=False).rows
    rows = tuple(row for row in rows if len(row) > 1)  # a single token predicts nothing
    learned, held_out = rows[: -config.batch_size], rows[-config.batch_size :]
    if not learned:
        raise ValueError(
            f"locality.text {config.text!r}: expected more windows of at most {config.max_length} tokens than the "
            f"{config.batch_size} that are held out, got {len(rows)}; give a longer text, or lower locality.max_length "
            "or locality.batch_size"
        )
    pad = pad_id(tokenizer)
    asked = reference(model, padded(held_out, pad, "right", device_of(model)))
    return Locality(config.strength, learned, asked, config.batch_size, pad)


def _text(name: str) -> str:
    if name == "general":
        return general_text()
    if not Path(name).is_file():
        raise FileNotFoundError(f"locality.text: there is no file {name}; name a text file, or 'general'")
    return read_text(name, "locality.text: the file")
