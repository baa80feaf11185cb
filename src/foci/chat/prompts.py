"""The conversation with one model: what was said, and the tokens that ask for the next answer."""

from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from foci.corpus.conversations.encode import prompt_ids
from foci.corpus.conversations.samples import Unusable
from foci.corpus.conversations.template import Template
from foci.corpus.plain import encoded


def template_of(tokenizer: PreTrainedTokenizerBase, *, plain: bool = False) -> Template | None:
    """Returns the model's chat template; None where it has none, or texts are to be completed (`plain`)."""
    source = None if plain else tokenizer.chat_template
    if isinstance(source, dict):
        source = source.get("default")
    return Template(tokenizer, source) if source else None


@dataclass
class Conversation:
    """The questions and answers so far with one model, which keeps them where it has a chat template."""

    tokenizer: PreTrainedTokenizerBase
    template: Template | None
    turns: list[tuple[str, str]] = field(default_factory=list)

    def ids(self, question: str, room: int) -> tuple[int, ...]:
        """Returns the tokens to go on from, at most `room`: the oldest turns are left out where they are too many.

        Without a template these are the tokens of the question as a text. Raises ValueError for a question that is
        longer than `room`, or that the template refuses.
        """
        first = 0
        while True:
            found = self._ids(question, self.turns[first:])
            if len(found) <= room:
                return found
            if first >= len(self.turns):
                raise ValueError(
                    f"the question has {len(found):,} tokens with its template, and the model has room for {room:,} "
                    "beside its answer; ask a shorter one, or lower --max-tokens"
                )
            first += 1

    def _ids(self, question: str, turns: list[tuple[str, str]]) -> tuple[int, ...]:
        if self.template is None:
            (made,) = encoded([question], self.tokenizer)
            return made.ids[: len(made.ids) - made.tail]
        messages = [
            message
            for asked, answered in turns
            for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": answered})
        ]
        try:
            return prompt_ids([*messages, {"role": "user", "content": question}], self.template)
        except Unusable as error:
            raise ValueError(f"the question cannot be asked: {error}") from None

    def keep(self, question: str, answer: str) -> None:
        """Remembers a turn, where a template can tell the model of it."""
        if self.template is not None:
            self.turns.append((question, answer))
