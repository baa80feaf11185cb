"""PDF documents: every word in order, hyphens and lines repaired, running heads gone, tables and places kept."""

import re

import pytest

import papers

pytest.importorskip("pypdfium2", reason="pip install 'foci[documents]'")
reportlab = pytest.importorskip("reportlab", reason="pip install 'foci[test]'")

from foci.documents import Lost, Unreadable, pieces_of  # noqa: E402
from foci.documents.letters import Letter, runs_of  # noqa: E402
from foci.documents.repair import running  # noqa: E402


def text_of(path):
    return "".join(piece.before + piece.text for piece in pieces_of(path, path.name) if not isinstance(piece, Lost))


@pytest.mark.parametrize(("columns", "interleaved"), [(1, False), (2, False), (2, True), (3, True)])
def test_every_word_is_read_in_order(tmp_path, columns, interleaved):
    texts = papers.paragraphs(columns + interleaved)
    text = text_of(papers.pdf(tmp_path / "a.pdf", texts, columns, interleaved))
    words = " ".join(texts).split()
    assert papers.recovered(words, text) >= 0.995
    assert len(text.split()) <= 1.005 * len(words), "what nobody wrote was read"
    assert "Handbook of pumps" not in text
    assert not re.search(r"Page \d+ of|Chapter \d", text)
    assert not re.search(r"\w- \w|-\n|\x02|\ufffe", text)


def test_the_pages_are_named(tmp_path):
    texts = papers.paragraphs(1)
    found = list(pieces_of(papers.pdf(tmp_path / "a.pdf", texts, 2), "a.pdf"))
    places = list(dict.fromkeys(piece.place for piece in found))
    assert places == [f"page {n + 1}" for n in range(len(places))]
    assert len(places) > 1


def drawn(path, *pages):
    """A PDF whose pages are drawn by functions of a canvas."""
    from reportlab.pdfgen import canvas

    sheet = canvas.Canvas(str(path))
    for draw in pages:
        draw(sheet)
        sheet.showPage()
    sheet.save()
    return path


def lines(*texts, x=72, y=700, step=14):
    def draw(sheet):
        for number, text in enumerate(texts):
            sheet.drawString(x, y - step * number, text)

    return draw


@pytest.mark.parametrize(("texts", "said"), [
    (["The instru-", "ment is well-", "known. No instrument is known so well."],
     "The instrument is well-known. No instrument is known so well."),
    (["An Anglo-", "Saxon with a P-", "7 and a USB-", "powered pump."],
     "An Anglo-Saxon with a P-7 and a USB-powered pump."),
    (["A re-entry, then a re-", "entry again."], "A re-entry, then a re-entry again."),
    (["In pre-", "and post-war times."], "In pre- and post-war times."),
    (["From 1914\u2013", "1918 at example.com/a-", "b it rained."],
     "From 1914\u20131918 at example.com/a-b it rained."),
    (["A \u2013", "dash stays."], "A \u2013 dash stays."),
])  # fmt: skip
def test_hyphens_at_line_ends(tmp_path, texts, said):
    assert text_of(drawn(tmp_path / "a.pdf", lines(*texts))).strip() == said


def test_paragraphs_and_words_go_on_over_a_page_end(tmp_path):
    found = list(
        pieces_of(drawn(tmp_path / "a.pdf", lines("The pump is a machi-"), lines("nery of its own kind.")), "a")
    )
    assert [(piece.place, piece.before, piece.text) for piece in found] == [
        ("page 1", "\n\n", "The pump is a machi"),
        ("page 2", "", "nery of its own kind."),
    ]


SCRIPTS = [("It holds 10", 12, 0), ("6", 7, 5), (" litres of H", 12, 0), ("2", 7, -2), ("O on the 5", 12, 0),
           ("th", 7, 5), (" day.", 12, 0)]  # fmt: skip


def test_powers_and_formulas_keep_their_scripts(tmp_path):
    def draw(sheet):
        text = sheet.beginText(72, 700)
        for word, size, rise in SCRIPTS:
            text.setFont("Helvetica", size)
            text.setRise(rise)
            text.textOut(word)
        sheet.drawText(text)

    assert text_of(drawn(tmp_path / "a.pdf", draw)).strip() == "It holds 10⁶ litres of H₂O on the 5th day."


@pytest.mark.parametrize("font", ["Helvetica", "Times-Roman", "Courier"])
def test_deep_subscripts_stay_in_their_words(tmp_path, font):
    """Paragraphs of reportlab set them half of the font size lower, and pdfium then says that the line ends."""
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Paragraph, SimpleDocTemplate

    said = "H<sub>2</sub>O and CO<sub>2</sub>, x<super>2</super>y and 10<super>6</super> mol of n<sub>max</sub>. " * 5
    style = ParagraphStyle("plain", fontName=font, fontSize=10, leading=12)
    SimpleDocTemplate(str(tmp_path / "a.pdf")).build([Paragraph(said, style)])
    assert " ".join(text_of(tmp_path / "a.pdf").split()) == " ".join(["H₂O and CO₂, x²y and 10⁶ mol of n_max."] * 5)


def test_tables_with_and_without_rules(tmp_path):
    from reportlab.platypus import SimpleDocTemplate, Table

    rows = [["Part", "Count", "Code"], ["Bolt", "12", "007"], ["Long nut", "", "NA"], ["Ring", "7", "N/A"]]
    said = "| Part | Count | Code |\n|---|---|---|\n| Bolt | 12 | 007 |\n| Long nut |  | NA |\n| Ring | 7 | N/A |"
    for style in ([("GRID", (0, 0), (-1, -1), 0.5, "black")], [("BOX", (0, 0), (-1, -1), 0.5, "black")], []):
        SimpleDocTemplate(str(tmp_path / "a.pdf")).build([Table(rows, style=style)])
        assert text_of(tmp_path / "a.pdf").strip() == said


@pytest.mark.parametrize("grid", [True, False])
def test_rows_of_a_table_over_pages_are_no_running_heads(tmp_path, grid):
    from reportlab.platypus import LongTable, SimpleDocTemplate

    def foot(canvas, page):
        canvas.setFont("Helvetica", 9)
        canvas.drawString(280, 30, f"Page {page.page}")

    rows = [["Time", "Temp."], *([f"{n // 6:02d}:{n % 6}0", f"{20 + n % 9}.{n % 6}"] for n in range(144))]
    table = LongTable(rows, repeatRows=1, style=[("GRID", (0, 0), (-1, -1), 0.5, "black")] if grid else [])
    SimpleDocTemplate(str(tmp_path / "a.pdf")).build([table], onFirstPage=foot, onLaterPages=foot)
    text = text_of(tmp_path / "a.pdf")
    assert re.findall(r"\| (\d\d:\d\d) \|", text) == [time for time, _ in rows[1:]]
    assert "Page" not in text
    assert text.count("Time") == (4 if grid else 0)  # without rules the head looks like a running one


def test_a_page_of_bare_numbers_brings_no_page_numbers_into_the_text():
    pages = [[(700.0, f"Words of page {'abcdef'[n]}."), (30.0, str(n + 5))] for n in range(6)]
    pages[3] = [*((700.0 - 14 * n, str(10 * n)) for n in range(1, 5)), (30.0, "8")]
    assert running(pages) == [{1}, {1}, {1}, set(), {1}, {1}]


def test_a_scanned_page_is_told_and_the_others_are_read(tmp_path):
    lost, first, second = pieces_of(papers.scan(tmp_path / "a.pdf", ["The first page.", "The second page."]), "a.pdf")
    assert lost.place == "page 3"
    assert "scanned page" in lost.reason
    assert "ocrmypdf" in lost.reason
    assert (first.text, second.place) == ("The first page.", "page 2")


def test_a_scanned_document_is_told(tmp_path):
    with pytest.raises(Unreadable, match="a scanned page without text"):
        list(pieces_of(papers.scan(tmp_path / "a.pdf", []), "a.pdf"))


def test_an_encrypted_and_a_broken_pdf_are_told(tmp_path):
    from reportlab.pdfgen import canvas

    sheet = canvas.Canvas(str(tmp_path / "locked.pdf"), encrypt="secret")
    sheet.drawString(72, 700, "Nobody reads this.")
    sheet.save()
    whole = drawn(tmp_path / "a.pdf", lines("Text.")).read_bytes()
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4\n" + whole[300:500])
    with pytest.raises(Unreadable, match="locked by a password"):
        list(pieces_of(tmp_path / "locked.pdf", "locked.pdf"))
    with pytest.raises(Unreadable, match="no PDF, or a damaged one"):
        list(pieces_of(tmp_path / "broken.pdf", "broken.pdf"))


def test_a_pdf_without_pages_of_text_has_none(tmp_path):
    assert list(pieces_of(drawn(tmp_path / "a.pdf", lambda sheet: None), "a.pdf")) == []


def test_a_turned_page_is_read(tmp_path):
    def draw(sheet):
        sheet.translate(300, 100)
        sheet.rotate(90)
        lines("The page is turned,", "and its lines are in order.", x=0, y=0)(sheet)

    assert text_of(drawn(tmp_path / "a.pdf", draw)).strip() == "The page is turned, and its lines are in order."


@pytest.mark.parametrize("columns", [2, 4])
def test_words_that_are_set_apart_to_fill_narrow_columns_are_no_table(tmp_path, columns):
    """Justified text, as word processors set it: two or three words a line, with wide gaps."""
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate, Paragraph

    width = (495 - 15 * (columns - 1)) / columns
    frames = [Frame(50 + n * (width + 15), 50, width, 740, 0, 0, 0, 0) for n in range(columns)]
    texts, style = papers.paragraphs(8, 10), ParagraphStyle("narrow", fontSize=10, leading=13, alignment=4)
    BaseDocTemplate(str(tmp_path / "a.pdf"), pageTemplates=[PageTemplate(frames=frames)]).build(
        [Paragraph(text, style) for text in texts]
    )
    text = text_of(tmp_path / "a.pdf")
    assert papers.recovered(" ".join(texts).split(), text) >= 0.995
    assert "|" not in text


def test_a_glyph_of_two_letters_divides_no_word():
    """LibreOffice draws "fi" as one glyph; pdfium tells of two letters in one place."""
    places = [(0.0, 5.0), (5.0, 12.0), (5.0, 12.0), (12.0, 17.0)]
    made = [Letter(ord(sign), left, right, 100.0, 10.0) for sign, (left, right) in zip("ofit", places, strict=True)]
    assert [run.text for run in runs_of(made, [])] == ["ofit"]


def test_lines_that_are_written_from_right_to_left(tmp_path):
    from matplotlib import get_data_path
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    pdfmetrics.registerFont(TTFont("DejaVu", f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"))
    said = ["שלום לכולם", "העיר ברן"]

    def draw(sheet):
        sheet.setFont("DejaVu", 12)
        for number, line in enumerate(said):
            sheet.drawString(300, 700 - 15 * number, line[::-1])

    assert text_of(drawn(tmp_path / "a.pdf", draw)).split() == " ".join(said).split()


def numbered(path, head, count=6, size=9):
    """Pages with a line at the top and paragraphs of print below it."""
    from reportlab.pdfgen import canvas

    sheet, texts = canvas.Canvas(str(path)), papers.paragraphs(11, count)
    for number, text in enumerate(texts, start=1):
        sheet.setFont("Helvetica", size)
        sheet.drawString(72, 790, head(number))
        sheet.setFont("Helvetica", 10)
        for row, line in enumerate(papers.set_lines(text, 400, hyphens=True)):
            sheet.drawString(72, 740 - 14 * row, line)
        sheet.showPage()
    sheet.save()
    return " ".join(texts).split()


@pytest.mark.parametrize("head", [
    lambda number: f"{['Valves', 'Pumps', 'Rings'][(number - 1) // 2]} of steel {number + 20}",
    lambda number: f"{number} Handbook" if number % 2 else f"Of pumps {number}",
    lambda number: ["i", "ii", "iii", "iv", "v", "vi"][number - 1],
])  # fmt: skip
def test_running_heads_that_change_from_page_to_page_are_left_out(tmp_path, head):
    words = numbered(tmp_path / "a.pdf", head)
    assert text_of(tmp_path / "a.pdf").split() == words


def test_titles_that_differ_by_their_number_stay(tmp_path):
    numbered(tmp_path / "a.pdf", "Exercise {}".format, size=16)
    assert re.findall(r"Exercise \d", text_of(tmp_path / "a.pdf")) == [f"Exercise {n}" for n in range(1, 7)]


def test_lines_that_were_broken_on_purpose_stay_apart(tmp_path):
    first, second = (
        "The program begins with a line that says its name and",
        "goes on with the names of all its friends.",
    )
    text = text_of(drawn(tmp_path / "a.pdf", lines(first, second, "begin", "say hello", "end", first, second)))
    assert text.strip() == f"{first} {second}\n\nbegin\nsay hello\nend\n{first} {second}"
