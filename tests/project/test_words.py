"""Docstrings begin plainly, and each word of the glossary has one meaning wherever people read it.

`OTHER` holds, for every word of docs/glossary.md, patterns of another meaning of it, or of another word for what it
means. They are searched in the docstrings of src, in README.md, in CONTRIBUTING.md and in docs. The log and the
changelog keep the words of their day.
"""

import ast
import re
from functools import cache

import pytest

from paths import ROOT

SRC, DOCS = ROOT / "src" / "foci", ROOT / "docs"

OTHER = {
    "accuracy": r"\bscores? of (an|the) answers?\b|\banswers? (is|are) (marked and )?scored\b|\bF1 score\b",
    "adapter": r"\bK-Adapter\b|\bk_adapter\b",
    "alignment": r"\balignment of (the )?(columns?|tokens|rows)\b|\binner product of (the )?gradients\b",
    "arm": r"\bexperimental conditions?\b|\btreatment arm\b|\barms? of (the|a) (attention )?head\b",
    "baseline": r"\bbaseline's (own|last|curve)\b|\bbaseline first is\b|\b(below|from) the baseline\b|\bbaseline arm\b",
    "binding": r"\bbinding (of|to) (a |the )?(column|row|setting|name)s?\b",
    "bits per byte": r"\bbits per (character|token|word)\b|\bnats per byte\b",
    "block": r"\bblocks? of (a |the |its |some )?(queries|keys|logits|positions|tokens|text|rows|yaml)\b"
    r"|\b(queries|scores|logits) in a block\b|\bblock's (quer|key|prob)|\battention blocks?\b",
    "cell": r"\b(table|spreadsheet)('s)? cells?\b|\bcells? of (a|the) table\b",
    "column": r"\bcolumns? of (a|the) (matrix|weight|page)\b",
    "controls": r"\bcontrols? (the|a) (run|model|trainer|rate)\b",
    "copy": r"\baugmentations?\b",
    "corpus": r"\btraining (data ?set|corpus)\b",
    "guided head": r"\bsupervised heads?\b|\bforced heads?\b",
    "head (attention)": r"\(head, layer\)",
    "held out": r"\bvalidation probes?\b|\bdev(elopment)? set\b",
    "influence": r"\binfluences? of (the )?(machine|thread|order)s?\b",
    "later loss": r"\bouter loss\b|\bmeta[- ]loss\b",
    "learned, retained": r"\bremembered, %|\bforgotten, %",
    "logits": r"\battention scores?\b|\b(softmax of|soft-capped|masked) scores\b"
    r"|\bscores (before|of) (its|the|a|one) (mask|softmax|attention layer)\b|\b(key|query)'s score\b",
    "method": r"\balgorithms? of an arm\b",
    "nll": r"\bNLL in bits\b|\bbits of NLL\b",
    "offline stage": r"\b(off|on)line (half|halves|part|phase)s?\b",
    "oracle": r"\bupper bound arm\b|\bgold arm\b",
    "packing": r"\bsequence packing\b|\bpadding-free (rows|batch(es)?)\b",
    "pattern": r"\btarget maps?\b",
    "plain": r"\bvanilla\b",
    "plan": r"\bplans of (the )?(release|future)\b",
    "probe": r"\bprobing classifiers?\b|\blinear probes?\b|\btest questions?\b",
    "profile": r"\bprofiles? (the|a|of the) (time|memory|speed|program)\b",
    "quarantine": r"\bblack ?lists?\b|\bquarantined? (model|probe|checkpoint)s?\b",
    "rehearsal": r"\breplayed (rows?|text)\b|\breplay buffers?\b",
    "role": r"\broles? (`?learn|`?retain|learned|retained)\b"
    r"|\b(each|both|one|the other|a|of) roles?\b[^.|]{0,30}\bprobes?\b"
    r"|\bprobes? of (each|both|one|the other|a|every) roles?\b|\bwithin a role\b|\bby role and kind\b"
    r"|\brole's probes\b",
    "row": r"\brows? of (a|the) (table|results)\b|\brow of (the )?matrix\b|\btraining examples?\b",
    "run": r"\brun of (queries|tokens|logits)\b",
    "score": r"\b(would|that|prior|it|model|oracle|answer) scores? (\d|this|little|the same|more|less)"
    r"|\bprior scores\b|\bscore of (its|a|the) probes?\b|\bscores of (a|the) suite\b|\bmodel's scores\b|\bmean score\b",
    "section": r"\bsections? of (the|a) (page|report|epoch|run\b(?! file)|text|corpus)"
    r"|\bthe section shows\b|\beach section\b",
    "sharding": r"\bmodel partition(ing|s)?\b",
    "slice": r"\bslices? of (the )?(corpus|rows|probes|model|layers)\b|\bchunks? of (queries|logits)\b",
    "soft targets": r"\bdistillation (targets?|loss(es)?)\b|\bsoft labels?\b",
    "span perplexity": r"\bspan ppl\b",
    "suite": r"\btest suites?\b|\bsuite of tests\b",
    "teacher": r"\bteacher[- ](model|network)s?\b|\breference distributions?\b",
    "update": r"\boptimi[sz]er[- ]steps?\b|\bgradient updates?\b",
    "weigher": r"\bweighting (network|model)s?\b|\bscorer\b",
}  # fmt: skip
"""Another meaning of a word, or another word for its meaning, as a pattern."""

EXPLAINS = {"weigher": "docs/results/train_attention.md", "row": "docs/python.md"}
"""The page that may say the field's word, because it explains foci's there."""


@cache
def docstrings() -> tuple[tuple[str, str], ...]:
    """(place, text) of every docstring of src, those of constants too."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            value = node.value if isinstance(node, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", value.value.strip()))
    return tuple(found)


@cache
def passages() -> tuple[tuple[str, str], ...]:
    """(place, text) of every docstring, on one line, and of every line of the documentation."""
    found = [(place, " ".join(text.split())) for place, text in docstrings()]
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]:
        if path.name != "glossary.md" and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [(f"{path.relative_to(ROOT)}:{number}", line) for number, line in enumerate(lines, 1)]
    return tuple(found)


def glossary() -> list[str]:
    lines = (DOCS / "glossary.md").read_text(encoding="utf-8").splitlines()
    return [line.split("|")[1].strip().lower() for line in lines if line.startswith("| ")][1:]


def test_no_docstring_begins_with_what():
    """A first line says what is done or what a thing is; "What ..." makes the reader wait for the verb."""
    wrong = [f"{place} {text[:70]}" for place, text in docstrings() if re.match(r"What\b", text)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(not (DOCS / "glossary.md").is_file(), reason="docs/ is not beside the tests")
def test_every_word_of_the_glossary_is_watched():
    assert len(glossary()) >= 40
    assert set(glossary()) == set(OTHER)


@pytest.mark.parametrize("word", OTHER)
def test_each_word_has_one_meaning(word):
    other = re.compile(OTHER[word], re.IGNORECASE)
    wrong = [
        f"{place} {text[max(0, found.start() - 40) : found.end() + 40]}"
        for place, text in passages()
        for found in other.finditer(text)
        if not place.startswith(EXPLAINS.get(word, "nowhere"))
    ]
    assert not wrong, f"another meaning of {word!r}, or another word for it:\n" + "\n".join(wrong)


def test_the_search_finds_what_it_should():
    """The patterns are not empty promises: each of these has stood in foci and was another meaning."""
    past = {
        "block": "Blocks of queries are computed inside the model's own forward pass",
        "logits": "grouped queries, sliding windows, soft-capped scores and learned sinks",
        "offline stage": "What an offline half made, kept in the method's folder",
        "role": "`limit`: probes of each role at most",
        "row": "What can be measured of the assumption behind the method: rows of a table",
        "score": "`majority` is what that would score; 0.5 is what any prior scores, 1 is knowing every fact",
        "section": "What the section shows: figures, and a line of words per arm",
        "baseline": "how soon it is at the baseline's last loss",
    }
    assert not [word for word, text in past.items() if not re.search(OTHER[word], text, re.IGNORECASE)]
    places = [place for place, _ in passages()]
    assert len(places) > 1500
    assert any(place.startswith("src/foci/focus.py") for place in places)
