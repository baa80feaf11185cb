"""Documents with damaged bytes: each is read in part, or told in one line; none ends a run."""

import random

import pytest

import papers
from foci.corpus.documents import BadLine, Document, read_source

for library in ("reportlab", "docx", "pptx", "openpyxl", "pypdfium2", "mammoth", "trafilatura"):
    pytest.importorskip(library, reason="pip install 'foci[documents,test]'")


@pytest.mark.parametrize("ending", papers.WRITERS)
def test_damaged_bytes_end_no_run(tmp_path, ending):
    whole = papers.WRITERS[ending](tmp_path / f"whole{ending}", papers.paragraphs(13, 3)).read_bytes()
    draw = random.Random(ending)
    for number in range(12):
        raw = bytearray(whole if number % 3 else whole[: draw.randrange(len(whole))])
        for _ in range(draw.choice((1, 5, 40)) if raw else 0):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
        path = tmp_path / f"{number}{ending}"
        path.write_bytes(bytes(raw))
        for found in read_source(str(path), "text"):
            assert isinstance(found, Document | BadLine)
            assert isinstance(found, Document) or "\n" not in str(found)


def test_a_page_that_was_scanned_askew_is_read(tmp_path):
    from reportlab.pdfgen import canvas

    sheet, said = (
        canvas.Canvas(str(tmp_path / "a.pdf")),
        papers.set_lines(papers.paragraphs(14, 1)[0], 400, hyphens=False),
    )
    sheet.rotate(1.2)
    for number, line in enumerate(said):
        sheet.drawString(72, 700 - 14 * number, line)
    sheet.save()
    (found,) = read_source(str(tmp_path / "a.pdf"), "text")
    assert found.text.split() == " ".join(said).split()


def test_a_drawing_of_many_lines_and_labels_keeps_its_labels(tmp_path):
    from reportlab.pdfgen import canvas

    sheet, draw = canvas.Canvas(str(tmp_path / "a.pdf")), random.Random(0)
    for number in range(250):
        x, y = draw.uniform(0, 500), draw.uniform(0, 800)
        sheet.line(x, y, x + 20, y)
        sheet.drawString(x, y, f"L{number}")
    sheet.save()
    (found,) = read_source(str(tmp_path / "a.pdf"), "text")
    assert sum(f"L{number}" in found.text for number in range(250)) == 250
