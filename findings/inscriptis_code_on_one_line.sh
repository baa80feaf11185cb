#!/usr/bin/env bash
# inscriptis writes a code block on one line where <code> stands in <pre>, as every Markdown page has it
#
# Packages: inscriptis==2.7.6
# Guess:    get_text keeps line breaks and indentation of <pre>, whatever elements stand in it: it says that it knows the layout
#           of a page, and "white-space: pre" is handed down to inner elements in every browser.
# Seen:     <pre> alone keeps its lines. In <pre><code> four lines of Python become 'def f(x): return x print(f(5))', three
#           commands of a shell one command; the strict profile does the same. Each inner element is read as ordinary text
#           (<span> and <b> too), because a new element has "normal" white space and not none, so that the rule "not set, so
#           inherit" never holds (get_refined_html_element in model/html_element.py). Beside it, <dt> and <dd> of a glossary
#           are not known as blocks: without line breaks in the source, 'ValveopensPumpruns'. Nothing is said.
# Matters:  Code and commands of documentation are learned without their lines; Python without indentation is not Python, and
#           '# comment' swallows what comes behind it. A test page with a bare <pre> shows no fault.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet inscriptis==2.7.6
venv/bin/python - <<'PY'
from importlib.metadata import version

from inscriptis import get_text
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig

strict = ParserConfig(css=CSS_PROFILES["strict"].copy())
python = "def f(x):\n    return x\n\nprint(f(5))"
shell = "cd foci  # the folder\nmake\nmake test"
print("inscriptis", version("inscriptis"))
for code in (python, shell):
    bare, marked = (get_text(f"<p>Run this:</p><pre>{inner}</pre>") for inner in (code, f"<code>{code}\n</code>"))
    print(repr(bare), repr(marked))
    assert code in bare
    assert " ".join(code.split()) in marked and len(marked.strip().split("\n\n")) == 2
    assert get_text(f"<p>Run this:</p><pre><code>{code}\n</code></pre>", strict) == marked
coloured = get_text("<pre>if x:\n    <span>y = 1\n    z = 2</span>\n</pre>")
print(repr(coloured))
assert "y = 1 z = 2" in coloured
glossary = get_text("<dl><dt>Valve</dt><dd>opens</dd><dt>Pump</dt><dd>runs</dd></dl>")
print(repr(glossary))
assert glossary.strip() == "ValveopensPumpruns"
PY
