"""How far a step moves the learner on text that its documents have nothing to do with.

The locality term of CaMeLS (arXiv 2305.15076, section 3): the divergence of the learner's next tokens from those of the
untouched learner, on text at large, beside the loss of the task.
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


def log_probabilities(model: nn.Module, batch: Batch) -> Float[Tensor, "token vocab"]:
    """Log-probabilities of every next token, in nats, for each token that is predicted, rows one by one.

    At least float32, without dropout; differentiable. All of it is held at once: tokens x vocabulary numbers.
    """
    with deterministic(model):
        picked = hidden_states(model, batch)[:, :-1][batch.predicted()[:, 1:]]
        logits = head_of(model).logits(picked)
        return (logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits).log_softmax(-1)


@dataclass(frozen=True)
class Reference:
    """Text, and what the untouched model said of it."""

    batch: Batch
    before: Float[Tensor, "token vocab"]

    def divergence(self, model: nn.Module) -> Float[Tensor, ""]:
        """KL(before || now) in nats, the mean over tokens: sum over the vocabulary of p (log p - log q), p before."""
        now = log_probabilities(model, self.batch)
        return F.kl_div(now, self.before, reduction="none", log_target=True).sum(-1).mean()


def reference(model: nn.Module, batch: Batch) -> Reference:
    """What the model says of the batch now."""
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
        """Windows drawn by `key`, and what the model, which must be untouched, says of them."""
        order = generator("locality", *key).permutation(len(self.rows))[: self.at_a_time]
        return reference(model, padded([self.rows[i] for i in order], self.pad, "right", device_of(model)))


def locality(config: LocalityConfig, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Locality | None:
    """The term that a file asks for, of an untouched model; None at strength 0.

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
    return Path(name).read_text(encoding="utf-8-sig")
