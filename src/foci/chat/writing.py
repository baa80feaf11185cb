"""Lets a model write answers piece by piece, by Transformers' own `generate`, so that two can answer in turns."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from foci.models.gguf import quiet


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

    def settings(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
        """Returns Transformers' settings: the token of the largest score, at most `max_tokens`, and nothing else."""
        ends = model.generation_config.eos_token_id if model.generation_config is not None else None
        listed = ends if isinstance(ends, list) else [ends]
        known = sorted({number for number in (*listed, tokenizer.eos_token_id) if number is not None})
        return GenerationConfig(
            max_new_tokens=self.max_tokens, eos_token_id=known or None, pad_token_id=tokenizer.pad_token_id,
            repetition_penalty=1.0, do_sample=False,
        )  # fmt: skip


class Drawn(LogitsProcessor):
    """Draws the next token of each row in proportion to its probability, by the seed alone.

    The largest of logit / temperature + Gumbel noise is such a draw. All rows have the same noise: a row draws what it
    would draw alone, and two answers differ by what their models say.
    """

    def __init__(self, decoding: Decoding, device: torch.device) -> None:
        self.temperature, self.random = decoding.temperature, torch.Generator(device).manual_seed(decoding.seed)

    def __call__(
        self, input_ids: Int[Tensor, "rows seq"], scores: Float[Tensor, "rows vocab"]
    ) -> Float[Tensor, "rows vocab"]:
        """Returns scores whose largest is the token that was drawn."""
        noise = torch.empty(scores.shape[-1], device=scores.device).exponential_(generator=self.random).log_()
        return scores.float() / self.temperature - noise


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


class Writing(BaseStreamer, StoppingCriteria):
    """Answers that are being written, one a row: a thread generates while `advance` waits for it, and rests in between.

    So two answers can be written in turns by one set of weights, whose adapter is switched in between.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[tuple[int, ...]],
        decoding: Decoding,
    ) -> None:
        self.tokenizer, self.answers = tokenizer, [Answer() for _ in prompts]
        self._credit, self._stopped, self._begun, self._over = 0, False, False, False
        self._go, self._rests = threading.Semaphore(0), threading.Semaphore(0)
        settings = decoding.settings(model, tokenizer)
        self._ends = set(settings.eos_token_id or ())
        worker = ThreadPoolExecutor(1)
        self._done = worker.submit(self._generate, model, prompts, settings, decoding)
        worker.shutdown(wait=False)  # it ends with its only task

    @property
    def ended(self) -> bool:
        """Whether all answers are whole."""
        return all(answer.ended for answer in self.answers)

    def _generate(
        self,
        model: PreTrainedModel,
        prompts: Sequence[tuple[int, ...]],
        settings: GenerationConfig,
        decoding: Decoding,
    ) -> None:
        self._go.acquire()
        try:
            if not self._stopped:
                drawn = [Drawn(decoding, model.device)] if decoding.temperature else []
                with torch.inference_mode(), quiet():
                    model.generate(  # type: ignore[operator]
                        **padded(prompts, self.tokenizer.pad_token_id, model.device), generation_config=settings,
                        logits_processor=LogitsProcessorList(drawn), streamer=self,
                        stopping_criteria=StoppingCriteriaList([self]),
                    )  # fmt: skip
        finally:
            for answer in self.answers:
                answer.ended = True
            self._over = True
            self._rests.release()

    def put(self, value: torch.Tensor) -> None:
        """Takes the next token of each row from `generate`, and rests after as many as `advance` asked for."""
        if not self._begun:  # the prompts
            self._begun = True
            return
        for token, answer in zip(value.flatten().tolist(), self.answers, strict=True):
            if not answer.ended:
                answer.tokens.append(token)
                answer.ended = token in self._ends
        self._credit -= 1
        if self._credit <= 0:
            self._rests.release()
            self._go.acquire()

    def end(self) -> None:
        """Is called by `generate` at its end."""

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> Any:
        """Tells `generate` whether the answers were stopped."""
        return torch.full((input_ids.shape[0],), self._stopped, device=input_ids.device, dtype=torch.bool)

    def advance(self, count: int) -> list[str]:
        """Lets the model write up to `count` tokens more of each answer; returns the text that they add to each.

        Raises what the model raised.
        """
        if not self._over:
            self._credit = count
            self._go.release()
            self._rests.acquire()
            if self._over:
                self._done.result()
        return [answer.added(self.tokenizer) for answer in self.answers]

    def stop(self) -> None:
        """Ends the answers where they are."""
        self._stopped = True
        while not self._over:
            self._credit = 1
            self._go.release()
            self._rests.acquire()


def padded(prompts: Sequence[tuple[int, ...]], pad: int, device: torch.device) -> dict[str, Int[Tensor, "rows seq"]]:
    """Returns the prompts as a batch: shorter ones are padded on the left, where the attention mask is 0."""
    wide = max(map(len, prompts))
    ids = [[pad] * (wide - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (wide - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}
