"""A folder is one process's at a time, and free again when that process is killed."""

import signal
import subprocess
import sys
import time

import pytest

from foci.system.folder import LOCK, locked

HOLD = (
    "import pathlib, sys, time\n"
    "from foci.system.folder import locked\n"
    "with locked(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(600)\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder `tmp_path / "out"`."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_held_folder_is_refused_in_words_and_at_once(holder, tmp_path):
    begun = time.monotonic()
    with pytest.raises(FileExistsError) as found, locked(tmp_path / "out"):
        pass
    expected = f"another process is working in {tmp_path / 'out'}; wait for it, or name another output"
    assert str(found.value) == expected
    assert time.monotonic() - begun < 5


def test_a_killed_process_frees_its_folder(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    assert (tmp_path / "out" / LOCK).is_file()
    with locked(tmp_path / "out"):
        pass


def test_a_folder_is_freed_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "out"):
        raise ZeroDivisionError
    with locked(tmp_path / "out"):
        assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]
