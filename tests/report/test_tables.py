"""One table, three forms: each escapes what its reader would take for markup."""

import io

import pytest
from rich.console import Console

from foci.report.tables import Code, Emphasis, Table, html, markdown, terminal

EVIL = "<b>a|b</b> *c* `d` [e](f) _g_\n\\"


def printed(table: Table, **how: object) -> str:
    console = Console(file=io.StringIO(), width=60)
    console.print(terminal(table, **how))
    return console.file.getvalue()


def test_markdown_escapes_all_that_would_be_read_as_markup() -> None:
    table = Table(["arm", "x"], [[EVIL, "1.0 [0.5, 1.5]"], [Emphasis("none"), Code("f(a|b)")], ["rec_adam", Code("`")]])
    assert markdown(table).splitlines() == [
        "| arm | x |",
        "|---|---:|",
        r"| &lt;b&gt;a\|b&lt;/b&gt; \*c\* \`d\` [e\](f) \_g\_ \\ | 1.0 [0.5, 1.5] |",
        r"| *none* | `f(a\|b)` |",
        "| rec_adam | `` ` `` |",
    ]


def test_html_escapes_and_marks_heads_and_text() -> None:
    found = html(Table(["arm", "methods", "x"], [[EVIL, Code("<i>"), Emphasis("&")]], "llr"))
    assert "<b>" not in found
    assert "&lt;b&gt;a|b&lt;/b&gt; *c* `d`" in found
    assert '<td class="text"><code>&lt;i&gt;</code></td><td><em>&amp;</em></td>' in found
    assert '<th scope="col">arm</th><th scope="col" class="text">methods</th>' in found


def test_the_terminal_reads_no_markup_and_breaks_the_first_column_alone() -> None:
    assert "[red]x" in printed(Table(["[red]x", "y"], [["a", "b"]]))
    long = printed(Table(["arm", "n"], [["word" * 30, "1" * 20]]), fold=6)
    assert max(map(len, long.splitlines())) <= 60
    assert "1" * 20 in long
    assert "─" in long
    assert "─" not in printed(Table(["arm"], [["a"]]), ruled=False)


@pytest.mark.parametrize(("rows", "align"), [([["a"]], ""), ([["a", "b"]], "l")])
def test_a_row_or_an_alignment_of_another_length_is_refused(rows: list[list[str]], align: str) -> None:
    with pytest.raises(ValueError, match="a table of 2 columns got 1 in"):
        Table(["x", "y"], rows, align)
