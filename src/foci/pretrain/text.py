"""The text of a pretraining: a tokenizer that is trained on it, and rows of one length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from foci.config.run import CorpusConfig
from foci.corpus import Document, row_id, tokenizer_fingerprint
from foci.corpus.documents import where
from foci.corpus.gathering import check_share, gather
from foci.corpus.tokens import tokens
from foci.focus import Row
from foci.pretrain.config import Objective, Pretraining

PAD, BEGIN, END, MASK = "<pad>", "<s>", "</s>", "<mask>"


@dataclass(frozen=True)
class Material:
    """The tokenizer, the rows to learn and the rows to validate on, which all arms and seeds read."""

    tokenizer: PreTrainedTokenizerFast
    rows: tuple[Row, ...]
    held_out: tuple[Row, ...]


def material(run: Pretraining) -> Material:
    """Reads the text, trains the tokenizer on the part that is learned, and makes rows of both parts.

    Raises ValueError where too much of the text is bad, or a part is too short for one row.
    """
    learned, held_out = split(documents(run.corpus), run.held_out.share)
    tokenizer = trained_tokenizer([document.text for document in learned], run.tokenizer.vocab, run.objective)
    tokenizer.model_max_length = run.corpus.max_length
    parts = [rows_of(part, tokenizer, run.corpus.max_length, run.objective) for part in (learned, held_out)]
    if not all(parts):
        raise ValueError(
            f"the text gives {len(parts[0])} rows to learn and {len(parts[1])} to validate on, expected at least one "
            "of each; give more text, or change held_out.share"
        )
    return Material(tokenizer, tuple(parts[0]), tuple(parts[1][: run.held_out.rows]))


def documents(corpus: CorpusConfig) -> list[Document]:
    """Reads all documents, in the order of the files. Raises ValueError where too many cannot be read (`max_bad`)."""
    gathered = gather(corpus.path, corpus.text_field)
    if gathered.samples:
        first = gathered.samples[0]
        raise ValueError(
            f"corpus {where(first.file, first.line)} holds a conversation or a completion, and foci pretrain reads "
            "plain text alone; give a 'text' there, or leave the file out"
        )
    check_share(gathered, gathered.bad, len(gathered.bad), corpus.max_bad)
    return list(gathered.documents)


def split(texts: Sequence[Document], share: float) -> tuple[list[Document], list[Document]]:
    r"""Splits off the last `share` of all characters, at the end of a line, else before a word. Returns both parts.

    The end of a line is looked for where it changes what is split off by at most a third.

    >>> one = Document("a b\nc d\ne f", "f", 1)
    >>> [[part.text for part in side] for side in split([one], 0.4)]
    [['a b\nc d'], ['e f']]
    """
    whole = sum(len(document.text) for document in texts)
    room, near = round((1 - share) * whole), share * whole / 3
    learned: list[Document] = []
    held_out: list[Document] = []
    for document in texts:
        text, at = document.text, min(room, len(document.text))
        if 0 < at < len(text):
            lines = (text.find("\n", at), text.rfind("\n", 0, at))
            ends = (*(end for end in lines if abs(end - at) <= near), text.rfind(" ", 0, at), at)
            at = next(end for end in ends if end > 0)
        room -= at
        if text[:at].strip():
            learned.append(replace(document, text=text[:at].rstrip(), spans={}))
        if text[at:].strip():
            skipped = len(text) - len(text[at:].lstrip())
            line = document.line + text.count("\n", 0, skipped) * document.whole_file
            held_out.append(replace(document, text=text[skipped:], line=line, spans={}))
            room = 0
    return learned, held_out


def trained_tokenizer(texts: Sequence[str], vocab: int, objective: Objective) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer of at most `vocab` tokens, which begins every text with `BEGIN`.

    For masked models it has a mask, and ends texts with `END`.
    """
    special = [PAD, BEGIN, END, *([MASK] if objective == "masked" else [])]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[AddedToken(token, special=True) for token in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator((line for text in texts for line in text.splitlines(keepends=True)), trainer)
    names = [BEGIN, END] if objective == "masked" else [BEGIN]
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join([BEGIN, "$A", *names[1:]]), special_tokens=[(n, backend.token_to_id(n)) for n in names]
    )
    named = {"pad_token": PAD, "bos_token": BEGIN, "eos_token": END}
    if objective == "masked":
        named |= {"mask_token": MASK, "cls_token": BEGIN, "sep_token": END}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Returns the UTF-8 bytes that each token of a byte-level vocabulary stands for; 0 for special ones."""
    special = set(tokenizer.all_special_ids)
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [0 if token in special else len(name) for token, name in enumerate(names)]


def rows_of(
    texts: Sequence[Document], tokenizer: PreTrainedTokenizerFast, length: int, objective: Objective
) -> list[Row]:
    """Cuts documents into rows of `length` tokens; the last row of a document is shorter.

    Every row begins with `BEGIN`. `END` ends every masked row, and a causal document whose last row has room for it.
    """
    ends_all = objective == "masked"
    return [row for document in texts for row in _rows(document, tokenizer, length, ends_all=ends_all)]


def _rows(document: Document, tokenizer: PreTrainedTokenizerFast, length: int, *, ends_all: bool) -> Iterator[Row]:
    ((ids, offsets),) = tokens([document.text], tokenizer, special=False)
    name, room = tokenizer_fingerprint(tokenizer), length - 2 if ends_all else length - 1
    for start in range(0, len(ids), room):
        piece, spans = ids[start : start + room], offsets[start : start + room]
        begin, end = spans[0][0], max(b for _, b in spans)
        text = document.text[begin:end]
        ends = ends_all or len(piece) < room
        after = [tokenizer.eos_token_id] * ends
        line = document.line + document.text.count("\n", 0, begin) * document.whole_file
        yield Row(
            row_id(text, name),
            (tokenizer.bos_token_id, *piece, *after),
            text,
            ((0, 0), *((a - begin, b - begin) for a, b in spans), *([(0, 0)] * len(after))),
            source=where(document.file, line, document.place(begin)),
        )
