"""Cloze: the answer continues the prompt."""

from transformers import PreTrainedTokenizerBase

from foci.probes.forced import Forced
from foci.probes.probe import Kind, Probe, Verdict, Written, first_choices, spaced


class Cloze(Kind):
    """The answer continues the prompt; it is right where all of its tokens are the model's first choice."""

    exported = True

    def write(self, probe: Probe) -> Written:
        """Returns prompt, a space where one is due, answer and suffix."""
        return spaced(probe)

    def judge(self, probe: Probe, forced: Forced, said: str | None, tokenizer: PreTrainedTokenizerBase) -> Verdict:
        """Compares the model's first choices with the answer's tokens."""
        return first_choices(forced, tokenizer)
