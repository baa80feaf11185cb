"""llama.cpp, by the package cyllama: quantises a GGUF file, and asks it.

A model's first choices come from llama.cpp's greedy sampler, token ids from its own tokenizer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from foci.focus import Row
from foci.probes import Answer, Probe, kind_of
from foci.probes.encode import encode, encode_prompts
from foci.probes.forced import Forced
from foci.probes.generation import token_limits
from foci.probes.scoring import first_line

FTYPES = {"q4_k_m": 15}
"""llama.cpp's numbers of the quantisations that its converter does not write (`llama_ftype` in llama.h)."""


def is_there() -> bool:
    """Returns whether llama.cpp can be run here."""
    return find_spec("cyllama") is not None


def told_version() -> str:
    """Returns the package and its version, for people."""
    return f"cyllama {version('cyllama')}"


def quantise(source: Path, target: Path, kind: str) -> None:
    """Writes a GGUF file with weights of a smaller kind. Raises ValueError where llama.cpp refuses."""
    from cyllama.llama import llama_cpp  # noqa: PLC0415 - an extra

    llama_cpp.disable_logging()
    settings = llama_cpp.LlamaModelQuantizeParams()
    settings.ftype, settings.nthread = FTYPES[kind], torch.get_num_threads()
    try:
        llama_cpp.model_quantize(str(source), str(target), settings)
    except RuntimeError as error:
        raise ValueError(
            f"llama.cpp could not quantise {source.name} to {kind} ({error}); take --gguf q8_0, or try a newer "
            f"llama.cpp: llama-quantize {source.name} {target.name} {kind.upper()}"
        ) from None


class Llama:
    """A GGUF file in llama.cpp, on the CPU, for texts of at most `context` tokens."""

    def __init__(self, file: Path, context: int) -> None:
        from cyllama.llama import llama_cpp  # noqa: PLC0415 - an extra

        llama_cpp.disable_logging()
        self._of, threads = llama_cpp, torch.get_num_threads()
        model, settings = llama_cpp.LlamaModelParams(), llama_cpp.LlamaContextParams()
        model.n_gpu_layers = 0
        settings.n_ctx = settings.n_batch = settings.n_ubatch = 64 * math.ceil(max(context, 64) / 64)
        settings.n_threads = settings.n_threads_batch = threads
        try:
            self._model = llama_cpp.LlamaModel(path_model=str(file), params=model, verbose=False)
            self._context = llama_cpp.LlamaContext(model=self._model, params=settings, verbose=False)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"llama.cpp cannot load {file.name} ({error}); use a newer llama.cpp") from None
        self._vocabulary = self._model.get_vocab()
        self._greedy = llama_cpp.LlamaSampler(llama_cpp.LlamaSamplerChainParams())
        self._greedy.add_greedy()

    def token_ids(self, text: str) -> list[int]:
        """Returns the tokens that llama.cpp reads in a text, with those that it adds; control words are plain text."""
        return list(self._vocabulary.tokenize(text, True, False))

    def first_choices(self, ids: Sequence[int], where: Sequence[int]) -> list[int]:
        """Returns the likeliest next token after each position in `where` (from 0) of a text."""
        self._context.kv_cache_clear()
        self._read(ids, 0, set(where))
        return [int(self._greedy.sample(self._context, place)) for place in where]

    def continued(self, ids: Sequence[int], limit: int, ended: Callable[[list[int]], bool]) -> list[int]:
        """Returns at most `limit` likeliest tokens after a text, to an end-of-text token or until `ended` says so."""
        said: list[int] = []
        token = self.first_choices(ids, [len(ids) - 1])[0]
        while not self._vocabulary.is_eog(token):
            said.append(token)
            if len(said) == limit or ended(said):
                break
            self._read([token], len(ids) + len(said) - 1, {0})
            token = int(self._greedy.sample(self._context, 0))
        return said

    def _read(self, ids: Sequence[int], start: int, wanted: set[int]) -> None:
        batch = self._of.LlamaBatch(n_tokens=len(ids), embd=0, n_seq_max=1)
        for place, token in enumerate(ids):
            batch.add(token, start + place, [0], place in wanted)
        self._context.decode(batch)


def answers_of(
    file: Path, tokenizer: PreTrainedTokenizerBase, probes: Sequence[Probe], known: Sequence[Answer]
) -> tuple[list[Answer], int]:
    """Returns llama.cpp's answers to probes, and how many of their texts it reads as other tokens than `tokenizer`.

    `known` are another model's answers to the same probes, in the same order. Probes are asked by the token ids of
    `tokenizer`, as `probes.answer` does; the answers have no NLL.
    """
    rows = encode(probes, tokenizer)
    spoken = [probe for probe in probes if kind_of(probe.kind).generated]
    asked = zip(spoken, encode_prompts(spoken, tokenizer), token_limits(spoken, tokenizer), strict=True)
    prompts = {(probe.role, probe.id): (prompt, limit) for probe, prompt, limit in asked}
    lengths = [len(row) for row in rows] + [len(prompt) + limit for prompt, limit in prompts.values()]
    longest = max(lengths, default=0)
    model = Llama(file, longest + 8)
    found, others = [], 0
    for probe, row, like in zip(probes, rows, known, strict=True):
        key = (probe.role, probe.id)
        others += list(tokenizer(probe.text)["input_ids"]) != model.token_ids(probe.text)
        said = _said(model, tokenizer, *prompts[key]) if key in prompts else None
        found.append(_answer(like, probe, _forced(model, row), said, tokenizer))
    return found, others


def _forced(model: Llama, row: Row) -> Forced:
    """Returns the first choices at the tokens of an answer, given the true ones before."""
    places = [place for place, mark in enumerate(row.columns["answer"]) if mark]
    chosen = model.first_choices(row.input_ids, [place - 1 for place in places])
    return Forced(tuple(row.input_ids[place] for place in places), tuple(chosen), (math.nan,) * len(places))


def _said(model: Llama, tokenizer: PreTrainedTokenizerBase, prompt: Row, limit: int) -> str:
    """Returns the first line that the model says after a prompt."""

    def ended(said: list[int]) -> bool:
        return "\n" in tokenizer.decode(said, skip_special_tokens=True).lstrip()

    return first_line(tokenizer.decode(model.continued(prompt.input_ids, limit, ended), skip_special_tokens=True))


def _answer(like: Answer, probe: Probe, forced: Forced, said: str | None, tokenizer: PreTrainedTokenizerBase) -> Answer:
    verdict = kind_of(probe.kind).judge(probe, forced, said, tokenizer)
    return replace(
        like, predicted=verdict.predicted, correct=verdict.correct, accuracy=forced.accuracy, nll=math.nan,
        exact_match=verdict.exact_match, f1=verdict.f1, squad_exact_match=verdict.squad_exact_match,
        squad_f1=verdict.squad_f1,
    )  # fmt: skip
