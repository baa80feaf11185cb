"""How an answer is marked right or wrong, in plain Python: no tokenizer, no model, the standard library alone.

`foci.probes.export` copies this code into the tasks that it writes, so that both sides count alike.
Exact match and F1 are SQuAD's (arXiv 1606.05250).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def marks(text: str, span: tuple[int, int], offsets: Sequence[tuple[int, int]]) -> list[bool]:
    """Returns for every token (characters [start, end)) whether it shares a character with the span, white space aside.

    >>> marks("It is in  Rome.", (10, 14), [(0, 2), (2, 5), (5, 8), (8, 9), (9, 14), (14, 15)])
    [False, False, False, False, True, False]
    """
    first, last = span
    return [bool(text[max(start, first) : min(end, last)].strip()) for start, end in offsets]


def normalise(text: str) -> str:
    """Returns a text in lower case, without punctuation, articles and extra white space (SQuAD's evaluation, v1.1).

    >>> normalise("The  U.S. dollar, a currency!")
    'us dollar currency'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """Returns 1.0 where the prediction equals one of the answers after `normalise`, else 0.0."""
    return float(normalise(predicted) in {normalise(answer) for answer in answers})


def f1(predicted: str, answers: Sequence[str]) -> float:
    """Returns the best F1 of words in common over the answers, 0 to 1.

    Where one side has no word left after `normalise`: 1.0 if both have none, else 0.0.

    >>> f1("in the city of Bern", ["Bern"])  # precision 1/4, recall 1
    0.4
    """
    return max(_f1(normalise(predicted).split(), normalise(answer).split()) for answer in answers)


def first_line(text: str) -> str:
    r"""Returns the first line with text, without white space around it.

    >>> first_line("\n Bern \nZurich")
    'Bern'
    """
    return text.strip().split("\n")[0].strip()


def _f1(predicted: list[str], truth: list[str]) -> float:
    if not predicted or not truth:
        return float(predicted == truth)
    common = sum((Counter(predicted) & Counter(truth)).values())
    return 2 * common / (len(predicted) + len(truth))
