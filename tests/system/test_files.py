"""A file that several processes may write: what killed ones leave is deleted, what others are writing is not."""

import multiprocessing
import os
import signal

from foci.system.files import replacing


def _writes(path, ready, go):
    with replacing(path, shared=True) as part:
        part.write_text("theirs", encoding="utf-8")
        ready.set()
        go.wait(60)


def test_what_a_killed_process_left_goes_when_the_file_is_written_again(tmp_path):
    context, path = multiprocessing.get_context("spawn"), tmp_path / "part-00000.parquet"
    ready, go = [context.Event(), context.Event()], [context.Event(), context.Event()]
    killed, alive = (context.Process(target=_writes, args=(path, *both)) for both in zip(ready, go, strict=True))
    for child, one in zip((killed, alive), ready, strict=True):
        child.start()
        assert one.wait(60)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    with replacing(path, shared=True) as part:
        part.write_text("ours", encoding="utf-8")
    assert sorted(file.name for file in tmp_path.iterdir()) == [f".{path.name}.{alive.pid}.part", path.name]
    assert path.read_text(encoding="utf-8") == "ours"
    go[1].set()
    alive.join()
    assert path.read_text(encoding="utf-8") == "theirs"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
