"""What cannot be shared among processes is refused by name, before anything is sharded."""

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import Dataset
from transformers import TrainingArguments

import small
import tiny
from foci import FocusTrainer, Plan
from foci.focus import Batch, Row
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


class Foreign(Dataset):
    """Rows of somebody else's data set, with labels."""

    def __len__(self):
        return 4

    def __getitem__(self, number):
        return {"input_ids": list(range(2, 8 + 6 * number))}


def collated(items):
    batch = Batch.of([Row("foreign", tuple(item["input_ids"])) for item in items], tiny.PAD)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}


def test_long_rows_of_a_foreign_data_set_are_refused_when_they_are_read(tmp_path):
    """They lie in no list, so how long they are is known only then."""
    args = TrainingArguments(
        str(tmp_path), report_to="none", use_cpu=True, per_device_train_batch_size=4, save_strategy="no"
    )
    trainer = FocusTrainer(
        tiny.stretched("longrope"), args, plan=Plan([small.ByPosition()]), train_dataset=Foreign(),
        data_collator=collated,
    )  # fmt: skip
    trainer.is_sharded = True
    with pytest.raises(ValueError, match=r"rows above 16 tokens apart .*got a row of 24; set corpus.max_length"):
        trainer.train()


@pytest.fixture
def connected():
    """A group of this process alone, as FSDP2 asks for one."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_what_another_has_sharded_is_refused(connected):
    model = tiny.build("llama")
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    with pytest.raises(ValueError, match=r"LlamaForCausalLM that fully_shard has split in another way; shard"):
        sharding.check_trainable(model)


def test_a_part_that_was_added_afterwards_is_refused(connected):
    model = tiny.build("llama")
    sharding.shard(model)
    sharding.check_trainable(model)
    model.lm_head.register_parameter("gain", nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match=r"got 'lm_head.gain' whole in each; shard the whole model .* last"):
        sharding.check_trainable(model)


def test_without_sharding_a_tensor_is_its_own_part():
    weight = torch.ones(3, 2)
    assert sharding.part_of(weight, torch.zeros(3, 2)) is weight
    assert sharding.whole(weight) is weight
    assert not sharding.is_sharded(tiny.build("llama"))


def test_a_process_that_is_alone_cannot_share():
    with pytest.raises(ValueError, match=r"LlamaForCausalLM over connected processes.*is alone; start the script"):
        sharding.shard(tiny.build("llama"))
