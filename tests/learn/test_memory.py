"""Memory of a training from shapes: the bytes of the tensors that are really there, in one process and shared out."""

import pytest
import torch
from transformers import TrainingArguments

import tiny
from foci import FocusTrainer
from foci.focus import Row
from foci.learn.memory import Memory, memory_of
from foci.models.lean import Lean

FLOAT, HALF = torch.float32, torch.bfloat16
ROWS = [Row(f"row {n}", tuple(range(3 + n, 15 + n))) for n in range(4)]


def bytes_of(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("adapted", [True, False], ids=["lora", "all weights"])
def test_weights_gradients_and_moments_are_those_of_the_trainer(tmp_path, adapted):
    model = tiny.build("llama-tied")
    model = tiny.lora(model) if adapted else model
    told = memory_of(model, FLOAT)
    args = TrainingArguments(str(tmp_path), max_steps=1, use_cpu=True, report_to="none", save_strategy="no")
    trainer = FocusTrainer(model, args, train_dataset=ROWS)
    found = {}
    trainer.create_optimizer()
    own = trainer.optimizer.step

    def step(*given, **named):
        found["gradients"] = bytes_of(p.grad for p in model.parameters() if p.grad is not None)
        return own(*given, **named)

    trainer.optimizer.step = step
    trainer.train()
    state = [value for one in trainer.optimizer.state.values() for value in one.values()]
    assert told.gradients == found["gradients"]
    assert told.optimizer == bytes_of(state)
    assert told.parameters == bytes_of([*model.parameters(), *model.buffers()])
    assert (told.copies, told.gathered) == (0, 0)


def test_copies_are_those_of_the_lean_passes():
    model = tiny.lora(tiny.build("llama"))
    lean = Lean.of(model, HALF)
    frozen = [m.base_layer.weight for m in model.modules() if hasattr(m, "base_layer")]
    assert lean is not None
    assert memory_of(model, HALF).copies == bytes_of(frozen) // 2 > 0
    assert memory_of(model, HALF, processes=2, sharded=True).copies == 0
    assert memory_of(tiny.build("llama"), HALF).copies == 0


def test_a_process_holds_its_part_of_a_shared_model():
    """By hand: a matrix of 7 rows in 4 parts of 2, 2, 2 and 1; the first process has the largest, 2."""
    model = tiny.build("llama")
    whole, four = memory_of(model, FLOAT), memory_of(model, FLOAT, processes=4, sharded=True)
    parts = sum(-(-p.shape[0] // 4) * (p.numel() // p.shape[0]) * 4 for p in model.parameters())
    assert four.parameters == parts + bytes_of(model.buffers())
    assert (four.gradients, four.optimizer) == (parts, 2 * parts + 4 * len(list(model.parameters())))
    layers = [bytes_of(layer.parameters()) for layer in model.model.layers]
    assert four.gathered == 2 * (max(layers) + bytes_of(model.parameters()) - sum(layers))
    assert whole.gathered == 0


def test_processes_that_each_hold_the_model_hold_their_gradients_twice():
    """DDP sums them in buckets of its own."""
    model = tiny.build("llama")
    one, two = memory_of(model, FLOAT), memory_of(model, FLOAT, processes=2)
    assert two.gradients == 2 * one.gradients
    assert (two.parameters, two.optimizer) == (one.parameters, one.optimizer)


def test_activations_are_what_is_left_of_a_peak():
    told = Memory(parameters=100, copies=20, gradients=7, optimizer=3).with_peak(1000, program=500)
    assert (told.activations, told.total) == (370, 1000)
    assert Memory(1, 1, 1, 1).with_peak(1, program=500).activations == 0
