"""Says in sentences how conversations and plain text were read, where people may not expect it."""

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from foci.corpus.conversations.rows import MadeOfSamples
from foci.corpus.reading import Reading
from foci.corpus.rows import Made
from foci.system.words import counted

RAW = "plain text"
"""How the note begins that a chat model is given plain text."""


def notes_of(made: Made, other: MadeOfSamples, tokenizer: PreTrainedTokenizerBase, reading: Reading) -> Iterator[str]:
    """Yields a line for each thing that people may not expect."""
    if made.documents and tokenizer.chat_template and not reading.control_words:
        yield (
            f"{RAW} for a chat model: it learns {counted(made.documents, 'document')} as running text, without its "
            "chat template, and may recall them less when it is asked in a chat; 'messages' teach it answers"
        )
    if made.documents and reading.control_words:
        yield (
            f"control words in {counted(made.documents, 'text')} become control tokens (corpus.control_words), and "
            "every token is learned"
        )
    if other.split:
        yield (
            f"{counted(other.split, 'conversation')} longer than corpus.max_length: cut between turns, into "
            f"{counted(other.split_rows, 'row')}"
        )
    if other.again:
        yield (
            f"{counted(other.again, 'conversation')} with an answer that the chat template writes otherwise once the "
            "conversation goes on: such an answer has a row of its own"
        )
    if other.used and reading.loss == "all":
        yield "questions are learned like answers, and no message weighs more than another (corpus.loss=all)"
