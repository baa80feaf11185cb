"""Question answering: the model's generated answer is compared with the right ones."""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.probes.encode import encode_prompts
from foci.probes.forced import Forced
from foci.probes.generation import generate, token_limits
from foci.probes.probe import Kind, Probe, Verdict, Written, spaced
from foci.probes.scoring import exact_match, f1, squad_exact_match, squad_f1


class Question(Kind):
    """A question that the model answers by greedy generation; right where it matches the answer or an alias."""

    generated = True
    exported = True

    def write(self, probe: Probe) -> Written:
        """Returns prompt, a space where one is due, answer and suffix."""
        return spaced(probe)

    def ask(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        probes: Sequence[Probe],
        batch_size: int,
        max_new_tokens: int | None,
    ) -> list[str | None]:
        """Returns the first line that the model generates after each prompt."""
        prompts = encode_prompts(probes, tokenizer)
        limits = token_limits(probes, tokenizer) if max_new_tokens is None else [max_new_tokens] * len(probes)
        return list(generate(model, tokenizer, prompts, limits, batch_size))

    def judge(self, probe: Probe, forced: Forced, said: str | None, tokenizer: PreTrainedTokenizerBase) -> Verdict:
        """Compares what was generated with the answer and its aliases, by exact match and F1 of words."""
        assert said is not None
        right = (probe.answer, *probe.aliases)
        match = exact_match(said, right)
        return Verdict(
            said, match == 1.0, match, f1(said, right), squad_exact_match(said, right), squad_f1(said, right)
        )
