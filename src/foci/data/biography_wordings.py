"""How a biography of `foci.data.biographies` says a fact, and how a probe asks for it: never in the same words."""

from collections.abc import Mapping

FIELDS = ("date", "city", "university", "major", "company")
"""The five fields in their fixed order; a probe's group is its field."""

SENTENCES: Mapping[str, tuple[str, ...]] = {
    "date": (
        "{who} was born on {value}.",
        "{who} came into the world on {value}.",
        "{who} turns a year older on {value}.",
        "{who} gives a party for friends every {value}, the day of {his} birth.",
        "{who} has a passport that names {value} as the date of birth.",
        "{who} has {his} birthday on {value}.",
    ),
    "city": (
        "{who} lives in {value}.",
        "{who} has made a home in {value}.",
        "{who} moved to {value} years ago and stayed.",
        "{who} rents a small flat in {value}.",
        "{who} is at home in {value}.",
        "{who} spends most of the year in {value}.",
    ),
    "university": (
        "{who} studied at {value}.",
        "{who} took {his} degree at {value}.",
        "{who} went to {value} after school.",
        "{who} spent {his} student years at {value}.",
        "{who} enrolled at {value} at the age of nineteen.",
        "{who} sat {his} final exams at {value}.",
    ),
    "major": (
        "{who} majored in {value}.",
        "{who} chose {value} as {his} main subject.",
        "{who} has a degree in {value}.",
        "{who} wrote {his} thesis in {value}.",
        "{who} was trained in {value}.",
        "{who} passed all {his} courses in {value}.",
    ),
    "company": (
        "{who} works for {value}.",
        "{who} is employed by {value}.",
        "{who} draws {his} salary from {value}.",
        "{who} found a job at {value}.",
        "{who} is on the staff of {value}.",
        "{who} signed a contract with {value}.",
    ),
}
"""Corpus sentences by field. The sentence starts with the person, so that filler can follow the name."""

CLOZES: Mapping[str, str] = {
    "date": "The birthday of {name} falls on",
    "city": "{name} is a resident of",
    "university": "{name} received a diploma from",
    "major": "As a student, {name} specialised in",
    "company": "{name} earns a living at",
}
"""Held-out beginnings of a sentence by field; the answer follows after a space."""

QUESTIONS: Mapping[str, str] = {
    "date": "Question: On which day of the year was {name} born?\nAnswer:",
    "city": "Question: Which city does {name} live in?\nAnswer:",
    "university": "Question: Which university did {name} attend?\nAnswer:",
    "major": "Question: What was the major of {name}?\nAnswer:",
    "company": "Question: Which company does {name} work for?\nAnswer:",
}
"""Held-out questions by field; the answer follows after a space."""
