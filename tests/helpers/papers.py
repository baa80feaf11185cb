"""Documents of known text, made by real writers.

words = papers.prose(seed).split()                     # what must be read
papers.pdf(path, papers.paragraphs(seed), columns=2)   # what is written: lines of print, with hyphens and heads
papers.recovered(words, text)                          # share of the words that were read, in order
"""

import difflib
import io
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path

NOUNS = [
    "valve",
    "pump",
    "instrument",
    "pressure",
    "temperature",
    "manual",
    "handbook",
    "regulation",
    "inspection",
    "cylinder",
    "membrane",
    "container",
    "operator",
    "assembly",
    "procedure",
    "maintenance",
    "lubrication",
    "ventilation",
    "combustion",
    "direction",
    "station",
    "bearing",
    "compressor",
    "generator",
    "laboratory",
    "measurement",
    "calibration",
    "specification",
    "installation",
    "department",
]
VERBS = [
    "opens",
    "closes",
    "measures",
    "regulates",
    "requires",
    "exceeds",
    "indicates",
    "protects",
    "connects",
    "separates",
    "replaces",
]
SMALL = ["the", "a", "this", "every", "one", "each", "its", "their", "another", "that"]
MARKED = [
    "well-known",
    "self-made",
    "Anglo-Saxon",
    "P-7",
    "USB-powered",
    "three-way",
    "24-hour",
    "Zürich-based",
    "right-handed",
]
"""Compounds whose hyphen must stay; those of two plain words have both words elsewhere in the text."""
PLAIN = ["known", "made", "powered", "three", "way", "hour", "based", "right", "handed"]
HEAD, FOOT = "Handbook of pumps and valves", "Page {} of {}"
BREAKS = {
    "instrument": "instru-ment", "pressure": "pres-sure", "temperature": "tempera-ture", "regulation": "regu-lation",
    "inspection": "inspec-tion", "cylinder": "cylin-der", "membrane": "mem-brane", "container": "con-tainer",
    "operator": "opera-tor", "assembly": "assem-bly", "procedure": "proce-dure", "maintenance": "mainte-nance",
    "lubrication": "lubri-cation", "ventilation": "venti-lation", "combustion": "combus-tion", "station": "sta-tion",
    "compressor": "com-pressor", "generator": "gener-ator", "laboratory": "labora-tory", "department": "depart-ment",
    "measurement": "measure-ment", "calibration": "cali-bration", "specification": "specifi-cation",
    "installation": "instal-lation", "requires": "re-quires", "indicates": "indi-cates", "protects": "pro-tects",
    "separates": "sepa-rates", "regulates": "regu-lates", "measures": "meas-ures", "handbook": "hand-book",
}  # fmt: skip


def paragraphs(seed: int = 0, count: int = 24) -> list[str]:
    """Paragraphs of sentences about pumps, the same for a seed."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        sentences = []
        for _ in range(draw.randint(3, 6)):
            words = []
            for _ in range(draw.randint(3, 6)):
                words += [draw.choice(SMALL), draw.choice(NOUNS), draw.choice(VERBS)]
                if draw.random() < 0.25:
                    words.append(draw.choice(MARKED))
                if draw.random() < 0.25:
                    words.append(draw.choice(PLAIN))
            words.append(str(draw.randint(2, 2000)))
            sentences.append(f"{' '.join(words).capitalize() if not words[0][0].isupper() else ' '.join(words)}.")
        made.append(" ".join(sentences) if number else f"Number {seed} begins here. {' '.join(sentences)}")
    return [_kept(text) for text in made]


def _kept(text: str) -> str:
    """Gives the compounds back the capitals that `capitalize` took."""
    for word in MARKED:
        text = text.replace(f" {word.lower()} ", f" {word} ")
    return text


def recovered(words: Sequence[str], text: str) -> float:
    """The share of the words that a text holds in this order, 0 to 1."""
    blocks = difflib.SequenceMatcher(None, words, text.split(), autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(words)


def pdf(path: Path, texts: Sequence[str], columns: int = 1, interleaved: bool = False, hyphens: bool = True) -> Path:
    """Writes lines of print: justified by no one, divided words, a running head and page numbers.

    `interleaved` writes the first line of each column, then the second, as some typesetters do.
    """
    from reportlab.lib.pagesizes import A4
    from reportlab.pdfgen import canvas

    width = (A4[0] - 100 - 18 * (columns - 1)) / columns
    lines = [line for text in texts for line in [*set_lines(text, width, hyphens), ""]]
    rows = 52
    pages = [lines[n : n + rows * columns] for n in range(0, len(lines), rows * columns)]
    page = canvas.Canvas(str(path), pagesize=A4)
    for number, held in enumerate(pages, start=1):
        page.setFont("Helvetica", 8)
        page.drawString(50, A4[1] - 30, HEAD)
        page.drawRightString(A4[0] - 50, A4[1] - 30, f"Chapter {number}")
        page.drawCentredString(A4[0] / 2, 25, FOOT.format(number, len(pages)))
        page.setFont("Helvetica", 10)
        places = [(n // rows, n % rows, line) for n, line in enumerate(held)]
        for column, row, line in sorted(places, key=lambda place: place[1]) if interleaved else places:
            page.drawString(50 + column * (width + 18), A4[1] - 70 - 13.5 * row, line)
        page.showPage()
    page.save()
    return path


def set_lines(text: str, width: float, hyphens: bool) -> list[str]:
    """Lines of at most `width` points; words are divided where the next line would begin with them."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    lines, line = [], ""
    for word in text.split():
        wanted = f"{line} {word}".strip()
        if stringWidth(wanted, "Helvetica", 10) <= width:
            line = wanted
            continue
        core = word.rstrip(".")
        divided = BREAKS.get(core.lower(), core)
        head, mark, tail = divided.partition("-")
        if hyphens and mark and stringWidth(f"{line} {head}-", "Helvetica", 10) <= width:
            head, tail = core[: len(head)], (word[len(head) + 1 :] if "-" in core else word[len(head) :])
            lines.append(f"{line} {head}-".strip())
            line = tail
        else:
            lines.append(line)
            line = word
    return [*lines, line]


def scan(path: Path, texts: Sequence[str]) -> Path:
    """Writes one page for each text, and after them a page as a scanner makes it: a picture without text."""
    from matplotlib import image
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen import canvas

    page = canvas.Canvas(str(path))
    for text in texts:
        page.drawString(72, 700, text)
        page.showPage()
    picture = io.BytesIO()
    image.imsave(picture, [[0.5, 0.6], [0.7, 0.8]], format="png")
    page.drawImage(ImageReader(picture), 0, 0, 595, 842)
    page.save()
    return path


def word(path: Path, texts: Sequence[str]) -> Path:
    """Writes a Word document with a head and a foot on its pages."""
    import docx

    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = HEAD
    document.sections[0].footer.paragraphs[0].text = FOOT
    for text in texts:
        document.add_paragraph(text)
    document.save(str(path))
    return path


def page(path: Path, texts: Sequence[str]) -> Path:
    """Writes a web page with a menu and a foot."""
    body = "".join(f"<p>{text}</p>" for text in texts)
    path.write_text(
        f"<!DOCTYPE html><html><head><title>Pumps</title></head><body><nav><a href='/'>{HEAD}</a></nav>"
        f"<main>{body}</main><footer>{FOOT}</footer></body></html>",
        encoding="utf-8",
    )
    return path


def slides(path: Path, texts: Sequence[str]) -> Path:
    """Writes a slide for each text."""
    import pptx

    deck = pptx.Presentation()
    for text in texts:
        deck.slides.add_slide(deck.slide_layouts[1]).placeholders[1].text = text
    deck.save(str(path))
    return path


def workbook(path: Path, texts: Sequence[str]) -> Path:
    """Writes a sheet with a text in each line."""
    import openpyxl

    book = openpyxl.Workbook()
    for number, text in enumerate(["text", *texts]):
        book.active.append([number or "number", text])
    book.save(path)
    return path


def ebook(path: Path, texts: Sequence[str]) -> Path:
    """Writes a chapter for each text."""
    items = "".join(f'<item id="c{n}" href="{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(texts)))
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(texts)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", '<container><rootfile full-path="b/book.opf"/></container>')
        archive.writestr("b/book.opf", f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>")
        for number, text in enumerate(texts):
            archive.writestr(f"b/{number}.xhtml", f"<html><body><p>{text}</p></body></html>")
    return path


WRITERS = {".pdf": pdf, ".docx": word, ".html": page, ".pptx": slides, ".xlsx": workbook, ".epub": ebook}
"""A writer for the files of each ending."""
