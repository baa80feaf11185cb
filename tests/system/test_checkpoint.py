"""All or nothing on disk, and a resumed run that ends in the same bits."""

import errno
import json
import signal
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

import runs
import small
import training
from foci import FocusTrainer, Plan
from foci.system import checkpoint
from foci.training.non_finite import NonFinite
from training import arguments, assert_same, model, trained


def make(root: Path, step: int) -> Path:
    with checkpoint.staged(root, step) as folder:
        (folder / "a.bin").write_bytes(b"weights")
        (folder / "deep").mkdir()
        (folder / "deep" / "b.bin").write_bytes(b"optimiser")
    return root / f"step-{step}"


def test_a_checkpoint_is_complete_or_absent(tmp_path):
    folder = make(tmp_path, 3)
    assert checkpoint.why_incomplete(folder) is None
    assert sorted(json.loads((folder / "manifest.json").read_text())["files"]) == ["a.bin", "deep/b.bin"]
    with pytest.raises(KeyError), checkpoint.staged(tmp_path, 4) as staging:
        (staging / "a.bin").write_bytes(b"half")
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["step-3"]


def test_the_first_process_alone_makes_the_folder(tmp_path):
    """Made by two, it failed ("File exists") where the first process deleted it while another one was making it."""
    root = tmp_path / "checkpoints"
    with checkpoint.staged(root, 3, commits=False) as staging:
        assert not staging.exists()
        with checkpoint.staged(root, 3) as same:
            assert same == staging
            (staging / "rng_1.bin").write_bytes(b"draws")
    assert (root / "step-3" / "rng_1.bin").is_file()
    with pytest.raises(KeyError), checkpoint.staged(root, 4, commits=False):
        raise KeyError
    assert [path.name for path in root.iterdir()] == ["step-3"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "a.bin").unlink(), "a.bin is missing"),
        (lambda f: (f / "a.bin").write_bytes(b"weigh"), "a.bin has 5 bytes, the manifest says 7"),
        (lambda f: (f / "a.bin").write_bytes(b"weighty"), "not what was written"),
        (lambda f: (f / "manifest.json").unlink(), "no manifest.json: it was not finished"),
        (lambda f: (f / "manifest.json").write_text("{"), "cannot be read"),
    ],
)
def test_newest_skips_what_is_not_whole_and_says_why(tmp_path, damage, words):
    make(tmp_path, 9)
    damage(make(tmp_path, 10))
    found, skipped = checkpoint.newest(tmp_path)
    assert found == tmp_path / "step-9"
    assert [path.name for path, _ in skipped] == ["step-10"]
    assert words in skipped[0][1]
    with pytest.raises(ValueError, match="is refused"):
        checkpoint.require_complete(tmp_path / "step-10")


def test_keep_deletes_the_oldest(tmp_path):
    for step in (2, 10, 9):
        make(tmp_path, step)
    checkpoint.prune(tmp_path, 2, 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-10", "step-9"]
    make(tmp_path, 3)
    checkpoint.prune(tmp_path, 2, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-10", "step-3"], "what was just written stays"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, error):
    make(tmp_path, 1)
    with (
        pytest.raises(checkpoint.DiskFull, match=r"step-2 did not fit.*intact: .*step-1.*Free some space"),
        checkpoint.staged(tmp_path, 2) as staging,
    ):
        (staging / "a.bin").write_bytes(b"half")
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]
    assert checkpoint.why_incomplete(tmp_path / "step-1") is None


METHODS = [small.Dropped(), small.Column(), small.Pulled(0.5), small.LookAt()]
EVERY = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "optim": "adamw_torch",
    "lr_scheduler_type": "cosine",
}


@pytest.mark.parametrize("grouped", [False, True], ids=["shuffled", "grouped"])
@pytest.mark.parametrize("mixed", [False, True], ids=["new", "mixed"])
def test_resuming_from_any_step_ends_in_the_same_bits(tmp_path, mixed, grouped):
    """Dropout, accumulation over an uneven epoch, shuffling, edits, weights, a guide, a pull and rehearsed rows."""
    methods = METHODS + ([small.Old(small.rows(6, seed=4), (3, 1))] if mixed else [])
    settings = EVERY | ({"train_sampling_strategy": "group_by_length"} if grouped else {})

    def start():
        return model(lora=True, dropout=0.2)

    whole, losses = trained(tmp_path / "whole", small.rows(11), methods, start=start(), **settings)
    steps = sorted(checkpoint.step_of(p) for p in (tmp_path / "whole").iterdir())
    assert steps == list(range(1, len(losses) + 1))
    assert len(steps) >= 6
    for step in steps[:-1]:
        again, rest = trained(
            tmp_path / f"from-{step}", small.rows(11), methods, start=start(),
            resume=tmp_path / "whole" / f"step-{step}", **settings,
        )  # fmt: skip
        assert rest == losses[step:], step
        assert_same(whole, again)


@pytest.mark.parametrize("updates", [4, 6])
def test_resuming_from_the_last_update_makes_no_further_one(tmp_path, updates):
    """The Trainer by itself makes one more when max_steps ends inside an epoch (here of 3 updates)."""
    settings = EVERY | {"max_steps": updates, "lr_scheduler_type": "constant"}
    whole, losses = trained(tmp_path / "whole", small.rows(), start=model(), **settings)
    assert len(losses) == updates
    last = tmp_path / "whole" / f"step-{updates}"
    again, rest = trained(tmp_path / "again", small.rows(), start=model(), resume=last, **settings)
    assert rest == []
    assert_same(whole, again)


def test_true_resumes_from_the_newest_complete_checkpoint(tmp_path):
    whole, losses = trained(tmp_path, small.rows(), start=model(), **EVERY)
    last = max(checkpoint.step_of(p) for p in tmp_path.iterdir())
    (tmp_path / f"step-{last}" / "optimizer.pt").unlink()
    with pytest.warns(UserWarning, match=rf"not complete \(step-{last}: optimizer.pt is missing"):
        again, rest = trained(tmp_path, small.rows(), start=model(), resume=True, **EVERY)
    assert rest == losses[last - 1 :]
    assert_same(whole, again)


def test_a_checkpoint_with_a_missing_piece_is_refused(tmp_path):
    trained(tmp_path, small.rows(), start=model(), **EVERY)
    (tmp_path / "step-2" / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match=r"step-2 is refused: optimizer.pt is missing"):
        trained(tmp_path, small.rows(), start=model(), resume=tmp_path / "step-2", **EVERY)


def test_total_limit_keeps_the_newest(tmp_path):
    trained(tmp_path, small.rows(), start=model(), **EVERY, save_total_limit=2)
    assert len([p for p in tmp_path.iterdir() if p.name.startswith("step-")]) == 2


@pytest.mark.parametrize("at", [1, 3])
def test_kill_in_the_middle_of_a_checkpoint(tmp_path, at):
    folder = tmp_path / "run"
    moment = ("foci.system.checkpoint.seal", at, signal.SIGKILL)  # before the manifest is written
    child = runs.start_call(training.train_dropped, folder, EVERY, folder=tmp_path, moment=moment)
    assert child.wait() == -signal.SIGKILL, child.err.read_text()
    found, _ = checkpoint.newest(folder)
    assert (found and found.name) == (None if at == 1 else f"step-{at - 1}")
    whole, _ = trained(tmp_path / "whole", small.rows(), [small.Dropped()], start=model(), **EVERY)
    again, _ = trained(folder, small.rows(), [small.Dropped()], start=model(), resume=True, **EVERY)
    assert_same(whole, again)


class Poison(TrainerCallback):
    """Breaks the head before the fourth update."""

    def on_step_begin(self, args, state, control, model, **_):
        if state.global_step == 3:
            model.lm_head.weight.data[:] = torch.nan


def test_a_failed_run_names_its_last_checkpoint(tmp_path):
    trainer = FocusTrainer(
        model(), arguments(tmp_path, **EVERY), plan=Plan([small.Column()]), train_dataset=small.rows(),
        callbacks=[Poison()],
    )  # fmt: skip
    with pytest.raises(
        NonFinite,
        match=r"loss is nan at update 4, with the learning rate 0.01; rows .*: 0-.*last good checkpoint: .*step-3",
    ):
        trainer.train()


def test_a_manifest_of_an_earlier_version_is_compared_by_its_sha256(tmp_path):
    with checkpoint.staged(tmp_path, 2) as staging:
        (staging / "weights").write_bytes(b"abc")
    manifest = tmp_path / "step-2" / checkpoint.MANIFEST
    assert json.loads(manifest.read_text())["files"]["weights"] == {
        "bytes": 3,
        "xxh3_128": "06b05ab6733a618578af5f94892f3950",
    }
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    manifest.write_text(json.dumps({"step": 2, "files": {"weights": {"bytes": 3, "sha256": known}}}))
    assert checkpoint.why_incomplete(tmp_path / "step-2") is None
    (tmp_path / "step-2" / "weights").write_bytes(b"abd")
    assert "its hash differs" in checkpoint.why_incomplete(tmp_path / "step-2")
