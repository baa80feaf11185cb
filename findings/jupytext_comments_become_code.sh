#!/usr/bin/env bash
# jupytext takes away the sign of comments that begin with cat, cd, copy, cp, echo, ls, mkdir, mv or rm: they become code
#
# Packages: jupytext==1.19.6
# Guess:    A script that is read as a notebook has the same code and the same comments in its cells; a comment of a plain
#           .py file was never a magic command, so nothing has to be put back. '# %matplotlib' may be an exception.
# Seen:     '# cat, the animal, is class 3' stays, '# cat is class 3' becomes the line 'cat is class 3' without the sign. So do
#           '# echo of the last line', '# ls is slow here', '# mv comes later', '# copy the list' and '# !important', also in
#           the middle of code, and in py:percent a question of one word, '# why?'. '# dog is class 4' stays, and so do indented
#           comments of such words. The cell is no valid Python any more, and no message is given. comment_magics=False in the
#           format keeps them. (magics.py: is_magic, uncomment_magic)
# Matters:  Code that is taught from scripts read as notebooks, or checked with ast.parse before it is taught, is broken where
#           somebody wrote such a comment; a sentence stands as code in the corpus.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet jupytext==1.19.6
venv/bin/python - <<'PY'
import ast
from importlib.metadata import version

import jupytext

lines = {  # a comment, and the formats in which it stays one
    "# cat, the animal, is class 3": "both", "# cat is class 3": "none", "# dog is class 4": "both",
    "# echo of the last line": "none", "# ls is slow here": "none", "# mv comes later": "none", "# copy the list": "none",
    "# time is short": "both", "# !important": "none", "# why?": "light", "# why so?": "both"}


def read(comment, form, **more):
    source = f"x = 1\n{comment}\ny = 2\n"
    text = f"# %%\n{source}" if form == "percent" else source
    (cell,) = jupytext.reads(text, {"extension": ".py", "format_name": form, **more}).cells
    assert cell.cell_type == "code"
    return cell.source


print("jupytext", version("jupytext"))
for comment, stays in lines.items():
    for form in ("percent", "light"):
        line = read(comment, form).split("\n")[1]
        print(f"{form}: {comment!r} -> {line!r}")
        assert (line == comment) == (stays in ("both", form))
        assert line == comment or line == comment.removeprefix("# ")
        assert read(comment, form, comment_magics=False) == f"x = 1\n{comment}\ny = 2"
indented = "if x:\n    # cat is class 3\n    x = 2"
assert jupytext.reads(f"# %%\n{indented}\n", "py:percent").cells[0].source == indented
broken = read("# cat is class 3", "percent")
try:
    ast.parse(broken)
except SyntaxError:
    print("no valid Python:", repr(broken))
else:
    raise AssertionError("is valid Python")
PY
