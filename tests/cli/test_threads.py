"""Threads that wait for work leave their core to other programs, so that two commands take twice the time of one."""

import os
import subprocess
import sys

import pytest

CODE = """
import contextlib, sys
sys.argv = ["foci", "--version"]
from foci.cli.main import main
with contextlib.suppress(SystemExit):
    main()
import torch
torch.ones(2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="torch's builds for Linux use GNU OpenMP, which tells its settings")
@pytest.mark.parametrize(("said", "rounds"), [({}, "0"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")])
def test_threads_wait_as_the_environment_says_and_else_asleep(said, rounds):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    environment |= {"OMP_DISPLAY_ENV": "verbose", **said}
    ran = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{rounds}'" in ran.stderr, ran.stderr
