"""Lets models write answers piece by piece, one token of each row after the other, so that two can answer in turns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foci.focus import Row
from foci.models import head_of
from foci.models.decoding import end_tokens, reading
from foci.models.forward import device_of, pad_id, padded


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn: at most `max_tokens`; at temperature 0 the likeliest token, else by `seed`.

    Raises ValueError for fewer than 1 token and a temperature below 0.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"--max-tokens is at least 1, got {self.max_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"--temperature is 0 (the likeliest token) or more, got {self.temperature}")


class Drawn:
    """Draws the next token of each row in proportion to its probability, by the seed alone.

    The largest of logit / temperature + Gumbel noise is such a draw. All rows have the same noise: a row draws what it
    would draw alone, and two answers differ by what their models say. At temperature 0 the likeliest token is taken.
    """

    def __init__(self, decoding: Decoding, device: torch.device) -> None:
        self.temperature, self.random = decoding.temperature, torch.Generator(device).manual_seed(decoding.seed)

    def __call__(self, logits: Float[Tensor, "rows vocab"]) -> Tensor:
        """Returns a token of each row, (rows, 1)."""
        scores = logits.float()
        if self.temperature:
            noise = torch.empty(scores.shape[-1], device=scores.device).exponential_(generator=self.random).log_()
            scores = scores / self.temperature - noise
        return scores.argmax(-1, keepdim=True)


@dataclass
class Answer:
    """The tokens of one answer, its text so far, and whether it is whole."""

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    ended: bool = False

    def added(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Returns what the newest tokens add to the text, and keeps it."""
        now: Any = tokenizer.decode(self.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if not self.ended:
            now = now.rstrip("\ufffd")  # the rest of a letter is not written yet
        added = now[len(self.text) :] if now.startswith(self.text) else ""
        self.text += added
        return added


class Writing:
    """Answers that are being written, one a row; `advance` lets the model write the next tokens of each.

    All is computed by the thread that calls: a second thread with processor threads of its own would slow down both.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[tuple[int, ...]],
        decoding: Decoding,
    ) -> None:
        self.tokenizer, self.left = tokenizer, decoding.max_tokens
        self.answers = [Answer() for _ in prompts]
        rows = [Row(str(number), prompt) for number, prompt in enumerate(prompts)]
        batch = padded(rows, pad_id(tokenizer), "left", device_of(model))
        self._read, self._head = reading(model, batch, decoding.max_tokens), head_of(model)
        self._draw, self._ends = Drawn(decoding, device_of(model)), end_tokens(model, tokenizer)
        self._next: Tensor | None = None

    @property
    def ended(self) -> bool:
        """Whether all answers are whole."""
        return all(answer.ended for answer in self.answers)

    def advance(self, count: int) -> list[str]:
        """Lets the model write up to `count` tokens more of each answer; returns the text that they add to each."""
        for _ in range(count):
            if self.ended:
                break
            self._write()
        return [answer.added(self.tokenizer) for answer in self.answers]

    def _write(self) -> None:
        with torch.inference_mode():
            self._next = self._draw(self._head.logits(self._read.last_hidden(self._next)))
        self.left -= 1
        for token, answer in zip(self._next.flatten().tolist(), self.answers, strict=True):
            if not answer.ended:
                answer.tokens.append(token)
                answer.ended = token in self._ends or not self.left
