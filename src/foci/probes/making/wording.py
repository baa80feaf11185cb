"""Asks for a part of an English sentence, in other words than the sentence's own where a rule can."""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from foci.probes.making.facts import Fact, FactKind

Rule = Literal["question", "moved", "front"]
"""How a probe was made: as a question, as the sentence with its first part moved to its end, or as its front alone."""


FRONT: Rule = "front"


class Wording(NamedTuple):
    """A prompt with its answer. `kind` is the kind of the probe."""

    rule: Rule
    kind: Literal["cloze", "qa"]
    prompt: str
    answer: str


_AUX = "was|were|is|are|will|can|must|may|should|has been|have been|had been"
_VERBS = (
    "is was has had can will must may became began brought built came chose drew fell flew found gave got grew held "
    "kept knew led left lost made met ran sat saw sold sent spent spoke stood taught took told went won wore wrote "
    "leads runs owns holds keeps answers manages uses sells stands lies opens closes serves contains includes works "
    "lives writes teaches makes gives takes needs means supports provides offers handles requires returns adds pays "
    "decides approves checks orders cleans repairs plans organises organizes speaks covers costs belongs starts ends"
)
_ACTS = rf"(?:{'|'.join(_VERBS.split())}|[a-z]+ed)"
_WORDS = re.compile(r"[^\W_][\w'\u2019.-]*")
_TEMPORAL: dict[FactKind, str] = {
    "date": "which date", "month": "which month", "year": "which year", "weekday": "which day", "time": "what time",
}  # fmt: skip
_LAST_PREPOSITION = re.compile(r"(?<=\s)(?:in|on|at|since|until|by|from|before|after|of|during|for|to|with) $")
_PARTICIPLE = (
    r"(?:\w+(?:ed|wn)|born|built|bought|brought|begun|bound|broken|caught|chosen|cut|done|driven|fallen|fed|felt|fought|"
    r"found|given|gone|heard|held|hidden|hit|hung|kept|laid|led|left|lent|lost|made|meant|met|paid|put|read|risen|run|"
    r"said|seen|sent|set|shot|shut|sold|spent|split|spoken|stolen|struck|sung|sunk|swept|taken|taught|thought|told|"
    r"torn|won|worn|written|open|closed|due|available|possible|ready|free)"
)
_END = re.compile(r"""\s*[.!?\u2026]*["')\u201d\u2019]*$""")
_BREAK = re.compile(
    r"""\s*(?:;|\s[\u2013\u2014-]\s|\s\((?!\d)|
    ,?\s(?:but|because|which|who|whose|where|when|while|although|though|whereas|so\sthat|unless|if)\s|
    ,?\sand\s(?:is|was|are|were|has|have|had|can|must|will|it|he|she|they|we|you|then|later)\s|
    ,\s(?:and\s)?(?:a|an|the|then|not|it|he|she|they|we|you|with|so|its|his|her|their|as|after|before|where)\s)""",
    re.VERBOSE,
)
_OPEN_LEFT = re.compile(r"(?:\b(?:and|or|nor|between|not|vs)|[,&+/(\[\"'\u201c\u2018\u2013\u2014-]|\b\d[\d.,]*)\s*$")
_ONE_OF_SEVERAL_TIMES = re.compile(r"\s(?:and|or|but|as well as)\s")
_ONE_OF_SEVERAL = re.compile(
    r"(?:\s(?!(?:and|or)\s)[\w-]+){1,3}\s(?:and|or|as well as)\s(?:\d|(?:an?|one|two|three|four|five|six|seven|eight|"
    r"nine|ten|eleven|twelve|twenty|many|several|some|no|another)\b)"
)
"""Words behind an answer that is one of several: "12 [rooms and two kitchens]", "in May [and June]"."""
_DETERMINED = re.compile(
    r"\b(?:the|these|those|this|his|her|its|their|our|your|my|last|first|next|past|every|each|other|all|only|another|"
    r"remaining|rest|again|number|version|chapter|section|page|part|figure|table|room|level|step|no\.|top|or|and|to|by|from)\s+$",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"\s(?:(?!of|to|and|or|in)[a-z-]+\s)?(?:[a-z-]{2,}(?<!s)s|people|children|women|men|staff|[ckm]?m|kg|m?l|[KMGT]B|kWh?)\b(?!')"
)
_UNIT = re.compile(
    r"\s(?:(?!of|to|and|or|in)[a-z-]+\s)?(?:[a-z-]{2,}s|people|[ckm]?m|kg|m?l|[KMGT]B|kWh?)\b(?:\sper\s[a-z]+|\sa\s[a-z]+)?"
)
_SUBJECT = re.compile(
    r"(?:The|A|An|Our|Your|Each|Every|All|Any|Most|Some|Both|We|You|Everyone|Everybody|Nobody|[A-Z]\w+s)\s"
)
_VAGUE = re.compile(
    r"(?:it|he|she|they|this|that|these|those|his|her|their|its|there|here|such|both|one|another|others?|i|then|also|"
    r"however|therefore|thus|instead|otherwise|neither|nor|and|but|so|or|if|as|see|e\.g|i\.e)\b",
    re.IGNORECASE,
)
_UNCLEAR = re.compile(
    r"(?:After|At|Before|By|Due|During|Following|For|From|In|On|Since|Though|Through|Under|Until|When|While|With)\b"
    r"[^,]{0,80}(?:,|\d) (?:he|she|it|they|this|these|those)\b"
)
_CONJUNCTION = re.compile(r"\b(?:who|whom|which|that|and|if|when|because|where|while|what|but|until|there|as|so|or)\b")


def wordings(fact: Fact) -> list[Wording]:
    """Returns the prompts that ask for a fact, the best first; none where no rule fits."""
    if _VAGUE.match(fact.sentence) or _UNCLEAR.match(fact.sentence):
        return []
    return [made for rule in _RULES if (made := rule(fact)) is not None]


def _question(words: str, answer: str) -> Wording:
    return Wording("question", "qa", f"Question: {words}?\nAnswer:", answer)


def _moved(fact: Fact) -> Wording | None:
    """Moves a first part to the end: "In 1994, the museum moved to Bern." is asked "The museum moved to Bern in"."""
    first = re.fullmatch(r"(In|On|Since|Until|Before|After|During|At|By)( the year| early| late)? ", fact.before)
    if first is None or (first[1] == "By" and fact.kind not in _TEMPORAL):
        return None
    rest = re.fullmatch(rf",{'?' if fact.kind in _TEMPORAL else ''} ([^,;:()?!\u2013\u2014]+)\.?", fact.after)
    clause = rest[1].strip().rstrip(".") if rest else ""
    if _few(clause, 4) or _VAGUE.match(clause) or re.search(r"\b(?:and|but|or)\b", clause):
        return None
    if not re.match(r"(?:the|a|an|our|your|all|each|every|any|we|you)\s|[A-Z]|[a-z]+s\s", clause):
        return None
    return Wording("moved", "cloze", f"{clause[0].upper()}{clause[1:]} {first[1].lower()}{first[2] or ''}", fact.answer)


def _inverted(fact: Fact) -> Wording | None:
    """Asks for a time: "The museum was opened in 1994." is asked "In which year was the museum opened?"."""
    asked = _TEMPORAL.get(fact.kind)
    if asked is None or not (_END.match(fact.after) or _BREAK.match(fact.after)):
        return None
    found = re.fullmatch(
        rf"([A-Z][^,;:()]*?) ({_AUX})((?: [^\s,;:()]+)+?) (in|on|at|since|until|by|from|before|after) ", fact.before
    )
    if found is None:
        return None
    subject, aux, rest, preposition = found.groups()
    if len(subject.split()) > 8 or _CONJUNCTION.search(f"{subject} {rest}".lower()):
        return None
    if aux in ("was", "were", "is", "are") and not re.match(
        rf" (?:\w+ly |first |last |then |later |not )*{_PARTICIPLE}\b", rest
    ):
        return None
    aux, _, been = aux.partition(" ")
    been = f" {been}" if been else ""
    subject = _inner(subject, fact)
    return _question(f"{preposition.capitalize()} {asked} {aux} {subject}{been}{rest}", fact.answer)


def _as_subject(fact: Fact) -> Wording | None:
    """Asks for the subject: "Ada Bell founded the club." is asked "Who or what founded the club?"."""
    if fact.kind not in ("name", "term") or fact.before not in ("", "The "):
        return None
    rest = re.fullmatch(
        rf" (?!(?:based|called|designed|given|intended|made|named|used)\b)({_ACTS}) ([^;:?!]+?)[.!]?", fact.after
    )
    if rest is None or _few(rest[2], 3):
        return None
    return _question(f"{'Who or what' if fact.kind == 'name' else 'What'} {rest[1]} {rest[2]}", fact.answer)


def _how_many(fact: Fact) -> Wording | None:
    """Asks for a number or a time in its place: "The house has 12 rooms." is asked "The house has how many rooms?"."""
    asked, after = _question_word(fact), re.fullmatch(r"([^,./;:?!()][^;:?!()]*?|)[.!]?", fact.after)
    if asked is None or after is None or len(fact.sentence.split()) > 30:
        return None
    if not fact.before:
        return None if _few(after[1], 4) else _question(f"{asked[0].upper()}{asked[1:]}{after[1]}", fact.answer)
    return _question(f"{fact.before}{asked}{after[1]}", fact.answer) if _has_place_for(asked, fact) else None


def _question_word(fact: Fact) -> str | None:
    """Returns the words that ask for a number or a time; None for other facts."""
    if fact.kind == "number" and _COUNTED.match(fact.after) and not fact.before.endswith("("):
        return "how many"
    if fact.kind == "percent" and fact.after.startswith(" of "):
        return "what percentage"
    return "how much money" if fact.kind == "amount" else _TEMPORAL.get(fact.kind)


def _has_place_for(asked: str, fact: Fact) -> bool:
    """Returns whether a question can stand in the place of an answer: in no range, and behind no article."""
    if re.search(r"\b(?:how|what|which|who|when)\b", fact.sentence, re.IGNORECASE) or not _is_declarative(fact):
        return False
    if re.match(r"\s?(?:-|\u2013|to|or|and)\s?\d", fact.after) or _OPEN_LEFT.search(fact.before):
        return False
    if (_ONE_OF_SEVERAL_TIMES if asked in _TEMPORAL.values() else _ONE_OF_SEVERAL).match(fact.after):
        return False
    preposition = _LAST_PREPOSITION.search(fact.before)
    return not _DETERMINED.search(_LAST_PREPOSITION.sub("", fact.before)) and (
        preposition is not None or asked not in _TEMPORAL.values()
    )


def _front(fact: Fact) -> Wording | None:
    """Asks in the sentence's own words, up to the answer, where the answer ends a sentence or a clause."""
    answer, after = fact.answer, fact.after
    if fact.kind == "number" and (unit := _UNIT.match(after)):
        answer, after = answer + unit[0], after[unit.end() :]
    if not (_END.match(after) or _BREAK.match(after)) or not fact.before.endswith(" "):
        return None
    clause = re.split(r"[,;:\u2013\u2014(] ?|\b(?:and|but|while|although|because|when) ", fact.before)[-1]
    if (
        fact.before.count("(") > fact.before.count(")")
        or _few(fact.before, 4)
        or _few(clause, 2 if _END.match(after) else 5)
        or _OPEN_LEFT.search(fact.before)
    ):
        return None
    if fact.kind == "name" and re.search(r"[A-Z][\w.]* (?:on|for|of)(?: the)? $", fact.before):
        return None  # a part of a longer name: "Commission on Zoological Nomenclature"
    if fact.kind == "name" and re.match(r",\s(?:and\s)?(?:the|a|an|their|his|her|its)\s|\s[\u2013\u2014-]\s", after):
        return None
    return Wording("front", "cloze", fact.before.rstrip(), answer)


def _is_declarative(fact: Fact) -> bool:
    """Returns whether a sentence begins with its subject, so that a question can stand in the place of a part of it."""
    return fact.begins_with_name or bool(_SUBJECT.match(fact.sentence))


def _inner(subject: str, fact: Fact) -> str:
    """Returns the subject of a sentence as it is written inside of one."""
    return subject if fact.begins_with_name else subject[0].lower() + subject[1:]


def _few(words: str, least: int) -> bool:
    return len(_WORDS.findall(words)) < least


_RULES: tuple[Callable[[Fact], Wording | None], ...] = (
    _moved,
    _inverted,
    _as_subject,
    _how_many,
    _front,
)
