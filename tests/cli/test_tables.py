"""The tables that commands print, as a person reads them."""

from io import StringIO

import pytest
from rich.console import Console

from foci.cli.tables import print_answers
from foci.probes.asking import Answer


def answered(number: int, town: str, accuracy: float) -> Answer:
    """One answer to a probe to learn."""
    name = f"p{number}"
    return Answer(name, "learn", "cloze", "town", name, town, town, accuracy == 1, accuracy, None, None, 1.0, True)


@pytest.mark.parametrize(("binding", "said"), [(0.5733333333333334, "binding 57.3 %"), (None, "binding –")])  # noqa: RUF001
def test_the_controls_of_foci_probe_are_one_plain_line(binding, said):
    """Of seven answers three are Bern (all right) and four are towns of their own (all wrong)."""
    answers = [answered(n, "Bern", 1.0) for n in range(3)] + [answered(n, f"town {n}", 0.0) for n in range(3, 7)]
    out = StringIO()
    print_answers(answers, binding, Console(file=out, width=200))
    assert out.getvalue().splitlines()[-1] == (
        f"controls of the probes to learn: majority 42.9 %, balanced 20.0 %, balanced majority 20.0 %, {said}"
    )
