"""Word documents and web pages: headings, lists, tables and superscripts as Markdown, menus and heads left out."""

import pytest

import papers

docx = pytest.importorskip("docx", reason="pip install 'foci[test]'")
pytest.importorskip("mammoth", reason="pip install 'foci[documents]'")
pytest.importorskip("trafilatura", reason="pip install 'foci[documents]'")

from foci.documents import Lost, Unreadable, pieces_of  # noqa: E402
from foci.documents.encodings import decoded  # noqa: E402
from foci.documents.markup import pieces_of_tree, tree_of  # noqa: E402

FRAME = """<!DOCTYPE html><html><head><meta charset="{charset}"><title>Pumps - Wiki</title>
<script>var menu = 1;</script>
<style>p {{ color: red }}</style></head><body><nav><ul><li><a href="/">Start page</a></li></ul></nav>
<div id="main">{body}</div><footer><p>Imprint and privacy policy</p></footer></body></html>"""


def read(path):
    return list(pieces_of(path, path.name))


def text_of(path):
    return "".join(piece.before + piece.text for piece in read(path)).strip()


def handbook():
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = papers.HEAD
    document.sections[0].footer.paragraphs[0].text = "Page 1"
    return document


def test_every_word_of_a_word_document_is_read_in_order(tmp_path):
    document, texts = handbook(), papers.paragraphs(4)
    for text in texts:
        document.add_paragraph(text)
    document.save(tmp_path / "a.docx")
    assert text_of(tmp_path / "a.docx") == "\n\n".join(texts)


def test_a_word_document_is_markdown_below_its_headings(tmp_path):
    document = handbook()
    document.add_heading("Pumps", 1)
    paragraph = document.add_paragraph("The tank holds 10")
    paragraph.add_run("6").font.superscript = True
    paragraph.add_run(" litres of H")
    paragraph.add_run("2").font.subscript = True
    paragraph.add_run("O.\u00ad")
    document.add_heading("Parts", 2)
    for style in ("List Bullet", "List Number"):
        for item in ("open", "close"):
            document.add_paragraph(item, style=style)
    table = document.add_table(2, 2)
    for row, words in zip(table.rows, (("Part", "Code"), ("Bolt | nut", "007")), strict=True):
        for cell, word in zip(row.cells, words, strict=True):
            cell.text = word
    document.save(tmp_path / "a.docx")
    assert [(piece.place, piece.before, piece.text) for piece in read(tmp_path / "a.docx")] == [
        ("Pumps", "\n\n", "# Pumps"),
        ("Pumps", "\n\n", "The tank holds 10⁶ litres of H₂O."),
        ("Pumps > Parts", "\n\n", "## Parts"),
        ("Pumps > Parts", "\n\n", "- open"),
        ("Pumps > Parts", "\n", "- close"),
        ("Pumps > Parts", "\n\n", "1. open"),
        ("Pumps > Parts", "\n", "2. close"),
        ("Pumps > Parts", "\n\n", "| Part | Code |\n|---|---|\n| Bolt \\| nut | 007 |"),
    ]


def test_equations_of_a_word_document_are_told(tmp_path):
    from docx.oxml import parse_xml

    document = handbook()
    paragraph = document.add_paragraph("The law is ")
    space = "http://schemas.openxmlformats.org/officeDocument/2006/math"
    paragraph._p.append(parse_xml(f'<m:oMath xmlns:m="{space}"><m:r><m:t>E=mc</m:t></m:r></m:oMath>'))
    document.save(tmp_path / "a.docx")
    lost, said = read(tmp_path / "a.docx")
    assert isinstance(lost, Lost)
    assert "equations" in lost.reason
    assert said.text == "The law is"


@pytest.mark.parametrize(("raw", "reason"), [
    (b"\xd0\xcf\x11\xe0" + bytes(600), "an old Office document or an encrypted one, not a Word document"),
    (b"PK\x03\x04" + bytes(600), "cut or damaged"),
    (b"{\\rtf1 Bern}", "another kind of file"),
])  # fmt: skip
def test_what_is_no_word_document_is_told(tmp_path, raw, reason):
    (tmp_path / "a.docx").write_bytes(raw)
    with pytest.raises(Unreadable, match=reason):
        read(tmp_path / "a.docx")


def test_every_word_of_a_page_is_read_in_order(tmp_path):
    texts = papers.paragraphs(5)
    body = "<h1>Pumps</h1>" + "".join(f"<p>{text.replace(' the ', ' <b>the</b> ')}</p>" for text in texts)
    (tmp_path / "a.html").write_text(FRAME.format(charset="utf-8", body=body), encoding="utf-8")
    assert text_of(tmp_path / "a.html") == "\n\n".join(["# Pumps", *texts])


def test_a_page_is_markdown_below_its_headings(tmp_path):
    body = """<h1>Pumps</h1><p>The tank of the pump holds 10<sup>6</sup> litres of H<sub>2</sub>O,
    and it is<br>always full. Nobody has seen it empty since the day on which it was built, in 1987.</p><h2>Parts</h2>
    <ul><li>open <i>all</i> valves<ul><li>slowly</li></ul></li><li>close them</li></ul>
    <table><tr><th>Part</th><th>Code</th></tr><tr><td>Bolt</td><td>007</td></tr></table><pre>pump  --start</pre>"""
    (tmp_path / "a.htm").write_text(FRAME.format(charset="utf-8", body=body), encoding="utf-8")
    assert [(piece.place, piece.text) for piece in read(tmp_path / "a.htm")] == [
        ("Pumps", "# Pumps"),
        ("Pumps", "The tank of the pump holds 10⁶ litres of H₂O, and it is\nalways full. Nobody has seen it empty "
         "since the day on which it was built, in 1987."),
        ("Pumps > Parts", "## Parts"),
        ("Pumps > Parts", "- open all valves"),
        ("Pumps > Parts", "  - slowly"),
        ("Pumps > Parts", "- close them"),
        ("Pumps > Parts", "| Part | Code |\n|---|---|\n| Bolt | 007 |"),
        ("Pumps > Parts", "```\npump  --start\n```"),
    ]  # fmt: skip


def test_a_page_whose_text_a_script_writes_is_told(tmp_path):
    body = '<div id="root"></div><script>document.write("Bern")</script><noscript>Turn it on.</noscript>'
    (tmp_path / "a.html").write_text(f"<html><head><title>App</title></head><body>{body}</body></html>")
    with pytest.raises(Unreadable, match="scripts write it"):
        read(tmp_path / "a.html")


@pytest.mark.parametrize("content", ["", "  \n", "<html></html>", "<p></p>"])
def test_an_empty_page_has_no_text(tmp_path, content):
    (tmp_path / "a.html").write_text(content)
    assert read(tmp_path / "a.html") == []


JIS = '<meta charset="iso-2022-jp">東京'
KOI = '<meta charset="koi8-r">Москва'
XML = '<?xml version="1.0" encoding="windows-1251"?><html><body><p>Москва</p></body></html>'


@pytest.mark.parametrize(("raw", "text"), [
    ("Zürich".encode(), "Zürich"),
    ("Zürich".encode("utf-16"), "Zürich"),
    ("Zürich “x”".encode("cp1252"), "Zürich “x”"),
    (b'<meta charset="iso-8859-1">' + "Zürich “x”".encode("cp1252"), '<meta charset="iso-8859-1">Zürich “x”'),
    (KOI.encode("koi8-r"), KOI),
    (XML.encode("cp1251"), XML),
    (XML.replace("Москва", "Zürich").encode("utf-8"), XML.replace("Москва", "Zürich")),
    (f'<?xml version="1.0" encoding="utf-8"?>{KOI}'.encode("koi8-r"), f'<?xml version="1.0" encoding="utf-8"?>{KOI}'),
    ("<?xml?>Zürich".encode("utf-16-le"), "<?xml?>Zürich"),
    (JIS.encode("iso-2022-jp"), JIS),
    (JIS.replace("東京", "\x1b[0m").encode(), JIS.replace("東京", "\x1b[0m")),
    ("Zürich".encode("utf-32"), "Zürich"),
    ("Zürich".encode("utf-8-sig") + b"\xff", "Zürich\ufffd"),
    *((f'<meta charset="{name}">Zürich'.encode("cp1252"), f'<meta charset="{name}">Zürich')
      for name in ("base64", "rot13", "utf-16", "cp037", "idna", "unicode_escape", "undefined", "nonsense")),
])  # fmt: skip
def test_the_letters_of_a_page_are_read_as_a_browser_reads_them(raw, text):
    assert decoded(raw) == text


def test_a_page_with_an_xml_declaration_is_read_in_its_letters(tmp_path):
    (tmp_path / "a.xhtml").write_bytes(XML.encode("cp1251"))
    assert text_of(tmp_path / "a.xhtml") == "Москва"


@pytest.mark.parametrize(("body", "said"), [
    ("<tr><td rowspan=2 colspan=2>AB</td><td>c1</td></tr><tr><td>c2</td></tr><tr><td>a<td>b<td>c</tr>",
     ["AB,,c1", "AB,,c2", "a,b,c"]),
    ("<tr><th>Part<th>Town</tr><tr><td>Bolt<td rowspan=2>Bern</tr><tr><td>Nut</tr><tr><td>Ring<td>Biel</tr>",
     ["Part,Town", "Bolt,Bern", "Nut,Bern", "Ring,Biel"]),
    ("<tr><td>a<td>b<td rowspan=2>c</tr><tr><td>d</tr>", ["a,b,c", "d,,c"]),
    ("<tr><td rowspan=2>a<td rowspan=2>b</tr><tr></tr><tr><td>c<td>d</tr>", ["a,b", "c,d"]),
    ("<tr><td>a<td rowspan=2>b</tr><tr><td colspan=2></tr><tr><td>c<td rowspan='²'>d</tr>", ["a,b", ",b", "c,d"]),
    ("<tr><td rowspan=150>Bern<td>0</tr>" + "".join(f"<tr><td>{n}</tr>" for n in range(1, 150)),
     [f"Bern,{n}" for n in range(150)]),
])  # fmt: skip
def test_cells_over_rows_and_columns_keep_the_others_in_their_columns(body, said):
    (piece,) = pieces_of_tree(tree_of(f"<table>{body}</table>"))
    first, _, *rest = piece.text.splitlines()
    assert [line.strip("| ") for line in (first, *rest)] == [
        " | ".join(row.split(",")).strip("| ") for row in said
    ]  # fmt: skip


def test_merged_cells_of_a_word_document(tmp_path):
    document = handbook()
    table = document.add_table(3, 4)
    for row, words in zip(table.rows, (("AB", "", "c1", "Bern"), ("", "", "c2", ""), "abcd"), strict=True):
        for cell, word in zip(row.cells, words, strict=True):
            cell.text = word
    table.cell(0, 0).merge(table.cell(1, 1))
    table.cell(0, 3).merge(table.cell(1, 3))
    document.save(tmp_path / "a.docx")
    assert text_of(tmp_path / "a.docx") == (
        "| AB |  | c1 | Bern |\n|---|---|---|---|\n| AB |  | c2 | Bern |\n| a | b | c | d |"
    )


def test_code_keeps_its_lines_and_has_no_scripts_in_it():
    code = "<b>pip</b> install foci<br>foci <!-- or -->learn texts/<script>x = 1</script><button>Copy</button>\n  end"
    (piece,) = pieces_of_tree(tree_of(f"<pre>{code}</pre>"))
    assert piece.text == "```\npip install foci\nfoci learn texts/\n  end\n```"


def test_code_beside_the_numbers_of_its_lines():
    lines = "<td class='linenos'><pre>1\n2</pre></td><td class='code'><pre>if a:\n    b()</pre></td>"
    (piece,) = pieces_of_tree(tree_of(f"<table><tr>{lines}</tr></table>"))
    assert piece.text == "```\nif a:\n    b()\n```"
    (piece,) = pieces_of_tree(tree_of("<table><tr><td><pre>a</pre></td><td><pre>b</pre></td></tr></table>"))
    assert "| a |" in piece.text.replace("``` a ```", "a"), "two pieces of code are a table"


def test_a_table_in_a_cell_of_a_table_of_data():
    inner = "<table><tr><td>seal</td><td>2</td></tr><tr><td>ring</td><td>4</td></tr></table>"
    rows = f"<tr><th>Pump</th><th>Parts</th></tr><tr><td>P-7</td><td>{inner}</td></tr><tr><td>P-8</td><td>-</td></tr>"
    (piece,) = pieces_of_tree(tree_of(f"<table>{rows}</table>"))
    assert piece.text == "| Pump | Parts |\n|---|---|\n| P-7 | seal, 2; ring, 4 |\n| P-8 | - |"
    page = f"<tr><td>logo</td><td>title</td></tr><tr><td>Home</td><td><h1>Works</h1><p>It is.</p>{inner}</td></tr>"
    said = [piece.text for piece in pieces_of_tree(tree_of(f"<table>{page}</table>"))]
    assert said == ["logo", "title", "Home", "# Works", "It is.", "| seal | 2 |\n|---|---|\n| ring | 4 |"]


def test_the_words_of_a_heading_may_stand_on_a_button():
    pieces = pieces_of_tree(tree_of("<h2><button>How long?</button></h2><p>Five years.<button>Copy</button></p>"))
    assert [piece.text for piece in pieces] == ["## How long?", "Five years."]


@pytest.mark.parametrize("tag", ["section", 'div class="section"'])
@pytest.mark.parametrize("name", ["cookies", "related-work", "share", "footer-1"])
def test_a_section_whose_id_is_its_heading_is_no_menu(tmp_path, tag, name):
    head = name.rstrip("-1").replace("-", " ").capitalize()
    said = "Quarry sets one cookie, called qsession, which lives for nine hours and holds no name at all."
    part = f'<{tag} id="{name}"><h2>{head}</h2><p>{said}</p></{tag.split()[0]}>'
    texts = [f"<p>{text}</p>" for text in papers.paragraphs(12, 5)]
    body = "".join([*texts[:6], part, f'<h2 id="{name}">{head}</h2>', *texts[6:]])
    (tmp_path / "a.html").write_text(FRAME.format(charset="utf-8", body=body))
    assert f"## {head}\n\n{said}" in text_of(tmp_path / "a.html")
    assert text_of(tmp_path / "a.html").count(f"## {head}") == 2


WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def test_numbers_of_a_word_list_go_on_after_a_note(tmp_path):
    import docx

    document = docx.Document()
    for step in ("A", "B"):
        document.add_paragraph(f"Step {step}", style="List Number")
        document.add_paragraph("Wait.")
    document.add_paragraph("Look here", style="List Bullet")
    document.add_paragraph("Step C", style="List Number")
    document.save(tmp_path / "a.docx")
    said = ["1. Step A", "Wait.", "2. Step B", "Wait.", "- Look here", "3. Step C"]
    assert text_of(tmp_path / "a.docx").replace("\n\n", "\n").split("\n") == said


def test_items_that_are_deleted_or_in_a_box_do_not_count(tmp_path):
    import docx
    from docx.oxml import parse_xml

    document = docx.Document()
    one, gone, _ = (document.add_paragraph(name, style="List Number") for name in ("a", "x", "b"))
    gone._p.get_or_add_pPr().append(parse_xml(f"<w:rPr {WORD}><w:del w:id='1' w:author='A'/></w:rPr>"))
    for run in list(gone._p.r_lst):
        deleted = parse_xml(f"<w:del {WORD} w:id='2' w:author='A'/>")
        run.getparent().replace(run, deleted)
        deleted.append(run)
    again = "http://schemas.openxmlformats.org/markup-compatibility/2006"
    item = '<w:p><w:pPr><w:pStyle w:val="ListNumber"/></w:pPr><w:r><w:t>boxed</w:t></w:r></w:p>'
    choice, fallback = f'<mc:Choice Requires="wps">{item}</mc:Choice>', f"<mc:Fallback>{item}</mc:Fallback>"
    one._p.append(parse_xml(f'<w:r {WORD}><mc:AlternateContent xmlns:mc="{again}">{choice}{fallback}'
                            "</mc:AlternateContent></w:r>"))  # fmt: skip
    document.save(tmp_path / "a.docx")
    assert text_of(tmp_path / "a.docx") == "1. a\n  2. boxed\n3. b"


def test_text_around_a_table_of_contents_stays(tmp_path):
    import docx
    from docx.oxml import parse_xml

    document = docx.Document()
    kind = '<w:sdtPr><w:docPartObj><w:docPartGallery w:val="{}"/></w:docPartObj></w:sdtPr>'
    said = "<w:sdtContent><w:p><w:r><w:t>{}</w:t></w:r></w:p>{}</w:sdtContent>"
    contents = f"<w:sdt>{kind.format('Table of Contents')}{said.format('Pumps 3', '')}</w:sdt>"
    whole = f"<w:sdt {WORD}>{kind.format('Cover Pages')}{said.format('All the text.', contents)}</w:sdt>"
    document.element.body.insert(0, parse_xml(whole))
    document.save(tmp_path / "a.docx")
    assert text_of(tmp_path / "a.docx") == "All the text."


def test_the_items_of_numbered_lists_of_a_web_page():
    (*pieces,) = pieces_of_tree(tree_of("<ol><li>a</li><li value='7'>b</li><li>c</li></ol><ol><li>d</li></ol>"))
    assert [piece.text for piece in pieces] == ["1. a", "7. b", "8. c", "1. d"]
    assert [piece.before for piece in pieces][1:] == ["\n", "\n", "\n\n"]


def test_fields_ruby_text_and_page_breaks_of_a_word_document(tmp_path):
    import docx
    from docx.enum.text import WD_BREAK
    from docx.oxml import parse_xml

    document = docx.Document()
    one = document.add_paragraph("Table ")
    one._p.append(parse_xml(f'<w:fldSimple {WORD} w:instr="SEQ Table"><w:r><w:t>4</w:t></w:r></w:fldSimple>'))
    one.add_run(": limits")
    two = document.add_paragraph("In ")
    ruby = "<w:rt><w:r><w:t>to</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>東</w:t></w:r></w:rubyBase>"
    two._p.append(parse_xml(f"<w:r {WORD}><w:ruby>{ruby}</w:ruby></w:r>"))
    three = document.add_paragraph("before")
    three.add_run().add_break(WD_BREAK.PAGE)
    three.add_run("after")
    document.save(tmp_path / "a.docx")
    assert text_of(tmp_path / "a.docx").split("\n\n") == ["Table 4: limits", "In 東", "before after"]


WIKI = {
    "open": "<details><summary>How to open</summary><p>Turn the wheel.</p></details>",
    "boxes": "<figure class='callout'><div>Never run it dry.</div></figure><aside><p>Nor wet.</p></aside>",
    "panel": "<div class='panel'><div><p>It opens at 42 bar.</p></div></div>",
    "terms": "<dl><dt>RPM</dt><dd>Turns a minute.</dd></dl>",
    "caption": "<figure><img src='x.png'/><figcaption>Figure 3: the rotor.</figcaption></figure>",
    "tasks": "<ul><li><input type='checkbox'/> Order the ring.</li><li>Call Ada.</li></ul>",
    "links": "<ul><li><a href='/a'>Rotor page</a></li><li><a href='/b'>Seal page</a></li></ul>",
    "code": "<p>Set <code>max_bar = 7</code> in it.</p>",
    "short": "<p>No.</p>",
    "formula": "<p>The law is <math><mi>E</mi><mo>=</mo><mi>m</mi></math> here.</p>",
    "bare": "<div>Bare text of a page.</div>",
}


SAID = ["How to open Turn the wheel.", "Never run it dry. Nor wet.", "It opens at 42 bar.", "RPM Turns a minute.",
        "Figure 3: the rotor.", "- Order the ring. - Call Ada.", "- Rotor page - Seal page", "Set max_bar = 7 in it.",
        "No.", "The law is E=m here.", "Bare text of a page."]  # fmt: skip


def test_what_wikis_write_beside_paragraphs_is_read(tmp_path):
    prose = "<p>The {} of the north station was built in Bern in 1987, and it moves a lot of water every day.</p>"
    body = "<h1>Pumps</h1>" + "".join(f"<h2>{name}</h2>{part}{prose.format(name)}" for name, part in WIKI.items())
    (tmp_path / "a.html").write_text(FRAME.format(charset="utf-8", body=body))
    text = " ".join(text_of(tmp_path / "a.html").split())
    for said in SAID:
        assert f" {said} The" in text, said
    assert "Start page" not in text
    assert "Imprint" not in text


def test_menus_and_lists_of_links_are_left_out(tmp_path):
    links = "".join(f'<li><a href="/{n}">Topic number {n}</a></li>' for n in range(5))
    texts = papers.paragraphs(12, 5)
    body = f'<div class="sidebar-left"><p>Search here.</p></div><ul>{links}</ul>' + "".join(
        f"<p>{t}</p>" for t in texts
    )
    (tmp_path / "a.html").write_text(FRAME.format(charset="utf-8", body=body))
    assert text_of(tmp_path / "a.html") == "\n\n".join(["# Pumps - Wiki", *texts])


@pytest.mark.parametrize("body", [
    '<div class="with-sidebar"><div>Bern lies on the Aare.</div></div>',
    "Bern lies on the Aare.",
    '<table><tr><td><table><tr><td>Bern lies</td></tr></table></td></tr></table>on the Aare.',
])  # fmt: skip
def test_a_page_of_few_words_is_read_whole(tmp_path, body):
    (tmp_path / "a.html").write_text(f"<html><body>{body}</body></html>")
    assert text_of(tmp_path / "a.html").split() == ["Bern", "lies", "on", "the", "Aare."]
