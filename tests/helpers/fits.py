"""Run by test_fitting.py in several processes: how each reads rows of a model that they share."""

import json
from pathlib import Path

import torch

import tiny
from foci.config.train import TrainConfig
from foci.learn.fitting import fitting
from foci.system import machine, processes


def write_fit(folder: Path, free: tuple[int, ...]) -> None:
    """Writes whether this process computes activations again, with so many free bytes in each."""
    with processes.together():
        number = processes.number()
        machine.free_bytes = lambda _: free[number]
        fit = fitting(TrainConfig(), tiny.lora(tiny.build("llama")), 50, torch.float32, shares=processes.size())
        (folder / f"{number}.json").write_text(json.dumps([fit.tokens, fit.recomputes]))
