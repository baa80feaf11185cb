#!/usr/bin/env bash
# math-verify takes 2e-3 for 2e-5, 5 1/2 for 3 1/2, and one day for another of the same year
#
# Packages: math-verify==0.9.0, latex2sympy2-extended==1.11.0, sympy==1.14.0
# Guess:    verify(parse(gold), parse(answer)) is True for the same number in another notation, and False for another
#           number. Where parse cannot read a notation it returns nothing, and verify says False.
# Seen:     parse reads a part and says nothing: 2e-5 is 2, 3 1/2 is 1, 2024-03-01 is 2024, 10:45 is 10, 1.2.4 is 1.2 and '2
#           million' is 2. So 2e-3 is right where 2e-5 is asked, 1 where 1e3 is, 5 1/2 where 3 1/2 is, 2024-03-02 where
#           2024-03-01 is, 2 where 2 million is, and 10% is both .1 and 10. The right answer in words of its own is wrong:
#           3.5 for 3 1/2, 1000 for 1e3, .00002 for 2e-5. 15 for 5 and 1.001 for 1.002 are told apart, as they should be.
# Matters:  It is the usual reward and score for short answers with numbers. Learning rates, sizes in inches, dates, times and
#           version numbers of somebody's pages are scored right that are wrong, and the reward teaches them. Put numbers as
#           decimals before parsing. (parser.py: the patterns of ExprExtractionConfig)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet math-verify==0.9.0 latex2sympy2-extended==1.11.0 sympy==1.14.0
venv/bin/python - <<'PY'
from importlib.metadata import version

from math_verify import parse, verify

print("math-verify", version("math-verify"))
wrong_but_true = [
    ("2e-5", "2e-3"), ("1e3", "1"), ("3 1/2", "5 1/2"), ("3 1/2", "1"), ("2024-03-01", "2024-03-02"), ("10:45", "10:15"),
    ("1.2.3", "1.2.4"), ("2 million", "2"), ("10%", "10"), ("0.5", "0.5%"),
]
right_but_false = [("3 1/2", "3.5"), ("1e3", "1000"), ("2e-5", "0.00002")]
as_guessed = [
    ("5", "15", False), ("1.001", "1.002", False), ("1,000", "1000", True), ("3.5", "7/2", True), ("10%", "0.1", True),
]
for gold, answer in wrong_but_true + right_but_false:
    print(f"asked {gold!r}, read as {parse(gold)[0]}; answered {answer!r}, read as {parse(answer)[0]}:",
          verify(parse(gold), parse(answer)))
assert all(verify(parse(gold), parse(answer)) for gold, answer in wrong_but_true)
assert not any(verify(parse(gold), parse(answer)) for gold, answer in right_but_false)
assert all(verify(parse(gold), parse(answer)) is same for gold, answer, same in as_guessed)
assert [str(parse(text)[0]) for text in ("2e-5", "3 1/2", "2024-03-01", "10:45", "2 million")] == ["2", "1", "2024", "10", "2"]
PY
