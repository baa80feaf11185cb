"""Parts of a micro-batch: what each holds, and that an update of parts is the update of the whole."""

import pytest
import torch

import small
import tiny
from foci import FocusTrainer, Plan
from foci.focus import WeighsTokens
from foci.models.architecture import recompute_activations
from foci.training.dataset import Collator
from foci.training.passes import Passes, parts_of
from training import Recorder, arguments, assert_same, model


def micro_batch():
    """Rows of 4, 2 and 3 tokens; weights end at tokens 2, 2 and 1, a hold at token 3 of row 0."""
    rows = [small.rows(1)[0].take([0, 1, 2, 3][:n]) for n in (4, 2, 3)]
    inputs = Collator(tiny.PAD)(rows)
    inputs["weights"] = torch.tensor([[0, 1.0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 0]])
    return inputs


def shapes(parts):
    return [(tuple(part["input_ids"].shape), part["row_ids"]) for part in parts]


def test_rows_of_like_length_share_a_part():
    inputs = micro_batch()
    inputs["row_ids"] = ["four", "two", "three"]
    whole = parts_of(inputs, Passes(tokens=None), trims=False)
    assert shapes(whole) == [((3, 4), ["four", "two", "three"])]
    assert shapes(parts_of(inputs, Passes(tokens=6), trims=False)) == [((1, 4), ["four"]), ((2, 3), ["three", "two"])]
    assert shapes(parts_of(inputs, Passes(tokens=1), trims=False)) == [
        ((1, 4), ["four"]),
        ((1, 3), ["three"]),
        ((1, 2), ["two"]),
    ]
    second = parts_of(inputs, Passes(tokens=6), trims=False)[1]
    assert second["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert second["weights"].tolist() == [[0, 0, 0], [0, 1, 0]]
    assert second["columns"]["w"].shape == (2, 3)
    assert torch.equal(second["input_ids"][0], inputs["input_ids"][2, :3])


def test_a_row_ends_where_nothing_counts_any_more():
    """By hand: the last weights stand at places 1 and 1, a row without any keeps two tokens; a hold keeps four."""
    inputs = micro_batch()
    assert shapes(parts_of(inputs, Passes(tokens=None), trims=True))[0][0] == (3, 2)
    inputs["holds"] = [torch.tensor([[0, 0, 0, 0.5], [0.0] * 4, [0.0] * 4])]
    held = parts_of(inputs, Passes(tokens=4), trims=True)
    assert [tuple(part["input_ids"].shape) for part in held] == [(1, 4), (2, 2)]
    assert held[0]["holds"][0].tolist() == [[0, 0, 0, 0.5]]


def test_padding_on_the_left_stays():
    inputs = Collator(tiny.PAD, side="left")(small.rows(3))
    inputs["weights"] = torch.ones_like(inputs["input_ids"], dtype=torch.float32)
    width = inputs["input_ids"].shape[1]
    assert [part["input_ids"].shape for part in parts_of(inputs, Passes(tokens=width), trims=True)] == [(1, width)] * 3


def test_a_pass_takes_a_token():
    with pytest.raises(ValueError, match="at least 1 token, got tokens=0"):
        Passes(tokens=0)


METHODS = {
    "weights": [small.Column()],
    "hold": [small.Column(), small.Imitating()],
    "live": [small.Hard()],
    "guide": [small.Column(), small.LookAt()],
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_update_of_parts_is_the_update_of_the_whole(tmp_path, name, accumulation):
    def run(tokens, again=False):
        recorder, start = Recorder(), model(lora=True).double()
        if again:
            recompute_activations(start)
        changes = {"gradient_accumulation_steps": accumulation, "num_train_epochs": 1}
        trainer = FocusTrainer(
            start, arguments(tmp_path, **changes), plan=Plan(METHODS[name]),
            train_dataset=small.rows(), passes=Passes(tokens=tokens), callbacks=[recorder],
        )  # fmt: skip
        trainer.train()
        return trainer.model, recorder.losses, trainer.update

    whole, losses, update = run(None)
    parts, again, cut = run(14)
    assert again == pytest.approx(losses, rel=1e-6)
    assert_same(whole, parts, 1e-9)
    assert_same(whole, run(14, again=True)[0], 1e-9)
    assert cut.positions <= update.positions
    assert (cut.rows, cut.tokens, cut.weighted, cut.held) == (update.rows, update.tokens, update.weighted, update.held)


def test_an_empty_plan_is_read_as_the_trainer_reads_it(tmp_path):
    seen = []

    class Seeing(FocusTrainer):
        def compute_loss(self, model, inputs, *args, **named):
            seen.append(tuple(inputs["input_ids"].shape))
            return super().compute_loss(model, inputs, *args, **named)

    trainer = Seeing(model(), arguments(tmp_path, num_train_epochs=1), plan=Plan(), train_dataset=small.rows(),
                     passes=Passes(tokens=3))  # fmt: skip
    trainer.train()
    assert [shape[0] for shape in seen] == [4, 4, 4]


class Second(WeighsTokens):
    """Weighs the second token of each row alone, so that no row is read to its end."""

    def weigh(self, batch):
        weights = torch.zeros(batch.input_ids.shape)
        weights[:, 1] = 1
        return weights


def test_padding_is_a_share_also_where_rows_end_at_their_last_weight(tmp_path):
    settings = arguments(tmp_path, max_steps=2)
    trainer = FocusTrainer(model(), settings, plan=Plan([Second()]), train_dataset=small.rows())
    trainer.train()
    update = trainer.update
    assert update.read == update.positions == 4 * 2, "two tokens of each of four rows"
    assert update.tokens > update.read
