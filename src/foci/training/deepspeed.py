"""Refuses by name what of DeepSpeed would not train a plan as one process without it does.

DeepSpeed 0.19.8 was tried with ZeRO stages 1 and 2, which share out gradients and moments. accelerate lets it step
inside of the backward pass, and it keeps float32 weights of its own, which it copies over the model's after each step.
So what changes the weights or the rates around a step would do nothing, and numbers other than float32 would be
rounded. Stage 3 gathers weights at every call of a module, and processes wait for ever where one calls the LM head or
the model more often than another, as they do here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foci.focus import HoldsWeights, Plan
from foci.models.sharding import is_sharded

STAGES = (1, 2)
SETTINGS = frozenset({
    "dump_state", "gradient_accumulation_steps", "gradient_clipping", "steps_per_print", "train_batch_size",
    "train_micro_batch_size_per_gpu", "wall_clock_breakdown", "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer", "zero_optimization",
})  # fmt: skip
"""Settings under which the weights of one process were found, or that change no number."""
ZERO_SETTINGS = frozenset({
    "allgather_bucket_size", "contiguous_gradients", "overlap_comm", "reduce_bucket_size", "reduce_scatter", "stage",
})  # fmt: skip
OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
"""Optimisers that treat each number alone: DeepSpeed gives them a part of all weights as one row of numbers."""
WITHOUT = "train without DeepSpeed under torchrun: whole models, or shared ones by foci.models.sharding.shard (FSDP2)"


def check(plan: Plan, args: Any, model: nn.Module | None) -> None:
    """Raises ValueError, with a cure, for what DeepSpeed would train otherwise than one process without it does.

    Does nothing where the arguments ask for no DeepSpeed, and for an empty plan, which is the Trainer's own.
    """
    plugin = getattr(args, "deepspeed_plugin", None)
    asked = getattr(args, "hf_deepspeed_config", None) or getattr(plugin, "hf_ds_config", None)
    if asked is None or not plan.methods:
        return
    _check_settings(asked.config)
    for method in plan.of(HoldsWeights):
        raise ValueError(
            f"{method!r} pulls weights after the optimiser's step or paces it, and DeepSpeed steps earlier, with "
            f"weights of its own; drop the method, or {WITHOUT}"
        )
    if half := [name for name in ("bf16", "fp16") if getattr(args, name, False)]:
        raise ValueError(
            f"{half[0]}=True makes DeepSpeed round the model's weights and those of tokens; train in float32, or "
            f"{WITHOUT}"
        )
    if model is not None:
        _check_model(model)


def _check_settings(config: Mapping[str, Any]) -> None:
    zero = config.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    if stage not in STAGES:
        raise ValueError(
            f"a plan trains under DeepSpeed's ZeRO stages 1 and 2, got stage {stage}; set zero_optimization.stage to 2,"
            f" or {WITHOUT}"
        )
    if "gradient_clipping" not in config:
        raise ValueError(
            "DeepSpeed's configuration has no gradient_clipping, so accelerate clips at 1.0 whatever max_grad_norm is; "
            'set "gradient_clipping": "auto"'
        )
    for name, value in config.items():
        if name not in SETTINGS and not _is_off(value):
            raise ValueError(
                f"DeepSpeed's setting {name!r} has not been tried with a plan, got {value!r}; leave it out, and set "
                "optimiser, schedule and precision in the TrainingArguments"
            )
    for name, value in zero.items():
        if name not in ZERO_SETTINGS and not name.startswith("stage3_") and not _is_off(value):
            raise ValueError(
                f"DeepSpeed's setting 'zero_optimization.{name}' has not been tried with a plan, got {value!r}; leave "
                "it out"
            )


def _is_off(value: Any) -> bool:
    """Returns whether a setting says that something is off: {"enabled": false}, {"device": "none"}, false or null."""
    if not isinstance(value, Mapping):
        return value is None or value is False
    return value.get("enabled") is False or value.get("device", "") in (None, "none")


def _check_model(model: nn.Module) -> None:
    if is_sharded(model):
        raise ValueError(
            f"FSDP2 shards this {type(model).__name__} already, and DeepSpeed would share it once more; leave out "
            "deepspeed of the TrainingArguments"
        )
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ValueError(
                f"DeepSpeed keeps the weights that it trains in float32, got {name!r} in {parameter.dtype}; load the "
                f"model in float32 (dtype=torch.float32), or {WITHOUT}"
            )


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError for an optimiser that would take other steps on the parts that DeepSpeed gives it."""
    if type(optimizer) not in OPTIMIZERS:
        raise ValueError(
            f"under DeepSpeed a plan trains with SGD, Adam or AdamW of torch, got {type(optimizer).__name__}: another "
            "may look at whole matrices, and DeepSpeed gives it a row of numbers; set optim to adamw_torch or sgd"
        )


def check_resume(folder: str | Path) -> None:
    """Raises ValueError for a checkpoint that DeepSpeed wrote: a Trainer without it would begin with empty moments."""
    if (Path(folder) / "latest").is_file():
        raise ValueError(
            f"DeepSpeed wrote the checkpoint {folder}, and only DeepSpeed reads its optimiser; go on with deepspeed in "
            "the TrainingArguments, or begin a new training from its model"
        )
