#!/usr/bin/env bash
# inspect_ai's exact() and f1() take -5 for 5, and 1e-3 is not .001
#
# Packages: inspect-ai==0.3.285
# Guess:    exact() evens out case, articles, punctuation and forms of a number: 1.50 is 1.5, and 1e3 is 1000. Another number
#           is wrong, -5 for 5 as well as 15 for 1.5, and 1e-3 is .001.
# Seen:     exact() says that -5 is right where 5 is asked, and -1.5 where 1.5 is, and f1() gives 1.0. 15 for 1.5 is told apart.
#           A text is split at each hyphen before its parts are looked at as numbers, so that no number has a minus. For the
#           same reason the right answer 1e-3 is wrong where .001 is asked (f1 is 0), while 1e3 is right for 1000.
#           match(numeric=True) tells -5 from 5, and knows 1e-3. Nothing says that a sign was dropped.
# Matters:  Temperatures, changes and balances of somebody's pages are scored right with the wrong sign, a common error of small
#           models, and learning rates and tolerances are scored wrong. (scorer/_classification.py: _tokenize)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet inspect-ai==0.3.285
venv/bin/python - <<'PY'
import asyncio
from importlib.metadata import version

from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Target, exact, f1, match
from inspect_ai.solver import TaskState


def score(scorer, said, wanted):
    state = TaskState(
        model="mockllm/model", sample_id=1, epoch=1, input="question", messages=[],
        output=ModelOutput.from_content("mockllm/model", said))
    return asyncio.run(scorer(state, Target(wanted))).value


print("inspect-ai", version("inspect-ai"))
signs = [("-5", "5"), ("5", "-5"), ("-1.5", "1.5")]
others = [("15", "1.5"), ("1.50", "1.5"), ("1e3", "1000"), ("1e-3", "0.001")]
seen = {}
for said, wanted in signs + others:
    seen[said, wanted] = [score(scorer, said, wanted) for scorer in (exact(), f1(), match(numeric=True))]
    print(f"said {said!r}, wanted {wanted!r}: exact {seen[said, wanted][0]}, f1 {seen[said, wanted][1]},",
          f"match(numeric=True) {seen[said, wanted][2]}")
assert all(seen[pair] == ["C", 1.0, "I"] for pair in signs)
assert [seen[pair] for pair in others] == [["I", 0.0, "I"], ["C", 1.0, "C"], ["C", 1.0, "C"], ["I", 0.0, "C"]]
PY
