"""Runs the command `foci` as `python -m foci`."""

from foci.cli.main import main

main()
