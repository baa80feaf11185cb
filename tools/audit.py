"""Asks an advisory service whether the versions of constraints.txt have known vulnerabilities: `make audit`.

    python tools/audit.py [FILE]

pip-audit does it, in an environment of its own that is deleted afterwards. It needs a network. Exit status: 0 where
nothing is known of any package, 1 where something is, 3 where the service (or pip-audit itself) could not be reached or
passed over a package, so that not all was audited. pip-audit itself ends with 0 there: a mirror of PyPI without
advisories knows no package, and it passes over a package that it does not find.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PINNED = Path(__file__).parent.parent / "constraints.txt"
AUDITOR = "pip-audit==2.10.1"
CLEAN, FOUND, NOT_AUDITED = 0, 1, 3


def main() -> int:
    """Returns the exit status."""
    with TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        made = run([python, "-m", "pip", "install", "--quiet", "--no-compile", AUDITOR])
        if made.returncode:
            print(not_audited(f"{AUDITOR} could not be installed", made.stderr))
            return NOT_AUDITED
        pinned = sys.argv[1] if len(sys.argv) > 1 else str(PINNED)
        command = ["--requirement", pinned, "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner"]
        asked = run([python, "-m", "pip_audit", *command, "off"])
    status, words = verdict(asked.stdout, asked.stderr)
    print(words)
    return status


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Runs a command and keeps what it says."""
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words and a file


def verdict(out: str, err: str) -> tuple[int, str]:
    """Returns the exit status and the words for what pip-audit said.

    >>> verdict('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', "")
    (0, 'audited: 1 package, no known vulnerability')
    >>> verdict("", "ERROR:pip_audit._cli:Could not connect")
    (3, 'NOT AUDITED: the advisory service did not answer: ERROR:pip_audit._cli:Could not connect')
    """
    try:
        packages: list[dict[str, Any]] = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return NOT_AUDITED, not_audited("the advisory service did not answer", err)
    skipped = [f"not audited: {one['name']}: {one['skip_reason']}" for one in packages if "skip_reason" in one]
    known = [f"{one['name']} {one['version']}: {told(flaw)}" for one in packages for flaw in one.get("vulns", ())]
    count = len(packages) - len(skipped)
    if not count:
        first = next((one["skip_reason"] for one in packages), "it was asked about none")
        return NOT_AUDITED, not_audited(f"the advisory service knows none of {len(packages)} packages", first)
    total = f"{len(known)} known {'vulnerability' if len(known) == 1 else 'vulnerabilities'}" if known else ""
    head = f"audited: {count} package{'s' * (count != 1)}, {total or 'no known vulnerability'}"
    return (FOUND if known else NOT_AUDITED if skipped else CLEAN), "\n".join([head, *known, *skipped])


def told(flaw: dict[str, Any]) -> str:
    """Returns the name of a vulnerability and the versions without it."""
    names = ", ".join([flaw["id"], *flaw.get("aliases", ())])
    fixed = ", ".join(flaw.get("fix_versions", ()))
    return f"{names} ({f'fixed in {fixed}' if fixed else 'no version without it is known'})"


def not_audited(what: str, err: str) -> str:
    """Returns the words for an audit that was not made, with the last thing that was said."""
    last = next((line for line in reversed(err.splitlines()) if line.strip()), "nothing was said")
    return f"NOT AUDITED: {what}: {last.strip()}"


if __name__ == "__main__":
    sys.exit(main())
