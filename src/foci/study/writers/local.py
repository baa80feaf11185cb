"""A writer on this machine: a causal language model that answers greedily, several prompts at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from foci import models
from foci.corpus.plain import control_words
from foci.models.decoding import end_tokens
from foci.models.forward import answering, device_of, pad_id
from foci.study.prompts import Request
from foci.study.store import LOOP, Reply
from foci.study.writers.loops import loops
from foci.study.writers.writer import Answered, Left, Writer

Prompt = tuple[Request, list[int]]
"""A request and the tokens of its messages."""
LOOKED = 16
"""Tokens after which a reply is looked at again, whether it goes round in a loop."""


class _Loops(StoppingCriteria):
    """Ends replies that loop; `ends` has the number of tokens of each row that it ended."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: int) -> None:
        self.tokenizer, self.prompt = tokenizer, prompt
        self.ends: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        length = input_ids.shape[1] - self.prompt
        if length % LOOKED == 0:
            for row, ids in enumerate(input_ids[:, self.prompt :].tolist()):
                if row not in self.ends and loops(str(self.tokenizer.decode(ids, skip_special_tokens=True))):
                    self.ends[row] = length
        return torch.tensor([row in self.ends for row in range(len(input_ids))], device=input_ids.device)


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

    @property
    def size(self) -> int:
        """The number of the model's parameters."""
        return sum(parameter.numel() for parameter in self.loaded.model.parameters())

    def ask(self, requests: Sequence[Request], answered: Answered, left: Left) -> None:
        """Answers the requests in order of length; those that the model has no room for are left."""
        for batch in self.batches(requests, left):
            for (request, _), reply in zip(batch, self.replies(batch), strict=True):
                answered(request, reply)

    def batches(self, requests: Sequence[Request], left: Left) -> list[list[Prompt]]:
        """Returns the requests in order of length, `batch_size` at a time; leaves those without room in the model."""
        prompts = [(request, self._ids(request.messages())) for request in requests]
        fitting = []
        for request, ids in prompts:
            if (needed := len(ids) + request.max_tokens) > self.loaded.max_length:
                left(request, f"prompt and reply need {needed:,} tokens, the model has {self.loaded.max_length:,}")
            else:
                fitting.append((request, ids))
        fitting.sort(key=lambda one: (one[0].max_tokens, len(one[1])))
        return [fitting[begin : begin + self.batch_size] for begin in range(0, len(fitting), self.batch_size)]

    def _ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the tokens of messages, in the model's chat template where it has one.

        A control word that is written out in a text is parted by a space, so that it is text.
        """
        tokenizer = self.loaded.tokenizer
        words = [word for word in control_words(tokenizer) if len(word) > 1 and not word.isspace()]
        plain = [{**message, "content": _parted(message["content"], words)} for message in messages]
        if tokenizer.chat_template:
            return list(
                tokenizer.apply_chat_template(plain, add_generation_prompt=True, tokenize=True, return_dict=False)
            )
        turns = [f"Reply:\n{one['content']}" if one["role"] == "assistant" else one["content"] for one in plain]
        return list(tokenizer("\n".join((*turns, "Reply:\n"))).input_ids)

    def replies(self, some: Sequence[Prompt]) -> list[Reply]:
        """Returns the replies to prompts that are answered together."""
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
        ending = _Loops(tokenizer, longest)
        with answering(model, self.loaded.compute_dtype):
            made = model.generate(
                rows,
                attention_mask=mask,
                generation_config=settings,
                stopping_criteria=StoppingCriteriaList([ending]),
            )[:, longest:].tolist()
        found = []
        for row, ((request, prompt), ids) in enumerate(zip(some, made, strict=True)):
            most = min(request.max_tokens, ending.ends.get(row, request.max_tokens))
            end = next((n for n, token in enumerate(ids[:most]) if token in stops), None)
            kept = ids[:most] if end is None else ids[:end]
            text = str(tokenizer.decode(kept, skip_special_tokens=True))
            cut = LOOP if most < request.max_tokens else "length"
            found.append(Reply(text, len(prompt), len(kept), cut if end is None else "stop"))
        return found


def _parted(text: str, words: Sequence[str]) -> str:
    """Returns a text with a space behind the first character of each control word."""
    for word in words:
        text = text.replace(word, f"{word[0]} {word[1:]}")
    return text
