"""How an answer is marked right or wrong, in plain Python: no tokenizer, no model, the standard library alone.

`foci.probes.export` copies this code into the tasks that it writes, so that both sides count alike. `normalise` keeps
apart what means something else (1.5 and 15, C and C++) and makes one of what means the same (1,000 and 1000). The table
"How answers are compared" of docs/your_text.md gives its rules, with examples. `squad_exact_match` and `squad_f1` are
SQuAD's own (arXiv 1606.05250), for comparison with published numbers.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")

UNSPACED = (
    "\u2e80-\u312f\u31a0-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
"""Chinese and Japanese characters and their punctuation, as a part of a regular expression's class: no spaces."""
PHRASED = "\u0e00-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9ff\uaa60-\uaadf"
"""Thai, Lao, Tibetan, Burmese, Khmer and their like: no spaces between words."""

_PLAIN = {
    **dict.fromkeys("\u2212\u2043", "-"),  # minus sign, hyphen bullet
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc`\u00b4\u2032\u05f3", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u2039\u203a\u05f4", '"'),
    **dict.fromkeys("\u2044\u2215", "/"),
    "\u2236": ":", "\u066a": "%", "\u066b": ".", "\u066c": ",",  # ratio; Arabic percent, decimal point, thousands
}  # fmt: skip
"""Characters that mean the same as a plain one."""
_APART = {"<super>": "^", "<sub>": "_", "<fraction>": " ", "<circle>": " "}
"""Put between a digit and a character that Unicode would make a digit beside it: 10 and a raised 2 is not 102."""
_KEPT = "#%&@*/\\_\u00a7\u2030\u2031\u2020\u2021"
"""Punctuation that makes another word of a word, as in C# or 5 %; the symbols of mathematics and money do, too."""
_NO_SPACE = re.compile(rf"(?<=[{UNSPACED}{PHRASED}])\s+|\s+(?=[{UNSPACED}{PHRASED}])")
_LETTER = r"[^\W\d_]"
_NUMBER_ENDS = re.compile(rf"(?<=\d)(?={_LETTER}|[%\u00b0\u2030'\"])|(?<={_LETTER})(?=\d)")
_PIECES = re.compile(rf"[{UNSPACED}{PHRASED}]|[^\s{UNSPACED}{PHRASED}]+")
_LETTER_WITHOUT_SPACES = re.compile(rf"[{UNSPACED}{PHRASED}]")


def word_count(text: str) -> int:
    """Returns the number of words; in scripts that are written without spaces two letters count as one word.

    >>> word_count("It opened in 1931."), word_count("東京工場の所長")
    (4, 4)
    """
    pieces = _PIECES.findall(text)
    letters = sum(_LETTER_WITHOUT_SPACES.match(piece) is not None for piece in pieces)
    return len(pieces) - letters // 2


def marks(text: str, span: tuple[int, int], offsets: Sequence[tuple[int, int]]) -> list[bool]:
    """Returns for every token (characters [start, end)) whether it shares a character with the span, white space aside.

    >>> marks("It is in  Rome.", (10, 14), [(0, 2), (2, 5), (5, 8), (8, 9), (9, 14), (14, 15)])
    [False, False, False, False, True, False]
    """
    first, last = span
    return [bool(text[max(start, first) : min(end, last)].strip()) for start, end in offsets]


def normalise(text: str, hyphen: str = " ") -> str:
    """Returns a text without what does not change an answer: case, sentence marks, quotes, articles, separators.

    `hyphen` takes the place of a hyphen between words. A text of which nothing would stay is returned with its marks.

    >>> normalise("The U.S. dollar, \u201c1,000.50\u201d!"), normalise("C++"), normalise("A")
    ('us dollar 1000.50', 'c++', 'a')
    """
    plain = _plain(text)
    words = _joined(_without_articles(_without_layout(plain)))
    kept = "".join(_kept(words, place, hyphen) for place in range(len(words)))
    apart = " ".join(_NUMBER_ENDS.sub(" ", kept).split())
    amounts = re.sub(r"(-?\d[\d.,]*) ?([$\u20ac\u00a3\u00a5\u20b9])(?!\w)", r"\2\1", apart)
    money = re.sub(r"([$\u20ac\u00a3\u00a5\u20b9]) (?=-?\d)", r"\1", amounts)
    return _NO_SPACE.sub("", money).strip() or plain


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """Returns 1.0 where the prediction equals one of the answers after `normalise`, else 0.0.

    A hyphen between words counts as a space or as nothing: well-being, well being and wellbeing.

    >>> exact_match("The U.S.", ["US"]), exact_match("15", ["1.5"]), exact_match("", ["A"])
    (1.0, 0.0, 0.0)
    """
    said = {normalise(predicted, hyphen) for hyphen in (" ", "")}
    return float(any(said & {normalise(answer, hyphen) for hyphen in (" ", "")} for answer in answers))


def f1(predicted: str, answers: Sequence[str]) -> float:
    """Returns the best F1 of words in common over the answers after `normalise`, 0 to 1.

    In scripts without spaces each character is a word. A hyphen between words counts as a space or as nothing, as in
    `exact_match`, whichever is better.

    >>> f1("in the city of Bern", ["Bern"]), f1("an email", ["e-mail"])  # precision 1/4, recall 1
    (0.4, 1.0)
    """
    said = [_PIECES.findall(normalise(predicted, hyphen)) for hyphen in (" ", "")]
    right = [_PIECES.findall(normalise(answer, hyphen)) for answer in answers for hyphen in (" ", "")]
    return max(_f1(one, other) for one in said for other in right)


def squad_normalise(text: str) -> str:
    """Returns a text in lower case, without punctuation, articles and extra white space (SQuAD's evaluation, v1.1).

    >>> squad_normalise("The  U.S. dollar, a currency!")
    'us dollar currency'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def squad_exact_match(predicted: str, answers: Sequence[str]) -> float:
    """Returns 1.0 where the prediction equals one of the answers after `squad_normalise`, else 0.0."""
    return float(squad_normalise(predicted) in {squad_normalise(answer) for answer in answers})


def squad_f1(predicted: str, answers: Sequence[str]) -> float:
    """Returns the best F1 of words in common over the answers after `squad_normalise`, 0 to 1.

    Where one side has no word left: 1.0 if both have none, else 0.0.
    """
    return max(_f1(squad_normalise(predicted).split(), squad_normalise(answer).split()) for answer in answers)


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


def _plain(text: str) -> str:
    """Returns the text composed (NFKC), in one case, with plain digits, dashes and quotes, and single spaces."""
    made: list[str] = []
    for char in text:
        kind = unicodedata.category(char)
        if kind == "Cf" or "\ufe00" <= char <= "\ufe0f":
            continue  # invisible: soft hyphens, directions, variants
        tag = unicodedata.decomposition(char).partition(" ")[0]
        digit = unicodedata.decimal(char, None)
        if tag in _APART and made and made[-1][-1:].isdigit():
            made.append(_APART[tag])
        made.append(_PLAIN.get(char) or ("-" if kind == "Pd" else char if digit is None else str(digit)))
    composed = "".join(_PLAIN.get(char, char) for char in unicodedata.normalize("NFKC", "".join(made)))
    return " ".join(unicodedata.normalize("NFKC", composed.casefold()).split())


def _without_layout(text: str) -> str:
    """Removes bullets, emphasis and brackets, and quotes but those of feet, inches and minutes (5', 5")."""
    text = re.sub(r"(?<![\w.,])[1-9]\d{0,2}(?:'\d{3})+(?!\d)", lambda found: found[0].replace("'", ""), text)  # 1'000
    text = re.sub(r"^(?:[-*\u2022\u00b7]|#+) +", "", text)
    text = re.sub(r"(?<!\S)(\*{1,3}|_)(?=[^\s*_])(.+?)(?<=[^\s*_])\1(?![\w*_])", r"\2", text)
    units = [mark for mark in "'\"" if text.count(mark) % 2]  # one that nothing opened
    made = []
    for place, char in enumerate(text):
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        if char in "'\"" and not (char in units and before.isdigit() and not after.isalpha()):
            made.append("" if char == "'" or (before.isalnum() and after.isalnum()) else " ")
        else:
            made.append(" " if unicodedata.category(char) in ("Ps", "Pe") else char)
    return " ".join("".join(made).split())


def _without_articles(text: str) -> str:
    """Removes "the" before a word, and "a" or "an" before the first word: "A", "A, B" and "vitamin A" keep theirs."""
    return re.sub(rf"(?<![\w-])the (?=\w)|^an? (?={_LETTER}{{2}})", "", text)


def _joined(text: str) -> str:
    """Joins what is written with and without spaces: initials, sums, fractions and thousands."""
    text = re.sub(r"(?<= )&(?= )", "and", text)
    text = re.sub(rf"(?<!\w)({_LETTER}\.) (?={_LETTER}\.)", r"\1", text)
    text = re.sub(r"(?<=\w) ?([/+=<>*\u00d7\u00f7]) ?(?=\w)|(?<=\d) (-) (?=\d)", lambda found: found[0].strip(), text)
    text = re.sub(r"(?<![\w.,])[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}(?![\d,])", lambda found: found[0].replace(",", ""), text)
    text = re.sub(r"(?<![\w.,])[1-9]\d{0,2}(?: \d{3})+(?!\d)", lambda found: found[0].replace(" ", ""), text)
    return re.sub(r"\.{2,}|-{2,}", " ", re.sub(r"^\+(?=[\d.])", "", text))


def _kept(text: str, place: int, hyphen: str) -> str:
    """Returns what stays of the character at `place`."""
    char, before, after = text[place], text[place - 1 : place] if place else "", text[place + 1 : place + 2]
    if unicodedata.category(char)[0] != "P" or char in _KEPT or char in "'\"":
        return char
    if char == "." and not (before.isdigit() and after.isdigit()):  # .5 is 0.5, .NET stays, U.S. is US
        return "" if before.isalnum() else "0." if after.isdigit() else "." if after.isalpha() else " "
    if char == "-":
        return _dash(text, place, hyphen)
    return char if char in ".,:" and before.isdigit() and after.isdigit() else " "


def _dash(text: str, place: int, hyphen: str) -> str:
    """Returns what stays of a dash: a minus (-5, n-1), a range (1914-1918), a charge (Cl-, A-), or `hyphen`."""
    before, after = text[place - 1 : place] if place else "", text[place + 1 : place + 2]
    if before.isdigit() and after.isdigit():
        return "-"
    if not before.isalnum():
        return "-" if after.isdigit() or (after and after in ".$\u20ac\u00a3\u00a5\u20b9") else " "
    if not after.isalnum():
        return "-"
    single = place < 2 or not text[place - 2].isalpha()
    short = after.isdigit() or not text[place + 2 : place + 3].isalnum()
    return "-" if single and short else hyphen
