"""Lets a model write an answer piece by piece, by Transformers' own `generate`, so that two can answer in turns."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import StoppingCriteria, StoppingCriteriaList
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
        """Returns Transformers' settings: nothing but temperature and length changes the model's distribution."""
        drawn: dict[str, Any] = {"do_sample": self.temperature > 0}
        if self.temperature:
            drawn |= {"temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        ends = model.generation_config.eos_token_id if model.generation_config is not None else None
        listed = ends if isinstance(ends, list) else [ends]
        known = sorted({number for number in (*listed, tokenizer.eos_token_id) if number is not None})
        return GenerationConfig(
            max_new_tokens=self.max_tokens, eos_token_id=known or None, pad_token_id=tokenizer.pad_token_id,
            repetition_penalty=1.0, **drawn,
        )  # fmt: skip


class Writing(BaseStreamer, StoppingCriteria):
    """One answer that is being written: a thread generates while `advance` waits for it, and rests in between.

    So two answers can be written in turns by one set of weights, whose adapter is switched in between.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], decoding: Decoding
    ) -> None:
        self.tokenizer, self.device = tokenizer, model.device
        self.tokens: list[int] = []
        self.text, self.ended = "", False
        self._credit, self._stopped, self._begun = 0, False, False
        self._go, self._rests = threading.Semaphore(0), threading.Semaphore(0)
        self._random = torch.Generator(self.device).manual_seed(decoding.seed).get_state()
        self._draws = decoding.temperature > 0
        given = torch.tensor([ids], device=self.device)
        worker = ThreadPoolExecutor(1)
        self._done = worker.submit(self._generate, model, given, decoding.settings(model, tokenizer))
        worker.shutdown(wait=False)  # it ends with its only task

    def _generate(self, model: PreTrainedModel, given: torch.Tensor, settings: GenerationConfig) -> None:
        self._go.acquire()
        try:
            if not self._stopped:
                with torch.inference_mode(), quiet():
                    model.generate(  # type: ignore[operator]
                        input_ids=given, attention_mask=torch.ones_like(given), generation_config=settings,
                        streamer=self, stopping_criteria=StoppingCriteriaList([self]),
                    )  # fmt: skip
        finally:
            self.ended = True
            self._rests.release()

    def put(self, value: torch.Tensor) -> None:
        """Takes the next token from `generate`, and rests after as many as `advance` asked for."""
        if not self._begun:  # the prompt
            self._begun = True
            return
        self.tokens += value.flatten().tolist()
        self._credit -= 1
        if self._credit <= 0:
            self._rests.release()
            self._go.acquire()

    def end(self) -> None:
        """Is called by `generate` at its end."""

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> Any:
        """Tells `generate` whether the answer was stopped."""
        return torch.full((input_ids.shape[0],), self._stopped, device=input_ids.device, dtype=torch.bool)

    def advance(self, count: int) -> str:
        """Lets the model write up to `count` tokens more; returns what they add to `text`. Raises what it raised."""
        if self.ended:
            return ""
        self._credit = count
        before = self._drawn_from(self._random)
        self._go.release()
        self._rests.acquire()
        self._random = self._drawn_from(before)
        if self.ended:
            self._done.result()
        return self._added()

    def _drawn_from(self, state: torch.Tensor) -> torch.Tensor:
        """Sets the state of torch's generator and returns the one before: each answer draws numbers of its own."""
        if not self._draws:
            return state
        cuda = self.device.type == "cuda"
        before = torch.cuda.get_rng_state(self.device) if cuda else torch.get_rng_state()
        if cuda:
            torch.cuda.set_rng_state(state, self.device)
        else:
            torch.set_rng_state(state)
        return before

    def _added(self) -> str:
        now: Any = self.tokenizer.decode(self.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if not self.ended:
            now = now.rstrip("\ufffd")  # the rest of a letter is not written yet
        added = now[len(self.text) :] if now.startswith(self.text) else ""
        self.text += added
        return added

    def stop(self) -> None:
        """Ends the answer where it is."""
        self._stopped = True
        while not self.ended:
            self._credit = 1
            self._go.release()
            self._rests.acquire()
