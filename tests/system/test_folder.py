"""A folder is one process's at a time, free again when that process is killed, and never taken from something else."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from foci.system.files import LOCK, part_of, replacing_folder, settle
from foci.system.folder import FolderKind, claim, locked
from foci.system.run_folder import RunFolder

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


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match=r"output .*out cannot be written \(Not a directory\); name another one"),
        locked(tmp_path / "file" / "out"),
    ):
        pass


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


KIND = FolderKind("study", "study.yaml", begun=("draft",), early=("rows",), started="begun.json")


def claimed(path, settings="a: 1\n", **flags):
    """Claims the folder, writes the marker, and returns the names that lie there afterwards."""
    with claim(path, KIND, settings, **flags):
        (path / KIND.marker).write_text(settings or "")
    return {child.name for child in path.iterdir()}


def begun(path):
    """A folder with results."""
    claimed(path)
    for name in ("begun.json", "rows", "result"):
        (path / name).write_text("{}")
    return path


@pytest.mark.parametrize("settings", ["a: 1\n", None])
def test_a_file_and_a_folder_of_something_else_are_refused(tmp_path, settings):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file, expected a folder or nothing"):
        claimed(tmp_path / "file", settings, overwrite=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "draft").write_text("")  # may lie there before the marker
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"no study: there is no study\.yaml, so it is not a study's folder"):
        claimed(tmp_path / "out", settings, overwrite=True)
    (tmp_path / "out" / "thesis.txt").unlink()
    assert claimed(tmp_path / "out", settings) == {"draft", "study.yaml", LOCK}


def test_a_marker_that_no_command_wrote_is_left_alone(tmp_path):
    (tmp_path / "study.yaml").write_text("a: 1\n")
    for flags in ({}, {"overwrite": True}):
        with pytest.raises(FileExistsError, match=r"already holds this study|no begun\.json and no \.lock"):
            claimed(tmp_path, **flags)
        assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_the_same_settings_need_resume_and_other_ones_overwrite(tmp_path):
    everything = {"study.yaml", "begun.json", "rows", "result", LOCK}
    out = begun(tmp_path / "out")
    with pytest.raises(FileExistsError, match="already holds this study; continue it with --resume, or start again"):
        claimed(out)
    for resume in (False, True):
        with pytest.raises(FileExistsError, match=r"another study, with other .*: 'a: 1' there, 'a: 2' here"):
            claimed(out, "a: 2\n", resume=resume)
    assert claimed(out, resume=True) == everything
    assert claimed(out, None) == everything  # settings are not compared
    assert claimed(out, "a: 2\n", overwrite=True) == {"study.yaml", LOCK}


def test_settings_of_an_earlier_version_are_the_same(tmp_path):
    """It did not write the keys that came later; where such a key has another value than its default, they differ."""
    kind = FolderKind("study", "study.yaml", later=("a.b: null",))
    (tmp_path / "study.yaml").write_text("a:\n  c: 1\n")
    (tmp_path / LOCK).touch()
    for settings in ("a:\n  b: null\n  c: 1\n", "a:\n  c: 1\n"):
        with claim(tmp_path, kind, settings, resume=True):
            pass
        with pytest.raises(FileExistsError, match="already holds this study"), claim(tmp_path, kind, settings):
            pass
    others = {
        "a:\n  b: 2\n  c: 1\n": "'b: 2' here",
        "a:\n  b: null\n  c: 2\n": "'c: 2' here",
        "a:\n    b: null\n  c: 1\n": "'b: null' here",  # a part of another value
    }
    for settings, words in others.items():
        refused = pytest.raises(FileExistsError, match=f"'c: 1' there, {words}")
        with refused, claim(tmp_path, kind, settings, resume=True):
            pass
    assert not kind.same("a:\n  c: 1\nz:\n  b: null\n", "a:\n  c: 1\nz:\n")  # a key of another section


def test_a_folder_that_was_not_started_is_free(tmp_path):
    out = begun(tmp_path / "out")
    (out / "begun.json").unlink()
    assert claimed(out, "a: 2\n") == {"study.yaml", "result", LOCK}


def test_an_overwritten_folder_is_as_it_was_where_the_new_work_does_not_begin(tmp_path):
    out, everything = begun(tmp_path / "out"), {"study.yaml", "begun.json", "rows", "result", LOCK}
    with pytest.raises(ValueError, match="no text"), claim(out, KIND, "a: 2\n", overwrite=True):
        (out / "study.yaml").write_text("a: 2\n")
        (out / "rows").mkdir()
        raise ValueError("no text")
    assert claimed(out, None) == everything
    assert (out / "rows").read_text() == "{}"
    with pytest.raises(ValueError, match="nan"), claim(out, KIND, "a: 2\n", overwrite=True):
        (out / "study.yaml").write_text("a: 2\n")
        (out / "begun.json").write_text("{}")
        raise ValueError("nan")
    assert {child.name for child in out.iterdir()} == {"study.yaml", "begun.json", LOCK}, "the new work goes on"


@pytest.mark.parametrize("at", range(4))
def test_a_kill_while_a_folder_is_overwritten_loses_nothing(tmp_path, at):
    """Whatever was moved away before the kill comes back with the next command."""
    out, rename, moved = begun(tmp_path / "out"), Path.rename, []

    def killed(path, target):
        if len(moved) == at:
            os._exit(1)
        moved.append(path)
        return rename(path, target)

    if (child := os.fork()) == 0:
        Path.rename = killed
        claimed(out, "a: 2\n", overwrite=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert claimed(out, None) == {"study.yaml", "begun.json", "rows", "result", LOCK}


def test_a_folder_in_the_place_of_a_link_stays(tmp_path):
    """A run that was copied with its links followed goes on."""
    folder = RunFolder(tmp_path, 2)
    for name in ("one", "two"):
        folder.arm(name).model.mkdir(parents=True)
    folder.link("two")
    assert (tmp_path / "model").resolve() == folder.arm("two").model.resolve()
    (tmp_path / "model").unlink()
    (tmp_path / "model").mkdir()
    folder.link("one")
    assert not (tmp_path / "model").is_symlink()


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_crash_at_any_rename_of_a_folder_loses_nothing(tmp_path, monkeypatch, at):
    """The old or the new content is there afterwards, as a whole; 3: the crash comes after the last rename."""
    out, calls, rename, rmtree = tmp_path / "out", [], Path.rename, shutil.rmtree

    def crashing(path, target):
        calls.append(path)
        if len(calls) == at:
            raise KeyboardInterrupt
        return rename(path, target)

    with replacing_folder(out) as part:
        (part / "a").write_text("old")
    assert (out / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crashing)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process tidies nothing up
        with pytest.raises(KeyboardInterrupt) if at < 3 else nullcontext(), replacing_folder(out) as part:
            (part / "a").write_text("new")
    assert shutil.rmtree is rmtree
    with pytest.raises(ValueError, match="stop"), replacing_folder(out):
        raise ValueError("stop")
    assert (out / "a").read_text() == ("old" if at < 3 else "new")
    with replacing_folder(out) as part:
        assert not list(part.iterdir())
        (part / "b").write_text("newer")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["b"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path, there):
    (tmp_path / "disk").mkdir()
    target, out = tmp_path / "disk" / "big", tmp_path / "out"
    if there:
        target.mkdir()
        (target / "a").write_text("old")
    out.symlink_to(target, target_is_directory=True)
    (tmp_path / "disk" / ".big.old").symlink_to("nowhere")  # no folder, so it is not deleted as one is
    assert part_of(out) == tmp_path / "disk" / ".big.part"
    with replacing_folder(out) as part:
        assert part == part_of(out)
        (part / "b").write_text("new")
    assert out.readlink() == target
    assert [path.name for path in out.iterdir()] == ["b"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b", "big", "disk", "out"]


def test_what_a_kill_left_is_put_back_or_deleted(tmp_path):
    out, old = tmp_path / "out", tmp_path / ".out.old"
    settle(out)
    old.mkdir()
    (old / "a").write_text("old")
    settle(out)
    assert ((out / "a").read_text(), old.exists()) == ("old", False)
    old.mkdir()
    settle(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
