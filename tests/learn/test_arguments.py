"""What the Trainer is told on a GPU."""

import torch
from transformers import TrainingArguments

from foci.config.train import TrainConfig
from foci.learn import arguments as module


def test_on_a_gpu_adamw_is_fused_and_batches_are_pinned(monkeypatch, tmp_path):
    given = {}

    def recorded(**settings):
        given.update(settings)
        return TrainingArguments(**{**settings, "use_cpu": True, "dataloader_pin_memory": False})

    monkeypatch.setattr(module, "TrainingArguments", recorded)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made = module.arguments(TrainConfig(), 0, tmp_path, torch.bfloat16)
    assert made.optim == "adamw_torch_fused"
    assert given["dataloader_pin_memory"]
    assert not given["use_cpu"]
    assert given["bf16"]
