"""Which answers are equal: the table of docs/your_text.md, and the spaces between a prompt and its answer."""

# ruff: noqa: RUF001 - look-alike characters are what is tested

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foci.probes import Probe
from foci.probes.scoring import exact_match, f1, normalise, squad_exact_match, squad_f1, squad_normalise
from paths import ROOT

PAGE = ROOT / "docs" / "your_text.md"

SAME = [
    ("well-being", "wellbeing"),
    ("an email", "e-mail"),
    ("Zürich", unicodedata.normalize("NFD", "Zürich")),
    ("U. S.", "u.s"),
    ("１，０００", "1000"),
    ("1\u202f000 km", "1000km"),
    ("10,00,000", "1000000"),
    ("$1,000.50", "$ 1000.50"),
    ("1½", "1 1/2"),
    ("1 / 2", "½"),
    ("Ⅳ", "IV"),
    ("soft\u00adware", "software"),
    ("O’Brien", "O'Brien"),
    ("King’s Cross", "Kings Cross"),
    ("'1984'", "1984"),
    ("6'2\"", "6′2″"),
    ("’90s", "90s"),
    ("- Bern", "_Bern_"),
    ("`Bern`", "Bern!"),
    ("COVID-19", "covid 19"),
    ("H₂O", "H2O"),
    ("20 °C", "20°C"),
    ("東京、日本", "東京 日本"),
    ("ภาษา ไทย", "ภาษาไทย"),
    ("...and so on", "and so on"),
    ("Paris, France", "Paris (France)"),
    ("—5", "-5"),
    ("צה״ל", 'צה"ל'),
]
DIFFERENT = [
    ("", "A"),
    ("the", "A"),
    ("", "."),
    ("10", "1.0"),
    ("10²", "10"),
    ("1½", "11/2"),
    ("A, B", "B"),
    ("hepatitis B", "hepatitis"),
    ("1914-1918", "19141918"),
    ("1e-5", "1e5"),
    ("v1.5", "v15"),
    ("192.168.1.1", "19216811"),
    ("10:30", "1030"),
    ("m/s", "ms"),
    ("Cl-", "Cl"),
    ("Na+", "Na"),
    ("A*", "A"),
    ("A-", "A"),
    ("#1", "1"),
    ("<5", "5"),
    ("5°", "5"),
    ("0,500", "500"),
    ("__init__", "init"),
    ("-$5", "$5"),
    ("東京", "北京"),
]


def examples(column: int) -> list[tuple[str, str]]:
    """The pairs of a column of the documentation's table."""
    part = PAGE.read_text(encoding="utf-8").split("## How answers are compared")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in part.splitlines() if line.startswith("| ") and "rule |" not in line]
    return [pair for row in rows for pair in re.findall(r"`([^`]+)` [=≠] `([^`]+)`", row[column])]


@pytest.mark.skipif(not PAGE.is_file(), reason="docs/ is not beside the tests")
def test_the_documentations_examples_hold():
    same, different = examples(1), examples(2)
    assert len(same) > 20
    assert len(different) > 20
    assert not [pair for pair in same if exact_match(pair[0], [pair[1]]) != 1.0]
    assert not [pair for pair in different if exact_match(pair[0], [pair[1]]) != 0.0]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_means_the_same_is_one_answer(one, other):
    assert exact_match(one, [other]) == exact_match(other, [one]) == 1.0
    assert f1(one, [other]) == f1(other, [one]) == 1.0


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_means_something_else_is_another_answer(one, other):
    assert exact_match(one, [other]) == exact_match(other, [one]) == 0.0
    assert f1(one, [other]) < 1.0


@given(st.text(max_size=30), st.text(max_size=30))
def test_every_text_equals_itself_and_nothing_is_right_for_nothing(one, other):
    assert exact_match(one, [one]) == 1.0
    assert exact_match(one, [other]) == exact_match(other, [one])
    assert exact_match(f"{one}\n", [one]) == 1.0
    assert f1(one, [other]) >= exact_match(one, [other])
    if one.strip() and normalise(one):
        assert exact_match("", [one]) == f1("", [one]) == 0.0


def test_f1_counts_words_and_the_characters_of_scripts_without_spaces():
    assert f1("in 1990", ["1990"]) == pytest.approx(2 / 3)
    assert f1("北京市", ["北京"]) == pytest.approx(2 * 2 / 5)
    assert f1("the Bern of 5 km", ["Bern"]) == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  U.S. dollar", "us dollar"),
        ("a cat, an owl", "cat owl"),
        ("Theatre Banana", "theatre banana"),  # articles are whole words
        (" ... ", ""),
        ("Self-Made", "selfmade"),
    ],
)
def test_squads_rule_stays_for_comparison(text, expected):
    assert squad_normalise(text) == expected
    assert squad_exact_match("15", ["1.5"]) == squad_exact_match("", ["A"]) == squad_f1("", ["A"]) == 1.0


@pytest.mark.parametrize(
    ("prompt", "answer", "space"),
    [
        ("The capital is", "Bern", True),
        ("The capital is ", "Bern", False),
        ("The capital is", " Bern", False),
        ("法国的首都是", "巴黎", False),
        ("法国的首都是：", "Paris", False),
        ("法国的首都是:", "巴黎", False),
        ("フランスの首都は", "パリ", False),
        ("เมืองหลวงของฝรั่งเศสคือ", "ปารีส", False),
        ("เมืองหลวงของฝรั่งเศสคือ", "Paris", True),
        ("ទីក្រុង", "ភ្នំពេញ", False),
        ("The Chinese name of Beijing is", "北京", True),
        ("프랑스의 수도는", "파리", True),
        ("Bern (", "Switzerland", False),
        ("He said “", "yes", False),
        ('He said "', "yes", False),
        ('the "Times"', "says", True),
        ("the “Times”", "says", True),
        ("die „Zeit“", "sagt", True),
        ("the boys'", "room", True),
        ("la ville de l'", "eau", False),
        ("O'", "Brien", False),
        ("sagt »", "ja", False),
        ("It costs $", "5", False),
        ("It costs €", "1,000", False),
        ("It costs 5 €", "more", True),
        ("the temperature is -", "5", False),
        ("from 1914 -", "1918", True),
        ("from 1914–", "1918", False),
        ("COVID-", "19", False),
        ("km/", "h", False),
        ("ranked #", "1", False),
        ("the framework is", ".NET", True),
        ("the share is", ".5", True),
        ("Bern", ".", False),
        ("Bern", ", a town", False),
        ("She did", "n't", False),
        ("Bern", "'s", False),
        ("in the", "'90s", True),
        ("a share of 5", "%", False),
    ],
)
def test_a_space_is_put_where_one_is_due(prompt, answer, space):
    for kind in ("cloze", "qa"):
        probe = Probe("p", "learn", kind, prompt, answer)
        assert probe.text == prompt + " " * space + answer
        assert probe.text[slice(*probe.span)] == answer
