"""Shared by the benchmarks of training: models, rows, arguments, and trainers that take turns."""

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from benchmarks.side_by_side import Spent, Tick, Turns, alternated
from foci import models
from foci.focus import Row
from foci.models.losses import vocabulary

MakeTrainer = Callable[[nn.Module, TrainingArguments], Trainer]


@dataclass(frozen=True)
class Setting:
    """A model, and the rows of one update (`batch` rows of `length` tokens)."""

    name: str
    model: nn.Module
    vocabulary: int
    dtype: torch.dtype
    batch: int
    length: int

    def rows(self, updates: int, share: float = 1.0, short: int = 0) -> list[Row]:
        """Random rows; the column `w` is 1 on a random `share` of the tokens and 0 elsewhere.

        The rows of the first `short` updates have 16 tokens: a warm-up that takes little time.
        """
        generator = torch.Generator().manual_seed(0)
        made = []
        for n in range(updates * self.batch):
            length = 16 if n < short * self.batch else self.length
            ids = torch.randint(2, self.vocabulary, (length,), generator=generator).tolist()
            weights = (torch.rand(length, generator=generator) < share).float().tolist()
            made.append(Row(f"row-{n}", tuple(ids), columns={"w": tuple(weights)}))
        return made

    def arguments(self, folder: str) -> TrainingArguments:
        """As `foci learn` has them, but rows are read in their order."""
        made = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=self.batch,
            learning_rate=1e-3,
            bf16=self.dtype == torch.bfloat16,
            train_sampling_strategy="sequential",
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
        )
        if made.n_gpu > 1:
            made._n_gpu = 1  # one process uses one device
        return made


def smollm2(batch: int, length: int) -> Setting:
    """The embedded model with LoRA, computed as `foci learn` does."""
    loaded = models.load("smollm2-135m")
    torch.manual_seed(0)
    model = models.add_adapter(loaded.model, models.Adapter())
    name = f"SmolLM2-135M, LoRA, {str(loaded.compute_dtype).removeprefix('torch.')}, {batch} x {length}"
    return Setting(name, model, vocabulary(models.head_of(model)), loaded.compute_dtype, batch, length)


def tiny(batch: int, length: int) -> Setting:
    """A model so small that the trainer itself is what takes time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    return Setting(
        f"tiny Llama, float32, {batch} x {length}", LlamaForCausalLM(config), 512, torch.float32, batch, length
    )


def timed_steps(
    setting: Setting,
    makers: Mapping[str, MakeTrainer],
    turns: Turns,
    per_turn: int = 1,
    copies: bool = True,
) -> tuple[dict[str, list[Spent]], dict[str, list[float]]]:
    """What an update of several trainers of the same model takes, in turns, and the losses that each logged.

    Each trainer has its own copy of the model (`copies`), and rows for all turns that there can be. A turn is
    `per_turn` updates.
    """
    losses: dict[str, list[float]] = {name: [] for name in makers}
    with tempfile.TemporaryDirectory() as folder:

        def side(name: str, make: MakeTrainer) -> Callable[[Tick], None]:
            def run(tick: Tick) -> None:
                trainer = make(copy.deepcopy(setting.model) if copies else setting.model, setting.arguments(folder))
                trainer.remove_callback(PrinterCallback)
                trainer.add_callback(_Turn(tick, turns, per_turn, losses[name]))
                turns.another(0)
                trainer.train()

            return run

        spent = alternated({name: side(name, make) for name, make in makers.items()}, turns.warmup)
    return {name: [one / per_turn for one in pieces] for name, pieces in spent.items()}, losses


class _Turn(TrainerCallback):
    """Ends a turn after every `per_turn` updates, and training when there is no further turn; keeps the losses."""

    def __init__(self, tick: Tick, turns: Turns, per_turn: int, losses: list[float]):
        self.tick, self.turns, self.per_turn, self.losses = tick, turns, per_turn, losses

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])
            if state.global_step % self.per_turn == 0:
                self.tick()
                control.should_training_stop = not self.turns.another(state.global_step // self.per_turn)
