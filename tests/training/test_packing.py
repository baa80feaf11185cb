"""An update of packed rows is the update of rows side by side, in less positions."""

import pytest
import torch

import small
import tiny
from foci import FocusTrainer, Plan
from foci.config.train import TrainConfig
from foci.focus import Context
from foci.learn.fitting import packs_of
from foci.methods.lwf import Lwf
from foci.models.packing import WIDTH
from foci.training.dataset import Collator
from foci.training.passes import Passes, parts_of
from training import Recorder, arguments, assert_same, model

METHODS = {
    "nothing": [],
    "weights": [small.Column()],
    "hold": [small.Column(), small.Imitating()],
    "live": [small.Hard()],
    "rehearsal": [small.Column(), small.Old(small.rows(5, seed=3, longest=30))],
    "edits": [small.Dropped(), small.Pulled(0.5)],
}


def run(folder, methods, passes, start=None, **changes):
    recorder = Recorder()
    trainer = FocusTrainer(
        model(lora=True).double() if start is None else start, arguments(folder, num_train_epochs=1, **changes),
        plan=Plan(methods), train_dataset=small.rows(longest=30), passes=passes, callbacks=[recorder],
    )  # fmt: skip
    trainer.train()
    return trainer.model, recorder.losses, trainer.update


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("tokens", [None, 40])
def test_an_update_of_packed_rows_is_the_update_of_rows_apart(tmp_path, name, tokens):
    apart, losses, update = run(tmp_path, METHODS[name], Passes(lean=True))
    packs, again, cut = run(tmp_path, METHODS[name], Passes(packs=40, tokens=tokens), gradient_accumulation_steps=1)
    assert again == pytest.approx(losses, rel=1e-6)
    assert_same(apart, packs, 1e-10)
    assert (cut.rows, cut.tokens, cut.weighted, cut.held) == (update.rows, update.tokens, update.weighted, update.held)
    assert cut.positions < update.positions


@pytest.mark.parametrize("tokens", [None, 40])
def test_rows_that_are_held_to_a_stored_teacher_may_be_packed(tmp_path, tokens):
    rows = small.rows(longest=30)
    held, _ = Lwf(below=0.5, k=5).prepare(Context(model().double(), tiny.tokenizer(), rows, tmp_path / "told"))
    apart, losses, _ = run(tmp_path, [small.Column(), held], Passes(lean=True))
    packs, again, cut = run(
        tmp_path, [small.Column(), held], Passes(packs=40, tokens=tokens), gradient_accumulation_steps=2,
        per_device_train_batch_size=2,
    )  # fmt: skip
    assert again == pytest.approx(losses, rel=1e-6)
    assert_same(apart, packs, 1e-10)
    assert cut.held > 0


def test_parts_hold_as_many_long_rows_as_fit():
    """By hand: rows of 9, 5, 7, 10 and 3 tokens, in long rows of at most 20: 3 + 5 + 10 and 7 + 9."""
    lengths = {"nine": 9, "five": 5, "seven": 7, "ten": 10, "three": 3}
    inputs = Collator(tiny.PAD)([small.rows(1, shortest=12, longest=12)[0].take(range(n)) for n in lengths.values()])
    inputs["weights"] = torch.ones(5, 10)
    inputs["row_ids"] = list(lengths)

    def parts(tokens, packs=20, trims=False):
        made = parts_of(inputs, Passes(tokens=tokens, packs=packs), trims=trims)
        return [(part["row_ids"], part["positions"]) for part in made]

    whole, two = [(list(lengths), 2 * 18)], [(["three", "five", "ten"], 18), (["seven", "nine"], 16)]
    assert parts(None) == parts(36) == whole
    assert parts(20) == parts(35) == two
    assert parts(20, packs=512) == two  # a pass takes no more than it may, however long rows could be
    assert max(positions for _, positions in parts(16, packs=512)) <= 16
    apart = [(["ten"], 10), (["nine"], 9), (["seven"], 7), (["five", "three"], 10)]
    assert parts(10, packs=512) == apart  # too few for a long row
    inputs["weights"][3, 2:] = 0
    assert parts(None, trims=True) == [(list(lengths), 2 * 14)]


def test_a_model_that_mixes_rows_reads_them_apart(tmp_path):
    with pytest.warns(UserWarning, match="rows are not packed: MambaForCausalLM"):
        packs, losses, _ = run(tmp_path, [small.Column()], Passes(packs=40), start=tiny.recurrent())
    apart, again, _ = run(tmp_path, [small.Column()], Passes(), start=tiny.recurrent())
    assert losses == again
    assert_same(apart, packs)


def test_guided_heads_need_rows_side_by_side(tmp_path):
    with pytest.raises(ValueError, match=r"LookAt.*must be read by itself.*train.packing: false"):
        run(tmp_path, [small.LookAt()], Passes(packs=40))
    with pytest.raises(ValueError, match="at least 16 tokens, got packs=8"):
        Passes(packs=8)


def test_the_width_of_long_rows():
    assert packs_of(TrainConfig(), 300) is None
    assert packs_of(TrainConfig(packing=True), 300) == 300
    assert packs_of(TrainConfig(packing=True), 30) == WIDTH
