"""A made-up entity and the sentences about it.

In a template `[a|b]` is one of its parts, `{pool}` a draw from a pool, `{3-90}` and `{1,200-9,800}` a number,
`{relation}` what is true of the entity, and `{S}`, `{O}`, `{P}` the entity as subject, object and possessor.
A pool's values stand between bars and may have slots of their own.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([^{}]+)\}")
_NUMBER = re.compile(r"([\d,]+)-([\d,]+)")
_BEFORE_VOWEL = re.compile(r"\b(a) (?=[aeiou])(?!uni|use|eu|uk|one)", re.IGNORECASE)
_SURNAME = re.compile(r"(?:van |De )?\S+$")
_POSSESSIVE = {"it": "its", "he": "his", "she": "her"}
_JOINTS = ("; ", ", and ")
_JOINED = 0.25


class Entity:
    """One entity of a kind of `encyclopedia.json`: `name` as it is listed, `full` as it is written in a sentence.

    What is said of it stays true (`facts`, by slot), no value is drawn for two things, and `said` counts how
    often each slot was filled.
    """

    def __init__(self, source: Mapping[str, Any], kind: str, rng: Random) -> None:
        self.kind: Mapping[str, Any] = source["kinds"][kind]
        self.facts: dict[str, str] = {}
        self.said: Counter[str] = Counter()
        self.rng, self._source, self._drawn = rng, source, set[str]()
        rule = self.kind["name"]
        if rule == "{person}":
            sex = self._one(list(source["pronouns"]))
            self.facts, rule = dict(source["pronouns"][sex]), f"{{{sex}}}"
        self.name = self._fresh(self._one(rule.split("|")))
        self.full = self.kind["article"] + self.name
        self.facts |= {"name": self.name, "short": _SURNAME.findall(self.name)[0]}

    def text(self, templates: Sequence[str]) -> str:
        """The templates as sentences, a quarter of them joined to the sentence before."""
        text = ""
        for template in map(self._chosen, templates):
            said = _SLOT.sub(lambda slot: self._value(slot[1]), template)
            if text and self.rng.random() < _JOINED:
                start = said[0] if template.startswith("{") else said[0].lower()
                text = f"{text[:-1]}{self._one(_JOINTS)}{start}{said[1:]}"
            else:
                text += f" {self.polished(said)}" if text else self.polished(said)
        return self.polished(text)

    def polished(self, text: str) -> str:
        """The text with "an" before vowels, and with a capital unless the entity's name begins it."""
        text = _BEFORE_VOWEL.sub(r"\1n ", text)
        return text if text.startswith(self.name) else text[0].upper() + text[1:]

    def _one(self, choices: Sequence[str]) -> str:
        return choices[int(self.rng.random() * len(choices))]

    def _chosen(self, text: str) -> str:
        while _CHOICE.search(text):
            text = _CHOICE.sub(lambda choice: self._one(choice[1].split("|")), text)
        return text

    def _value(self, slot: str) -> str:
        self.said[slot] += 1
        if slot in ("S", "O", "P"):
            return self._called(slot)
        if slot == "demonym":
            country = next(name for name in ("citizenship", "origin", "country") if name in self.kind["facts"])
            return self._source["demonyms"][self._fact(country)]
        if slot in self.facts or slot in self.kind["facts"]:
            return self._fact(slot)
        return self._fresh(f"{{{slot}}}")

    def _fact(self, slot: str) -> str:
        if slot not in self.facts:
            self.facts[slot] = self._fresh(self._chosen(self.kind["facts"][slot]))
        return self.facts[slot]

    def _called(self, case: str) -> str:
        """The full name the first time, then a shorter one or a pronoun."""
        first = self.said["S"] + self.said["O"] + self.said["P"] == 1
        names = [self.full] if first else [name.format(**self.facts) for name in self.kind["called"]]
        name = self._one([name for name in names if case != "O" or name not in _POSSESSIVE])
        return _POSSESSIVE.get(name, f"{name}'s") if case == "P" else name

    def _fresh(self, rule: str) -> str:
        """The rule filled from pools, in one of 50 tries with what has not been drawn before."""
        for _ in range(50):
            text = rule
            while _SLOT.search(text):
                text = _SLOT.sub(lambda slot: self._draw(slot[1]), text)
            if text not in self._drawn:
                break
        self._drawn.add(text)
        return text

    def _draw(self, slot: str) -> str:
        if number := _NUMBER.fullmatch(slot):
            low, high = (int(bound.replace(",", "")) for bound in number.groups())
            return format(low + int(self.rng.random() * (high - low + 1)), "," if "," in slot else "")
        pools = self._source["pools"]
        return self._one(pools[slot].split("|") if slot in pools else list(self._source["demonyms"]))
