"""Slides, workbooks and e-books: every word in order, tables as Markdown, numbers as people see them."""

import datetime
import re
import zipfile

import pytest

import papers

pptx = pytest.importorskip("pptx", reason="pip install 'foci[documents]'")
openpyxl = pytest.importorskip("openpyxl", reason="pip install 'foci[documents]'")

from foci.documents import Lost, Unreadable, pieces_of  # noqa: E402

CONTAINER = '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'


def read(path):
    return list(pieces_of(path, path.name))


def texts(path):
    return [(piece.place, piece.text) for piece in read(path) if not isinstance(piece, Lost)]


def test_every_word_of_slides_is_read_in_order(tmp_path):
    deck, written = pptx.Presentation(), papers.paragraphs(6, 8)
    for number, text in enumerate(written, start=1):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = f"Topic {number}"
        slide.placeholders[1].text = text
    deck.save(tmp_path / "a.pptx")
    wanted = [
        pair for n, text in enumerate(written, 1) for pair in ((f"slide {n}", f"# Topic {n}"), (f"slide {n}", text))
    ]
    assert texts(tmp_path / "a.pptx") == wanted


def test_boxes_side_by_side_tables_notes_and_scripts_of_a_slide(tmp_path):
    from pptx.util import Inches

    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    for left, top, text in ((5, 3, "right"), (1, 3.1, "left"), (1, 5, "below")):
        slide.shapes.add_textbox(Inches(left), Inches(top), Inches(3), Inches(1)).text_frame.text = text
    paragraph = slide.shapes.add_textbox(Inches(1), Inches(6), Inches(3), Inches(1)).text_frame.paragraphs[0]
    for text, shift in (("10", None), ("6", "30000"), (" litres of H", None), ("2", "-25000"), ("O", None)):
        run = paragraph.add_run()
        run.text = text
        if shift:
            run._r.get_or_add_rPr().set("baseline", shift)
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(7), Inches(4), Inches(1)).table
    for (row, column), word in {(0, 0): "Part", (0, 1): "Code", (1, 0): "Bolt", (1, 1): "007"}.items():
        table.cell(row, column).text = word
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    deck.slides.add_slide(deck.slide_layouts[6])
    deck.save(tmp_path / "a.pptx")
    assert [text for _, text in texts(tmp_path / "a.pptx")] == [
        "left", "right", "below", "10⁶ litres of H₂O", "| Part | Code |\n|---|---|\n| Bolt | 007 |", "Say it slowly.",
    ]  # fmt: skip


def test_a_shape_without_an_outline_is_read(tmp_path):
    from pptx.util import Inches

    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    group = slide.shapes.add_group_shape()
    for shapes, text in ((slide.shapes, "Bern"), (group.shapes, "Biel")):
        shape = shapes.add_textbox(Inches(1), Inches(1), Inches(3), Inches(1))
        shape.text_frame.text = text
        del shape._element.nvSpPr.cNvSpPr.attrib["txBox"]
        shape._element.spPr.remove(shape._element.spPr.prstGeom)
        with pytest.raises(NotImplementedError):
            shape.shape_type  # noqa: B018
    empty = deck.slides.add_slide(deck.slide_layouts[6]).shapes.add_textbox(0, 0, 9, 9)
    del empty._element.nvSpPr.cNvSpPr.attrib["txBox"]
    empty._element.spPr.remove(empty._element.spPr.prstGeom)
    deck.save(tmp_path / "a.pptx")
    assert sorted(texts(tmp_path / "a.pptx")) == [("slide 1", "Bern"), ("slide 1", "Biel")]


def workbook(path, rows, **more):
    book = openpyxl.Workbook()
    book.active.title = "Parts"
    for row in rows:
        book.active.append(row)
    for name, state in more.items():
        sheet = book.create_sheet(name)
        sheet.append(["a", "b"])
        sheet.sheet_state = state
    book.save(path)
    return path


def test_cells_are_read_as_people_see_them(tmp_path):
    rows = [["Part", "Count", "Code", "Share", "Built", "Sold"],
            ["Bolt", 12, "007", 0.125, datetime.date(1987, 3, 1), True],
            ["NA", None, "N/A", 2.50, datetime.datetime(1987, 3, 1, 8, 30), "None"]]  # fmt: skip
    path = workbook(tmp_path / "a.xlsx", rows)
    book = openpyxl.load_workbook(path)
    book["Parts"]["D2"].number_format = "0.0%"
    book["Parts"]["B2"].number_format = "0000"
    book.save(path)
    assert texts(path) == [("sheet Parts, rows 2 to 3",
        "| Part | Count | Code | Share | Built | Sold |\n|---|---|---|---|---|---|\n"
        "| Bolt | 0012 | 007 | 12.5 % | 1987-03-01 | TRUE |\n"
        "| NA |  | N/A | 2.5 | 1987-03-01 08:30:00 | None |")]  # fmt: skip


@pytest.mark.parametrize(("value", "shown", "said"), [
    (0.125, "0%", "12.5 %"),
    (0.12345, "0.0%", "12.345 %"),
    (0.07, "0%", "7 %"),
    (0.125, "0.00%", "12.50 %"),
    (0.125, "0.00%;[Red]-0.00%", "12.50 %"),
    (-0.125, "0.0%;[Red]-0.0%", "-12.5 %"),
    (0.125, "0.0%_);\\(0.0%\\)", "12.5 %"),
    (1, "0%", "100 %"),
    (1 / 3, "0%", "33.3333333333333 %"),
    (12.5, '0.0"%"', "12.5"),
])  # fmt: skip
def test_shares_are_read_in_full_by_the_first_section_of_their_format(tmp_path, value, shown, said):
    path = workbook(tmp_path / "a.xlsx", [["Part", "Share"], ["Bolt", value]])
    book = openpyxl.load_workbook(path)
    book["Parts"]["B2"].number_format = shown
    book.save(path)
    assert texts(path)[0][1].splitlines()[2] == f"| Bolt | {said} |"


def resized(path, ref):
    """Writes a workbook again, with another size than its first sheet has."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    files[sheet] = re.sub(rb'<dimension ref="[^"]+"', f'<dimension ref="{ref}"'.encode(), files[sheet])
    assert f'"{ref}"'.encode() in files[sheet]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("ref", ["A1", "A1:XFD5000"])
def test_a_sheet_is_read_whole_whatever_size_it_states(tmp_path, ref):
    rows = [["Part", "Town", "Sum"], ["Bolt", "Bern"], ["Nut", "Biel", "=1+2"], [None] * 50, [None, "Chur"]]
    found = read(resized(workbook(tmp_path / "a.xlsx", rows), ref))
    assert found[0].text == (
        "| Part | Town | Sum |\n|---|---|---|\n| Bolt | Bern |  |\n| Nut | Biel |  |\n|  | Chur |  |"
    )
    assert found[1].reason.startswith("1 formulas without a stored result")


def test_a_long_sheet_has_its_head_above_each_part(tmp_path):
    rows = [["List of parts"], ["Part", "Town"], *([f"Part {n}", "Bern"] for n in range(200))]
    found = read(workbook(tmp_path / "a.xlsx", rows))
    title, *parts = [piece.text for piece in found]
    assert title == "List of parts"
    assert len(parts) > 3
    assert all(part.startswith("| Part | Town |\n|---|---|\n| Part ") for part in parts)
    assert [line for part in parts for line in part.splitlines()[2:]] == [f"| Part {n} | Bern |" for n in range(200)]
    assert all(piece.apart for piece in found)
    assert max(map(len, parts)) < 1000
    assert found[1].place.startswith("sheet Parts, rows 3 to ")


def test_hidden_sheets_and_formulas_without_result_are_told(tmp_path):
    path = workbook(tmp_path / "a.xlsx", [["Part", "Sum"], ["Bolt", "=1+2"]], Secret="hidden", Shown="visible")
    lost = [(one.place, one.reason) for one in read(path) if isinstance(one, Lost)]
    assert lost[0][0] == "sheet Parts"
    assert lost[0][1].startswith("1 formulas without a stored result")
    assert lost[1] == ("sheet Secret", "a hidden sheet; show it, or leave it out")
    assert [place for place, _ in texts(path)] == ["sheet Parts, row 2", "sheet Shown, row 1"]


def ebook(path, chapters, extra=(), guide=""):
    """An e-book; `chapters` are the bodies of its chapters, `guide` is that of an EPUB 2."""
    items = "".join(
        f'<item id="c{n}" href="text%20{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    nav = '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OEBPS/book.opf", f'<package><manifest>{nav}{items}</manifest>'
                         f'<spine><itemref idref="nav"/>{spine}'
                         f"</spine>{guide}</package>")  # fmt: skip
        archive.writestr("OEBPS/nav.xhtml", "<html><body><p>Contents</p></body></html>")
        for number, body in enumerate(chapters):
            if body is not None:
                head = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>T</title>'
                archive.writestr(f"OEBPS/text {number}.xhtml", f"{head}</head><body>{body}</body></html>")
        for name, content in extra:
            archive.writestr(name, content)
    return path


def test_every_word_of_a_book_is_read_in_order(tmp_path):
    written = papers.paragraphs(7, 12)
    path = ebook(tmp_path / "a.epub", [f"<h1>Chapter {n}</h1><p>{text}</p>" for n, text in enumerate(written)])
    wanted = [
        pair for n, text in enumerate(written) for pair in ((f"Chapter {n}", f"# Chapter {n}"), (f"Chapter {n}", text))
    ]
    assert texts(path) == wanted


def test_the_contents_of_an_older_book_are_no_chapter(tmp_path):
    guide = '<guide><reference type="toc" href="text%200.xhtml"/><reference type="text" href="text%201.xhtml"/></guide>'
    path = ebook(tmp_path / "a.epub", ["<p>Chapter one 3</p>", "<p>In the north.</p>"], guide=guide)
    assert [text for _, text in texts(path)] == ["In the north."]


def test_a_chapter_without_head_or_file_and_a_locked_book(tmp_path):
    path = ebook(tmp_path / "a.epub", ["<p>In the north.</p>", None, "<p>10<sup>6</sup> &amp; more.</p>"])
    first, lost, third = read(path)
    assert (first.place, first.text) == ("chapter 1", "In the north.")
    assert (lost.place, lost.reason) == ("chapter 2", "its file OEBPS/text 1.xhtml is not in the e-book; get it again")
    assert third.text == "10⁶ & more."
    lock = '<encryption><EncryptedData><EncryptionMethod Algorithm="{}"/></EncryptedData></encryption>'
    fonts = [("META-INF/encryption.xml", lock.format("http://www.idpf.org/2008/embedding"))]
    assert len(read(ebook(tmp_path / "b.epub", ["<p>Free.</p>"], fonts))) == 1
    whole = [("META-INF/encryption.xml", lock.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc"))]
    with pytest.raises(Unreadable, match="DRM"):
        read(ebook(tmp_path / "c.epub", ["<p>Locked.</p>"], whole))


@pytest.mark.parametrize(("charset", "declared"), [
    ("utf-16", True),
    ("utf-16", False),
    ("utf-8-sig", False),
    ("iso-8859-1", True),
])  # fmt: skip
def test_a_chapter_is_read_in_the_letters_that_it_names(tmp_path, charset, declared):
    head = f'<?xml version="1.0" encoding="{charset}"?>' if declared else ""
    page = f'{head}<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>Zürich</h1><p>Café au Löwen</p></body></html>'
    chapter = ("OEBPS/text 0.xhtml", page.encode(charset))
    assert texts(ebook(tmp_path / "a.epub", [None], [chapter])) == [
        ("Zürich", "# Zürich"), ("Zürich", "Café au Löwen"),
    ]  # fmt: skip


@pytest.mark.parametrize("ending", [".pptx", ".xlsx", ".epub"])
def test_what_is_no_such_file_is_told(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    for raw, reason in ((b"\xd0\xcf\x11\xe0" + bytes(600), "old Office document"), (b"PK\x03\x04", "cut or damaged"),
                        (b"Bern", "another kind of file"), (b"", "another kind of file")):  # fmt: skip
        path.write_bytes(raw)
        with pytest.raises(Unreadable, match=reason):
            read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    with pytest.raises(Unreadable, match="it holds no "):
        read(path)


def test_a_document_that_unpacks_to_too_much_is_refused(tmp_path):
    from foci.documents.pieces import check_archive

    path = workbook(tmp_path / "a.xlsx", [["a", "b"]])
    with pytest.raises(Unreadable, match=r"unpacks to [\d,]+ bytes, more than 1,000; split it"):
        check_archive(path, "an Excel workbook", "xl/workbook.xml", limit=1000)
