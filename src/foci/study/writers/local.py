"""A writer on this machine: a causal language model that answers greedily, several prompts at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig

from foci import models
from foci.corpus.plain import control_words
from foci.models.forward import answering, device_of, pad_id
from foci.probes.generation import end_tokens
from foci.study.prompts import Request
from foci.study.store import Reply
from foci.study.writers.writer import Answered, Left, Writer


@dataclass(frozen=True)
class LocalWriter(Writer):
    """A model and its tokenizer; `batch_size` prompts are answered together."""

    loaded: models.Loaded
    batch_size: int

    @staticmethod
    def of(name: str, batch_size: int) -> "LocalWriter":
        """Loads the model of a name, as `foci.models.load` does."""
        return LocalWriter(models.load(name), batch_size)

    @property
    def name(self) -> str:
        """The fingerprint of the model, which does not depend on where it lies."""
        return f"model {self.loaded.fingerprint}"

    def ask(self, requests: Sequence[Request], answered: Answered, left: Left) -> None:
        """Answers the requests in order of length; those that the model has no room for are left."""
        prompts = [(request, self._ids(request.prompt)) for request in requests]
        fitting = []
        for request, ids in prompts:
            if (needed := len(ids) + request.max_tokens) > self.loaded.max_length:
                left(request, f"prompt and reply need {needed:,} tokens, the model has {self.loaded.max_length:,}")
            else:
                fitting.append((request, ids))
        fitting.sort(key=lambda one: (one[0].max_tokens, len(one[1])))
        for begin in range(0, len(fitting), self.batch_size):
            some = fitting[begin : begin + self.batch_size]
            for (request, ids), reply in zip(some, self._replies(some), strict=True):
                answered(request, Reply(reply[0], len(ids), reply[1], reply[2]))

    def _ids(self, prompt: str) -> list[int]:
        """Returns the tokens of a prompt, in the model's chat template where it has one.

        A control word that is written out in the text is parted by a space, so that it is text.
        """
        tokenizer = self.loaded.tokenizer
        for word in control_words(tokenizer):
            if len(word) > 1 and not word.isspace():
                prompt = prompt.replace(word, f"{word[0]} {word[1:]}")
        if tokenizer.chat_template:
            messages = [{"role": "user", "content": prompt}]
            return list(
                tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
            )
        return list(tokenizer(f"{prompt}\nReply:\n").input_ids)

    def _replies(self, some: Sequence[tuple[Request, list[int]]]) -> list[tuple[str, int, str]]:
        """Returns text, tokens and the reason of the end of each reply."""
        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        pad, longest = pad_id(tokenizer), max(len(ids) for _, ids in some)
        rows = torch.tensor([[pad] * (longest - len(ids)) + ids for _, ids in some], device=device_of(model))
        mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for _, ids in some], device=device_of(model))
        stops = sorted(end_tokens(model, tokenizer))
        settings = GenerationConfig(
            max_new_tokens=max(request.max_tokens for request, _ in some),
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=stops or None,
            bos_token_id=tokenizer.bos_token_id,
        )
        with answering(model, self.loaded.compute_dtype):
            made = model.generate(rows, attention_mask=mask, generation_config=settings)[:, longest:].tolist()
        found = []
        for (request, _), ids in zip(some, made, strict=True):
            end = next((n for n, token in enumerate(ids[: request.max_tokens]) if token in stops), None)
            kept = ids[: request.max_tokens] if end is None else ids[:end]
            text = str(tokenizer.decode(kept, skip_special_tokens=True))
            found.append((text, len(kept), "length" if end is None else "stop"))
        return found
