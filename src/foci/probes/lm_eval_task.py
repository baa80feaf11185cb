"""Probes of foci as tasks of the lm-evaluation-harness (lm_eval 0.4.13): the same questions, the same numbers.

`foci probe PROBES --export-lm-eval FOLDER` copies this module into a folder, where it needs lm_eval and transformers,
but not foci.

    lm_eval --include_path FOLDER --tasks NAME --model hf --model_args pretrained=MODEL,dtype=float32

The metrics are the columns of foci's probe table. accuracy: share of the answer's tokens that are the model's first
choice, given the true words before. correct: all of them are (what lm_eval calls acc; not for generated answers). nll:
nats per answer token. exact_match, f1: of a generated answer, as foci counts them. squad_exact_match, squad_f1: as
SQuAD does. All are means over probes.

Each token of an answer is one request, so that the share is known. The model's tokenizer decides which tokens these
are. It is loaded by the name that stands in --model_args (tokenizer, else pretrained) or in --metadata.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import transformers
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask

from foci.probes.scoring import exact_match, f1, first_line, marks, squad_exact_match, squad_f1

Document = Mapping[str, Any]
"""A probe, as `foci.probes.export` writes it."""

HIGHER_IS_BETTER = {
    "accuracy": True, "correct": True, "nll": False, "exact_match": True, "f1": True, "squad_exact_match": True,
    "squad_f1": True,
}  # fmt: skip
log = logging.getLogger("foci")


class Context(str):
    """The words before an answer. White space at their end is kept (the harness would move it to the answer)."""

    __slots__ = ()

    def rstrip(self, chars: str | None = None) -> "Context":
        """Returns the words as they are."""
        return self


class Probes(ConfigurableTask):
    """The probes of one file, or those of one group in it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Reads the probes from the file beside this module."""
        settings = self.config.metadata
        lines = (Path(__file__).parent / settings["foci_data"]).read_text(encoding="utf-8").split("\n")
        probes = [json.loads(line) for line in lines if line]
        group = settings.get("foci_group")
        chosen = [probe for probe in probes if group is None or probe["group"] == group]
        self.dataset = {"test": datasets.Dataset.from_list(chosen)}

    def construct_requests(self, doc: Document, ctx: str, **kwargs: Any) -> list[Instance]:
        """Returns one request per token of the answer, and one to generate where the kind asks for it."""
        if kwargs.pop("apply_chat_template", False) or ctx != doc["prompt"]:
            raise ValueError(
                f"probe {doc['id']!r}: expected the bare prompt {doc['prompt']!r}, got {str(ctx)[:200]!r}; "
                "run without a chat template, a system instruction and examples"
            )
        kwargs.pop("chat_template", None)
        tokenizer = tokenizer_of(self.config.metadata)
        parts = pieces(doc, tokenizer)
        asked: list[tuple[str, Any]] = [("loglikelihood", (before, answer)) for before, answer, _ in parts]
        if any(count > 1 for _, _, count in parts):
            log.warning(
                "probe %r: some characters of %r are several tokens, which count as right together or not at all; "
                "accuracy is a lower bound of foci's", doc["id"], doc["answer"]
            )  # fmt: skip
        if doc["generated"]:
            asked.append(("generate_until", question(doc, tokenizer)))
        return [
            Instance(request_type=kind, doc=doc, arguments=arguments, idx=n, **kwargs)
            for n, (kind, arguments) in enumerate(asked)
        ]

    def process_results(self, doc: Document, results: Sequence[Any]) -> dict[str, float]:
        """Returns the metrics of one probe from the answers to its requests."""
        counts = [count for _, _, count in pieces(doc, tokenizer_of(self.config.metadata))]
        forced = results[: len(counts)]
        right = sum(count for count, (_, greedy) in zip(counts, forced, strict=True) if greedy)
        found = {
            "accuracy": right / sum(counts),
            "correct": float(right == sum(counts)),
            "nll": -sum(logprob for logprob, _ in forced) / sum(counts),
        }
        if doc["generated"]:
            del found["correct"]
            said, answers = first_line(results[-1]), [doc["answer"], *doc["aliases"]]
            for metric in (exact_match, f1, squad_exact_match, squad_f1):
                found[metric.__name__] = metric(said, answers)
        return found

    def aggregation(self) -> dict[str, Callable[..., float]]:
        """Returns the mean for every metric."""
        return dict.fromkeys(HIGHER_IS_BETTER, mean)

    def higher_is_better(self) -> dict[str, bool]:
        """Returns the direction of every metric."""
        return HIGHER_IS_BETTER


def pieces(doc: Document, tokenizer: Any) -> list[tuple[Context, str, int]]:
    """Returns (context, continuation, number of its tokens) per token of the answer.

    The tokens of one character stay together. Raises ValueError where the harness would make other tokens.
    """
    check_plain(doc, doc["text"], tokenizer)
    made = tokenizer(doc["text"], return_offsets_mapping=True, verbose=False)
    ids, offsets = list(made["input_ids"]), made["offset_mapping"]
    marked = marks(doc["text"], (doc["start"], doc["end"]), offsets)
    if not any(marked) or marked[0]:
        raise ValueError(
            f"probe {doc['id']!r}: expected a token before the answer {doc['answer']!r} and one for it, got {offsets}; "
            "put words before the answer, or choose one that the vocabulary can spell"
        )
    first, last = marked.index(True), len(marked) - marked[::-1].index(True)
    heads = {count: doc["text"][: offsets[count - 1][1]] for count in range(first, last + 1)}
    cuts = {count: text for count, text in heads.items() if is_cut(text, ids[:count], tokenizer)}
    found, exact = [], first in cuts and last in cuts
    for (start, before), (end, after) in pairwise(cuts.items()):
        count, answer = sum(marked[start:end]), after[len(before) :]
        if count:
            found.append((Context(before), answer, count))
            exact &= count == end - start  # no white space that foci does not count
            exact &= bool(before) or tokenizer.encode(answer, add_special_tokens=False) == ids[start:end]
    if not exact:
        raise ValueError(
            f"probe {doc['id']!r}: expected a tokenizer that cuts {doc['text']!r} before and after {doc['answer']!r} "
            f"without making other tokens, got {tokenizer.convert_ids_to_tokens(ids)}; leave the probe out"
        )
    return found


def check_plain(doc: Document, text: str, tokenizer: Any) -> None:
    """Raises ValueError where a text spells a control word, which foci reads as text and the harness does not."""
    template = str(tokenizer.chat_template or "")
    for token in tokenizer.added_tokens_decoder.values():
        steers = (
            token.special or token.content.startswith("<|") or (len(token.content) > 2 and token.content in template)
        )
        if token.content.strip() and steers and token.content in text:
            raise ValueError(
                f"probe {doc['id']!r}: expected plain text, got {token.content!r}, which the harness reads as a "
                "control token of this model; leave the probe out"
            )


def is_cut(text: str, ids: list[int], tokenizer: Any) -> bool:
    """Whether this beginning of a text gives these tokens by itself, as the harness assumes of a context."""
    return bool(tokenizer.encode(text) == ids if text else ids == [tokenizer.bos_token_id])


def question(doc: Document, tokenizer: Any) -> tuple[str, dict[str, Any]]:
    """Returns (prompt, settings) of a greedy answer, two tokens longer than the longest right one, as foci does."""
    prompt = doc["prompt"].rstrip(" \t")
    if not prompt:
        raise ValueError(f"probe {doc['id']!r}: a question needs a prompt, got {doc['prompt']!r}; write one")
    check_plain(doc, prompt, tokenizer)
    if tuple(tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"][-1]) == (0, 0):
        raise ValueError(
            f"probe {doc['id']!r}: expected a tokenizer that adds nothing after {prompt!r}, got "
            "an end token; leave the probe out"
        )
    answers = [" " + answer.strip() for answer in (doc["answer"], *doc["aliases"])]
    longest = max(len(tokenizer.encode(answer, add_special_tokens=False)) for answer in answers)
    return prompt, {"until": [], "do_sample": False, "max_gen_toks": longest + 2}


def tokenizer_of(settings: Mapping[str, Any]) -> Any:
    """Returns the model's tokenizer, as lm_eval loads it."""
    name = settings.get("tokenizer") or settings.get("pretrained")
    if not isinstance(name, str):
        raise ValueError(  # noqa: TRY004
            "expected the name of the model's tokenizer in --model_args (pretrained=..) or in --metadata, got "
            f"""{name!r}; add --metadata '{{"tokenizer": "MODEL"}}'"""
        )
    if settings.get("add_bos_token") is not None:
        raise ValueError(
            f"foci asks with the tokenizer's own first token, got add_bos_token "
            f"{settings['add_bos_token']}; leave it out"
        )
    keys = ("revision", "subfolder", "trust_remote_code", "gguf_file")
    return loaded(name, tuple((key, settings[key]) for key in keys if settings.get(key)))


@cache
def loaded(name: str, settings: tuple[tuple[str, Any], ...]) -> Any:
    """Returns a tokenizer by name; each is loaded once."""
    return transformers.AutoTokenizer.from_pretrained(name, **dict(settings))
