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


def named(command):
    """The command of click that is typed so."""
    found: Any = typer.main.get_command(main.app)
    for name in command:
        found = found.commands[name]
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_says_every_word_that_was_written(command):
    """A word in square brackets would be read as a style, and be left out: foci\\[export] is written in docstrings."""
    shown = CliRunner().invoke(main.app, [*command, "--help"], env={"COLUMNS": "400"}).output.replace("│", " ")
    one, said = named(command), "".join(shown.split())
    texts = [one.help or "", *(getattr(option, "help", None) or "" for option in one.params)]
    for text in texts:
        words = text.replace("\\[", "[").split()
        assert [word for word in words if word not in said] == []
