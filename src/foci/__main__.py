"""`python -m foci` is the command `foci`."""

from foci.cli.main import main

main()
