"""What cannot be shared among processes is refused by name, before anything is sharded."""

import pytest
import torch
from torch import nn
from transformers import TrainingArguments

import small
import tiny
from foci import FocusTrainer
from foci.models import Adapter, add_adapter, sharding


def test_an_adapter_that_trains_by_hooks_is_refused():
    model = add_adapter(tiny.build("llama"), Adapter(type="osf"))
    with pytest.raises(
        ValueError, match=r"types lora, rslora and dora.*got osf; change adapter.type, or set train.fsdp"
    ):
        sharding.shard(model)


def test_a_balancing_loss_of_routers_is_refused():
    model = tiny.build("llama")
    model.config.output_router_logits = True
    with pytest.raises(ValueError, match=r"LlamaForCausalLM adds a balancing loss .*output_router_logits: false"):
        sharding.shard(model)


def test_a_single_number_is_refused():
    model = tiny.build("llama")
    model.model.norm.gain = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"got the single number model\.norm\.gain; set train\.fsdp: false"):
        sharding.shard(model)


def test_rows_that_are_read_apart_are_refused(tmp_path):
    """Processes that share a model must pass equally often."""
    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    rows = small.rows(4, shortest=5, longest=24)
    trainer = FocusTrainer(tiny.stretched("longrope"), args, train_dataset=rows)
    trainer.is_sharded = True
    longest = max(len(row) for row in rows)
    with pytest.raises(
        ValueError, match=rf"rows above \d+ tokens apart .*got a row of {longest}; set corpus.max_length"
    ):
        trainer.prove()


def test_without_sharding_a_tensor_is_its_own_part():
    weight = torch.ones(3, 2)
    assert sharding.part_of(weight, torch.zeros(3, 2)) is weight
    assert sharding.whole(weight) is weight
    assert not sharding.is_sharded(tiny.build("llama"))


def test_a_process_that_is_alone_cannot_share():
    with pytest.raises(ValueError, match=r"LlamaForCausalLM over connected processes.*is alone; start the script"):
        sharding.shard(tiny.build("llama"))
