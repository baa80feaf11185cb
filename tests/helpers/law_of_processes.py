"""Trainings in float64 with every role at work, in any number of processes; test_law_of_processes.py compares them."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

import small
import tiny
from foci import FocusTrainer, Plan
from foci.focus import Batch, Context, HoldsWeights, Row, WeighsTokens
from foci.methods.lwf import Lwf
from foci.models import sharding
from foci.system import processes
from foci.training.passes import Passes
from foci.training.sharing import shares, with_rows

ROWS = 4
"""Rows of an update."""
UPDATES = 20


@dataclass(frozen=True)
class Ranked(WeighsTokens):
    """Weighs the half of an update's tokens with the larger column, by their rank."""

    def needs(self) -> frozenset[str]:
        return frozenset({"w"})

    def weigh(self, batch: Batch) -> Tensor:
        at = batch.predicted()
        ranks = batch.columns["w"][at].argsort().argsort().float() / at.sum()
        return torch.zeros(at.shape).masked_scatter(at, ranks * (ranks >= 0.5))


@dataclass(frozen=True)
class Elastic(HoldsWeights):
    """Pulls single weights with strengths of their own, as `ewc` does."""

    strengths: Mapping[str, Tensor]

    def pull(self, step: int) -> Mapping[str, Tensor]:
        return self.strengths


def elastic() -> Elastic:
    draw = torch.Generator().manual_seed(3)
    named = tiny.build("llama").double().named_parameters()
    return Elastic({name: torch.rand(p.shape, generator=draw).double() for name, p in named})


def stored() -> Any:
    """What the untouched model says of the rows, asked before training."""
    folder = Path(tempfile.mkdtemp())
    return Lwf(below=0.5, k=9).prepare(Context(tiny.build("llama"), tiny.tokenizer(), rows(), folder))[0]


def everything() -> list[Any]:
    """A method of each role, several of some."""
    return [
        small.Column(), small.ByPosition(), small.Dropped(), small.LookTwoWays(), small.Imitating(),
        small.Scaled({"layers.0": 0.5, "embeddings": 2.0}), small.Old(small.rows(5, seed=9)), small.Pulled(), elastic(),
    ]  # fmt: skip


class ExactRMSNorm(nn.Module):
    """Llama's norm without its cast to float32."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt())


def double(net: nn.Module) -> nn.Module:
    """The model in float64 throughout."""
    for module in net.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.__class__ = ExactRMSNorm
    return net.double()


@dataclass(frozen=True)
class Case:
    """A model, a plan, and how it is trained.

    `rows` are those of an update. Several processes read at most `batch` of them in a micro-batch, and pack them as
    `packs` says; one process reads all in one micro-batch, apart.
    """

    model: Callable[[], nn.Module]
    methods: Callable[[], Sequence[Any]]
    normalise: str = "update"
    lean: bool = False
    tokens: int | None = None
    changes: Mapping[str, Any] | None = None
    rows: int = ROWS
    batch: int = ROWS
    packs: int | None = None


CASES: dict[str, Case] = {
    "every role": Case(lambda: tiny.build("llama"), everything, changes={"train_sampling_strategy": "group_by_length"}),
    "tied head, live losses": Case(lambda: tiny.build("llama-tied"), lambda: [small.Hard(), Ranked()]),
    "rows alike": Case(
        lambda: tiny.build("gpt2"), lambda: [Ranked(), small.Imitating(temperature=2.0)], normalise="row",
        changes={"train_sampling_strategy": "sequential"},
    ),
    "adapter, lean": Case(
        lambda: tiny.lora(tiny.build("llama")), lambda: [small.Column(), small.Imitating(), small.Pulled()], lean=True,
        tokens=30,
    ),
    "accumulated": Case(
        lambda: tiny.build("llama"), lambda: [Ranked(), small.Dropped(), small.LookTwoWays(), small.Imitating()],
        batch=1,
    ),
    "packed, accumulated, stored teacher": Case(
        lambda: tiny.lora(tiny.build("llama")), lambda: [Ranked(), stored(), small.Pulled()], lean=True, rows=9,
        batch=2, packs=48,
    ),
    "rows that are read apart": Case(lambda: tiny.stretched("longrope"), lambda: [small.Column()]),
}  # fmt: skip


SHARDED = {
    2: ["every role", "tied head, live losses", "adapter, lean", "accumulated", "packed, accumulated, stored teacher"],
    3: ["every role"],
}
"""Cases in which the model is shared by so many processes; three hold parts of unequal size."""


def rows() -> list[Row]:
    """Rows that do not come out even: 11 of them, some beyond the length at which rows are read apart."""
    return small.rows(11, shortest=5, longest=24)


def trained(name: str, folder: Path, *, shards: bool = False) -> dict[str, Tensor]:
    """The trained weights after the updates of one case, in this process and those that are connected.

    `shards`: each process keeps a part of the model.
    """
    case, count = CASES[name], processes.size()
    batch, micro_batches = shares(case.rows, case.batch if count > 1 else case.rows, count)
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=batch, gradient_accumulation_steps=micro_batches, max_steps=UPDATES,
        learning_rate=1e-2, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        seed=5, logging_steps=100, **(case.changes or {}),
    )  # fmt: skip
    model = double(case.model())
    if shards:
        sharding.shard(model)
    trainer = FocusTrainer(
        model, with_rows(arguments, case.rows), plan=Plan(case.methods(), normalise=case.normalise),
        train_dataset=rows(), passes=Passes(case.lean, case.tokens, case.packs if count > 1 else None),
    )  # fmt: skip
    trainer.train()
    if not shards:
        return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    every = dict(trainer.model.named_parameters())
    assert all(isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in every.values() if p.shape[0] > 1)
    assert sum(p.to_local().numel() for p in every.values()) < 0.6 * sum(p.numel() for p in every.values())
    return {name: sharding.whole(p.detach()) for name, p in every.items() if p.requires_grad}


def train_all(folder: Path) -> None:
    """Trains every case in the processes of a launcher; the first writes the weights."""
    with processes.together():
        for name in CASES:
            for shards in (False, True) if name in SHARDED[processes.size()] else (False,):
                found = trained(name, folder / "run", shards=shards)
                if processes.is_first():
                    torch.save(found, folder / f"{'sharded' if shards else 'whole'} {processes.size()} {name}.pt")
