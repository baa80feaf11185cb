"""Runs the checks on tiny models of all causal architectures and writes the table of docs/models.md.

python tests/sweep/run.py                           # what out/sweep does not hold yet; make sweep
python tests/sweep/run.py llama mixtral             # these again
python tests/sweep/run.py --table                   # the page alone, from out/sweep
"""

import json
import signal
import sys
import tempfile
import time
import traceback
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]

import transformers  # noqa: E402

import checks  # noqa: E402
import page  # noqa: E402
import tiny_models  # noqa: E402

OUT = Path("out/sweep")
SECONDS = 300
"""The longest that one check may take."""
VERSIONS = {name: version(name) for name in ("transformers", "torch", "peft")}


def cell(check: Any, case: checks.Case) -> dict[str, Any]:
    """What one check found: "right", "wrong", "refused" (by name), "unclear" (another ValueError) or "crash"."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            error = check(case)
    except ValueError as refusal:
        words, model = str(refusal), case.shared
        named = "[PEFT" not in words and (
            type(model).__name__ in words or model.config.model_type in words or str(case.root) in words
        )
        return {"state": "refused" if named else "unclear", "words": words.replace(str(case.root), "")}
    except Exception as crash:
        where = traceback.extract_tb(crash.__traceback__)[-1]
        words = f"{type(crash).__name__}: {crash} ({Path(where.filename).name}:{where.lineno})"
        return {"state": "crash", "words": words}
    right = error <= checks.TOLERANCE.get(check.__name__, 1e-3)
    return {"state": "right" if right else "wrong", "error": error}


def sweep(name: str, chosen: list[str] | None = None) -> dict[str, Any]:
    """All checks of one architecture, or the chosen ones."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case = checks.Case(name, Path(folder))
        found: dict[str, Any] = {"name": name, "versions": VERSIONS, "cells": {}, "notes": case.notes}
        try:
            found["class"] = type(case.shared).__name__
        except Exception as error:
            return found | {"not built": f"{type(error).__name__}: {error}"}
        for kind in chosen or checks.CHECKS:
            begun = time.monotonic()
            signal.alarm(SECONDS)
            found["cells"][kind] = cell(checks.CHECKS[kind], case)
            signal.alarm(0)
            found["cells"][kind]["seconds"] = round(time.monotonic() - begun, 2)
    return found | {"seconds": round(time.monotonic() - started, 1)}


def too_long(*_: Any) -> None:
    raise TimeoutError(f"longer than {SECONDS} s")


def main(asked: list[str]) -> None:
    """Runs what is asked for, or what is not there yet, and writes the page where nothing is left."""
    transformers.logging.set_verbosity_error()
    signal.signal(signal.SIGALRM, too_long)
    OUT.mkdir(parents=True, exist_ok=True)
    names = [name for name in tiny_models.names() if name not in tiny_models.LEFT_OUT]
    for name in [] if asked == ["--table"] else asked or names:
        file = OUT / f"{name.replace(':', '__')}.json"
        if not asked and file.is_file() and json.loads(file.read_text())["versions"] == VERSIONS:
            continue
        found = sweep(name)
        file.write_text(json.dumps(found, indent=1))
        states = {kind: one["state"] for kind, one in found["cells"].items()}
        bad = {kind: state for kind, state in states.items() if state != "right"}
        print(f"{name}  {found.get('seconds')} s  {bad or found.get('not built', 'all right')}", flush=True)
    page.write([json.loads(file.read_text()) for file in sorted(OUT.glob("*.json"))], Path("docs/models.md"))


if __name__ == "__main__":
    main(sys.argv[1:])
