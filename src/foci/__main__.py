"""`python -m foci` is the command `foci`."""

from foci.cli import main

main()
