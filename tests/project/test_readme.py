"""The generated parts of the README are what the code says."""

import importlib.util
import re

import pytest

from paths import ROOT


def test_readme_is_up_to_date():
    readme = ROOT / "README.md"
    if not readme.is_file():
        pytest.skip("the README is not beside the tests")
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tools" / "readme.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    text = readme.read_text(encoding="utf-8")
    assert made.generated(text) == text, "run: make readme"


def test_no_number_is_missing():
    assert not re.findall(r"\b(?:DEMO|BENCH)_[A-Z]+", (ROOT / "README.md").read_text(encoding="utf-8"))


def test_every_method_has_a_card():
    from foci.methods import available

    missing = [name for name in available() if not (ROOT / "docs" / "methods" / f"{name}.md").is_file()]
    assert not missing
