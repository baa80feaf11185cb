"""Span: the answer is a part of a text."""

from transformers import PreTrainedTokenizerBase

from foci.probes.forced import Forced
from foci.probes.probe import Kind, Probe, Verdict, Written, first_choices, joined


class SpanOfText(Kind):
    """The answer is a part of a text; it is right where all of its tokens are the model's first choice."""

    exported = True

    def write(self, probe: Probe) -> Written:
        """Returns prompt, answer and suffix as they stand in the text."""
        return joined(probe)

    def judge(self, probe: Probe, forced: Forced, said: str | None, tokenizer: PreTrainedTokenizerBase) -> Verdict:
        """Compares the model's first choices with the answer's tokens."""
        return first_choices(forced, tokenizer)
