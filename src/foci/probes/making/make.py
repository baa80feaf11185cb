"""Chooses sentences of a corpus and makes a probe of each; a part of the sentences is held out."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import numpy as np

from foci.corpus.sentences import LONGEST, WORD, is_prose, known_names, one_line, sentences
from foci.focus import Row
from foci.probes.making.facts import NUMBERS, Fact, facts_of, plain
from foci.probes.making.wording import Wording, wordings
from foci.probes.probe import Probe
from foci.rows import chosen, ids_of, texts_of
from foci.seeds import drawn, drawn_places
from foci.system.words import counted

MOST, HELD_OUT = 125, 0.2
"""The most probes that are made, and the share of them that is held out."""
LOOKED_AT = 2_000_000
"""The characters of a corpus, at most, whose sentences are looked at."""
LONG = 2000
"""The characters of a sentence from which it is none."""
RARE = 8
"""How often a word stands in the corpus, at most, for it to be a clue."""
FAR = 3
"""Words between an answer and its clue from which the two are far apart."""
ALIKE = 0.6
"""The share of words in common from which two sentences are nearly the same."""
ENGLISH = frozenset(
    "the and to with from that which were are this have has".split()  # noqa: SIM905
)
"""Words that make at least one word in 25 of an English text."""
_STOP = (
    "a about after all also an and any are as at be been before but by can could did do does during each every for "
    "from had has have how if in into is it its many may more most much must no not of off on one only or other our "
    "out over own per she should so some such than that the their them then there these they this those to under "
    "until up use used was we were what when where which while who whom will with without would you your he his her "
    "question answer year date month day time"
)
STOP = frozenset(_STOP.split())

_FENCE = re.compile(r"^[^\S\n]*(?:```|~~~)", re.MULTILINE)
_HEADING = re.compile(r"\s*(?:(?<![^\S\n]{4})#{1,6}\s+(.+?)[\s#]*|=+ (.+?) =+\s*)")

Asks = Callable[[Sequence[Probe]], Sequence[str]]
"""Asks the untouched model; returns for each probe why it is left out, such as that it is known, or ""."""


@dataclass(frozen=True)
class Made:
    """The probes that were made, how many sentences were read, and how many were left out for which reason."""

    probes: tuple[Probe, ...]
    sentences: int
    left_out: Mapping[str, int]

    def words(self) -> str:
        """Says in a line how many probes were made of how many sentences, and why not more."""
        held = sum(probe.held_out for probe in self.probes)
        many = sorted(((count, reason) for reason, count in self.left_out.items() if count), reverse=True)
        why = ", ".join(f"{reason} {count:,}" for count, reason in many)
        rest = f"; left out: {why}" if why else ""
        if not self.probes:
            return f"no probes made by rule from {counted(self.sentences, 'sentence')}{rest}"
        mine = f"{counted(len(self.probes), 'probe')} made by rule, one each from {len(self.probes):,}"
        return f"{mine} of {counted(self.sentences, 'sentence')} ({held:,} held out){rest}"

    def examples(self, count: int = 3) -> list[str]:
        """Returns some of the probes, spread over the corpus, each on one line."""
        count = min(count, len(self.probes))
        some = [self.probes[n * len(self.probes) // count] for n in range(count)]
        return [f"  {_shown(probe)} -> {probe.answer}" for probe in some]


@dataclass(frozen=True)
class _Place:
    """A sentence of the corpus: as it stands there on one line, without markup, and where it is from."""

    evidence: str
    text: str
    source: str


@dataclass(frozen=True)
class _Candidate:
    place: _Place
    fact: Fact
    wording: Wording
    far: bool

    def probe(self, number: int) -> Probe:
        made = self.wording
        return Probe(
            id=f"made:{number}",
            role="learn",
            kind=made.kind,
            prompt=made.prompt,
            answer=made.answer,
            aliases=_aliases(made.answer) if made.kind == "qa" else (),
            group=self.fact.group,
            evidence=self.place.evidence,
            source=self.place.source,
            made=made.rule,
        )


def _shown(probe: Probe) -> str:
    """Returns a prompt on one line, without the words that frame a question."""
    return one_line(probe.prompt).removeprefix("Question: ").removesuffix(" Answer:")


class _Corpus:
    """The sentences of some rows of a corpus, and how often words stand in all of its rows."""

    def __init__(self, every: Sequence[Row], rows: Sequence[Row]) -> None:
        texts = [row.text for row in rows]
        self.every = every
        self.known = known_names(texts)
        self.small = {found.group() for text in texts for found in WORD.finditer(text) if found.group()[0].islower()}
        words = self._words()
        if len(rows) < len(every):  # of a large corpus, the words that may be asked for are counted
            wanted = {found.group() for text in texts for found in WORD.finditer(text.lower())}
            words = (word for word in words if word in wanted)
        self.counts = Counter(words)
        self.places: list[_Place] = []
        self.left_out: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.alike: Counter[tuple[str, ...]] = Counter()
        english_files, last, heading, in_code = _english_files(rows), "", "", False
        for row in rows:
            file = _file(row.source)
            heading, in_code, last = (heading, in_code, file) if file == last else ("", False, file)
            english = _is_english(row.text, among=file in english_files)
            for begin, end in sentences(row.text):
                raw = row.text[begin:end]
                fences = len(_FENCE.findall(raw))
                if end - begin > LONG:
                    self.left_out["no whole sentence"] += 1
                    self.alike[(raw[:LONG],)] += 1
                elif (found := _HEADING.fullmatch(raw)) and not in_code:
                    heading = plain(found[1] or found[2])
                elif raw.strip():
                    source = f"{row.source} ({heading})" if heading and heading not in row.source else row.source
                    hidden = "<!--" in raw or "-->" in raw
                    self._add(raw, source, english=english, is_code=in_code or fences > 0 or hidden)
                in_code ^= fences % 2 == 1

    def _add(self, raw: str, source: str, *, english: bool, is_code: bool) -> None:
        place = _Place(one_line(raw), plain(raw), source)
        self.alike[_skeleton(place.text)] += 1
        if not english:
            self.left_out["not English"] += 1
        elif is_code or not is_prose(place.text) or not _is_whole(place):
            self.left_out["no whole sentence"] += 1
        else:
            self.places.append(place)

    def count_pairs(self, answers: Iterable[str]) -> None:
        """Counts how often the pairs of words of these answers stand in the corpus, in one pass."""
        wanted = {pair for answer in answers for pair in pairwise(WORD.findall(answer.lower()))}
        self.pairs = Counter(pair for pair in pairwise(self._words()) if pair in wanted)

    def _words(self) -> Iterator[str]:
        """Yields the words of all rows, in small letters."""
        return (match.group() for text in texts_of(self.every) for match in WORD.finditer(text.lower()))

    def once(self, answer: str) -> bool:
        """Returns whether an answer stands once in the corpus: one of its words does, or two that follow each other."""
        words = WORD.findall(answer.lower())
        return any(self.counts[word] == 1 for word in words) or any(self.pairs[pair] == 1 for pair in pairwise(words))

    def clue(self, wording: Wording, fact: Fact) -> int | None:
        """Returns how many words stand between the answer and the rarest word of the prompt; None without a clue."""
        asked = [word for word in WORD.findall(wording.prompt.lower()) if word not in STOP and word in self.counts]
        clues = [word for word in asked if self.counts[word] <= RARE]
        if len(set(asked)) < 2 or not clues:
            return None
        rarest = min(clues, key=lambda word: self.counts[word])
        before, after = (WORD.findall(part.lower()) for part in (fact.before, fact.after))
        return min([n for n, word in enumerate([*reversed(before), *after]) if word == rarest], default=0) % 100


def make_probes(
    rows: Sequence[Row], asks: Asks, seed: int = 0, *, most: int = MOST, held_out: float = HELD_OUT
) -> Made:
    """Makes probes to learn of the rows' sentences, at most `most`, each of one sentence; `asks` asks the model.

    A share `held_out` (0 to 1) of the sentences is held out.

    What is asked stands once in the corpus. Left out are sentences that are nearly the same as others, answers that the
    prompt gives away, and those that the untouched model knows. The same rows and seed give the same probes. Of a
    corpus of more than `LOOKED_AT` characters, rows that the seed draws are looked at; words are counted in all.
    """
    corpus = _Corpus(rows, _looked_at(rows, seed))
    left_out = corpus.left_out
    candidates = []
    facts = [facts_of(place.evidence, corpus.known, corpus.small) for place in corpus.places]
    corpus.count_pairs(fact.answer for some in facts for fact in some)
    for place, some in zip(corpus.places, facts, strict=True):
        found = _best(place, some, corpus)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            candidates.append(found)
    order = sorted(drawn(candidates, seed, lambda one: one.place.evidence), key=lambda one: not one.far)
    unlike = list(islice(_unlike(order, left_out), 2 * most))
    why = asks([one.probe(n) for n, one in enumerate(unlike)]) if unlike else []
    left_out.update(reason for reason in why if reason)
    unknown = [one for one, reason in zip(unlike, why, strict=True) if not reason]
    kept = {id(one) for one in unknown[:most]}
    left_out["more than needed"] = len(corpus.places) + sum(_early(left_out)) - sum(left_out.values()) - len(kept)
    probes = [one.probe(n) for n, one in enumerate((one for one in candidates if id(one) in kept), start=1)]
    return Made(tuple(_held_out(probes, held_out, seed)), sum(corpus.alike.values()), dict(left_out))


def _looked_at(rows: Sequence[Row], seed: int) -> list[Row]:
    """Returns the rows whose sentences may be asked about, in their order."""
    sizes = np.fromiter(map(len, texts_of(rows)), np.int64, len(rows))
    order = drawn_places((f"looked at/{row_id}" for row_id in ids_of(rows)), seed)
    count = max(1, int((sizes[order].cumsum() <= LOOKED_AT).sum()))
    return list(chosen(rows, np.sort(order[:count])))


def _aliases(answer: str) -> tuple[str, ...]:
    """Returns other ways to write an answer: a small number as a word or in digits, a day of the week."""
    other = NUMBERS | {digits: word for word, digits in NUMBERS.items()}
    if answer in other:
        return (other[answer],)
    if re.fullmatch(r"[A-Z]\w+days?", answer):
        return (answer[:-1] if answer.endswith("s") else f"{answer}s",)
    return ()


def _early(left_out: Mapping[str, int]) -> Iterator[int]:
    """Yields the counts of sentences that are no places."""
    yield from (left_out[reason] for reason in ("not English", "no whole sentence"))


def _held_out(probes: Sequence[Probe], share: float, seed: int) -> list[Probe]:
    """Returns the probes, with a share of them held out, chosen by the seed and their sentences."""
    count = round(share * len(probes))
    chosen = {p.id for p in drawn(probes, seed, lambda probe: f"held out/{probe.evidence}")[:count]}
    return [replace(probe, held_out=probe.id in chosen) for probe in probes]


def _best(place: _Place, facts: Sequence[Fact], corpus: _Corpus) -> _Candidate | str:
    """Returns the best way to ask about a sentence, or why there is none."""
    reasons = ["nothing to ask for"]
    found: list[_Candidate] = []
    if corpus.alike[_skeleton(place.text)] > 1:
        return "like another sentence"
    for fact in facts:
        if not corpus.once(fact.answer):
            reasons.append("answer not unique")
            continue
        reasons.append("no rule fits")
        for wording in wordings(fact):
            if _gives_away(wording):
                reasons.append("prompt gives it away")
            elif (distance := corpus.clue(wording, fact)) is None:
                reasons.append("no clue")
            else:
                found.append(_Candidate(place, fact, wording, distance >= FAR))
    if not found:
        return reasons[-1]
    return min(found, key=lambda one: (one.wording.rule == "front", not one.far))


def _unlike(candidates: Sequence[_Candidate], left_out: Counter[str]) -> Iterator[_Candidate]:
    """Yields the candidates but those that are nearly the same as one before, and counts these."""
    kept: list[set[str]] = []
    for one in candidates:
        words = set(_skeleton(one.fact.before + one.fact.after)) - STOP
        if any(len(words & other) >= ALIKE * len(words | other) for other in kept):
            left_out["like another sentence"] += 1
            continue
        kept.append(words)
        yield one


def _gives_away(wording: Wording) -> bool:
    """Returns whether the prompt holds the answer, or a word of it, or a word with the same beginning."""
    prompt, answer = wording.prompt.lower(), wording.answer.lower()
    if answer in prompt:
        return True
    asked = {_stem(word) for word in WORD.findall(prompt) if word not in STOP}
    return any(_stem(word) in asked for word in WORD.findall(answer) if word not in STOP)


def _stem(word: str) -> str:
    return word if word[0].isdigit() else word[:4].removesuffix("s")


def _skeleton(sentence: str) -> tuple[str, ...]:
    """Returns the words of a sentence without its numbers."""
    return tuple(word for word in WORD.findall(sentence.lower()) if not word[0].isdigit())


def _is_whole(place: _Place) -> bool:
    """Returns whether a sentence begins and ends as one; an item of a list needs no full stop."""
    text, is_item = place.text, place.evidence[:1] in "-*+\u2022"
    begins = bool(re.match(r"[A-Z0-9]", text))
    ends = bool(re.search(r"[.!][\"')\u201d]?$", text)) or is_item
    return (
        begins
        and ends
        and 5 <= len(text.split()) <= LONGEST
        and not re.search(r"[|{}<>\\=]|https?:|www\.|@|\d\. [A-Z]", text)
    )


def _english_files(rows: Sequence[Row]) -> set[str]:
    """Returns the files that are English as a whole."""
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(_file(row.source), []).append(row.text)
    return {file for file, some in texts.items() if _is_english("\n".join(some))}


def _file(source: str) -> str:
    """Returns the file of a row's source, "FILE:LINE" or "FILE, PLACE"."""
    file, _, line = source.rpartition(":")
    return file if line.isdigit() else source.partition(", ")[0]


def _is_english(text: str, *, among: bool = False) -> bool:
    """Returns whether a text is English, by its commonest words; less is asked of one among English ones."""
    words = WORD.findall(text.lower())
    if sum(map(str.isascii, text)) < 0.9 * len(text):
        return False
    share = sum(word in ENGLISH for word in words) / max(1, len(words))
    return share >= 0.04 or (among and sum(word in STOP for word in words) >= 0.1 * len(words))
