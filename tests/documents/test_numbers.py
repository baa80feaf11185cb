"""The share of known words that is read, in order, from documents of every kind, through the reader of a corpus."""

import pytest

import papers
from foci.corpus.documents import LeftOut, read_source

for library in ("reportlab", "docx", "pptx", "openpyxl", "pypdfium2", "mammoth", "trafilatura"):
    pytest.importorskip(library, reason="pip install 'foci[documents,test]'")


@pytest.mark.parametrize("ending", papers.WRITERS)
def test_words_are_read_in_order_and_nothing_else_is(tmp_path, ending):
    texts = papers.paragraphs(9, 20)
    words = " ".join(texts).split()
    found = list(read_source(str(papers.WRITERS[ending](tmp_path / f"a{ending}", texts)), "text"))
    assert not any(isinstance(one, LeftOut) for one in found)
    text = "\n\n".join(one.text for one in found)
    assert papers.recovered(words, text) >= 0.995
    assert papers.HEAD not in text
    marks = sum(word in ("|", "number", "text", "|---|---|", "#", "Pumps") for word in text.split())
    assert len(text.split()) - marks <= 1.02 * len(words)
