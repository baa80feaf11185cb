"""`make audit`: what pip-audit says is told as clean, as found, or as not audited, and never as clean by silence."""

import importlib.util
import json
import subprocess

import pytest

from paths import ROOT

if not (ROOT / "tools" / "audit.py").is_file():
    pytest.skip("tools/audit.py is not beside the tests", allow_module_level=True)

spec = importlib.util.spec_from_file_location("audit", ROOT / "tools" / "audit.py")
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)


def said(*packages):
    return json.dumps({"dependencies": packages, "fixes": []})


FLAW = {"id": "PYSEC-1", "aliases": ["CVE-2"], "fix_versions": ["1.1"], "description": "d"}


def test_what_is_known_is_named_with_the_cure():
    status, words = audit.verdict(said({"name": "a", "version": "1", "vulns": [FLAW, {"id": "X", "fix_versions": []}]},
                                       {"name": "b", "version": "2", "vulns": []}), "")  # fmt: skip
    assert status == audit.FOUND
    assert words.splitlines() == [
        "audited: 2 packages, 2 known vulnerabilities",
        "a 1: PYSEC-1, CVE-2 (fixed in 1.1)",
        "a 1: X (no version without it is known)",
    ]


@pytest.mark.parametrize("out", ["", "{}", "[]", "Traceback", '{"dependencies"'])
def test_silence_is_not_clean(out):
    status, words = audit.verdict(out, "first\nlast: no route to host\n\n")
    assert status == audit.NOT_AUDITED
    assert words == "NOT AUDITED: the advisory service did not answer: last: no route to host"


def test_packages_that_were_passed_over_are_named():
    skipped = {"name": "a", "skip_reason": "not on PyPI"}
    status, words = audit.verdict(said(skipped, {"name": "b", "version": "2", "vulns": []}), "")
    assert (status, words) == (
        audit.NOT_AUDITED, "audited: 1 package, no known vulnerability\nnot audited: a: not on PyPI",
    )  # fmt: skip
    status, words = audit.verdict(said(skipped), "No known vulnerabilities found")
    assert status == audit.NOT_AUDITED
    assert words == "NOT AUDITED: the advisory service knows none of 1 packages: not on PyPI"


def test_an_auditor_that_cannot_be_installed(monkeypatch, capsys):
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found\n")
    monkeypatch.setattr(audit, "run", lambda command: failed)
    monkeypatch.setattr(audit.sys, "argv", ["audit.py"])
    monkeypatch.setattr(audit.venv, "create", lambda folder, with_pip: None)
    assert audit.main() == 3
    assert "NOT AUDITED: pip-audit==2.10.1 could not be installed: ERROR: No matching" in capsys.readouterr().out
