"""The help of every command: two spellings, and a first line that says what its user gets."""

import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from foci.cli import main

VERBS = ["Ask", "Compare", "Compute", "Convert", "List", "Make", "Show", "Teach", "Train", "Write"]


def commands(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """A command and every command below it, as they are typed after `foci`."""
    below = getattr(command, "commands", {})
    return [path, *(found for name, inner in below.items() for found in commands(inner, (*path, name)))]


COMMANDS = commands(typer.main.get_command(main.app))


def test_all_commands_are_found():
    assert {(), ("learn",), ("probe",), ("score",), ("pretrain",), ("data",), ("data", "pairs")} <= set(COMMANDS)
    assert len(COMMANDS) >= 16


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_two_spellings(command):
    long, short = (CliRunner().invoke(main.app, [*command, flag]) for flag in ("--help", "-h"))
    assert (long.exit_code, short.exit_code) == (0, 0)
    assert short.output == long.output
    said = re.search(r"Usage:[^\n]*\n\s*\n\s*(\w+)", long.output)
    assert said, long.output
    assert said[1] in VERBS
