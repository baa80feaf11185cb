"""Gradient norms of every example and block: time beside one backward pass per example, memory beside torch.func.

And what a profile of them buys: an update with the lower half of the layers frozen beside one with all moving.

32 spans of 1 to 4 tokens at the end of rows of 12 to 32 tokens, all weights, float32. The peak of each way is measured
in a process of its own, time in turns in one process.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from benchmarks.side_by_side import Allowance, Result, device, extra_peak_mib, in_turns
from benchmarks.training import MakeTrainer, Setting, timed_steps
from foci import FocusTrainer, Plan, models
from foci.focus import Batch, Row, ScalesLayers
from foci.gradients.norms import block_norms
from foci.models.losses import token_nll, vocabulary

TIME_GOAL, MEMORY_GOAL, FROZEN_GOAL = 0.5, 0.2, 0.75
SPANS = 32
MEMORY_EXAMPLES, MEMORY_TOKENS = 32, 32
TOLERANCE = 5e-4
"""Relative, of every norm: one backward pass in float32 is up to 2e-4 off its float64, ours 2e-5 (SmolLM2, a CPU)."""


def run(allowed: Allowance) -> list[Result]:
    """Time of SmolLM2 (left out when quick) and of a small model, and the small model's memory."""
    small = ("small Llama, 5.2 M parameters", small_llama())
    settings = [small] if allowed.quick else [("SmolLM2-135M", models.load("smollm2-135m").model), small]
    norms = [compare(name, model, allowed.part(0.4 / (n + 1))) for n, (name, model) in enumerate(settings)]
    return [*norms, memory(), *(half_frozen(name, model, allowed.part(0.35)) for name, model in settings[:1])]


def small_llama() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=128, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        tie_word_embeddings=False,
    )  # fmt: skip
    config._attn_implementation = "eager"  # vmap runs SDPA on a CPU row by row
    return LlamaForCausalLM(config).to(device()).eval()


def spans(size: int) -> tuple[list[Row], list[int]]:
    """Random rows and the length of the span at the end of each."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(12, 33, (SPANS,), generator=generator).tolist()
    rows = [
        Row(f"span-{n}", tuple(torch.randint(2, size, (length,), generator=generator).tolist()))
        for n, length in enumerate(lengths)
    ]
    return rows, torch.randint(1, 5, (SPANS,), generator=generator).tolist()


def batch_of(rows: list[Row], ends: list[int]) -> tuple[Batch, Tensor]:
    """The rows in one batch, and where their spans are."""
    batch = Batch.of(rows, 0).to(device())
    mask = torch.zeros_like(batch.input_ids, dtype=torch.bool)
    for n, (row, end) in enumerate(zip(rows, ends, strict=True)):
        mask[n, len(row) - end : len(row)] = True
    return batch, mask


def compare(name: str, model: PreTrainedModel, allowed: Allowance) -> Result:
    """Raises AssertionError unless both ways find the same norms to `TOLERANCE`."""
    rows, ends = spans(vocabulary(models.head_of(model)))
    together = batch_of(rows, ends)
    apart = [batch_of([row], [end]) for row, end in zip(rows, ends, strict=True)]
    made: dict[str, dict[str, Tensor]] = {}

    def ours() -> None:
        made["foci"] = block_norms(model, *together)

    def theirs() -> None:
        made["rival"] = one_by_one(model, apart)

    spent = in_turns({"foci": ours, "rival": theirs}, 4, allowed, warmup=0)
    worst = difference(made["foci"], made["rival"])
    return Result.timed(
        f"gradient norms of {SPANS} spans, every block: {name}", spent["foci"], spent["rival"],
        rival="one backward pass per example", goal=TIME_GOAL, note=f"norms within {worst:.1e}, relative",
    )  # fmt: skip


def one_by_one(model: PreTrainedModel, apart: list[tuple[Batch, Tensor]]) -> dict[str, Tensor]:
    """Each example alone, without padding; only the span reaches the LM head."""
    found: dict[str, list[Tensor]] = {}
    for batch, mask in apart:
        model.zero_grad(set_to_none=True)
        (token_nll(model, batch, mask).sum() / mask.sum()).backward()
        squares: dict[str, Tensor] = {}
        for name, p in model.named_parameters():
            assert p.grad is not None
            block = models.block_of(name)
            squares[block] = squares.get(block, torch.zeros((), device=p.device)) + p.grad.square().sum()
        for block, square in squares.items():
            found.setdefault(block, []).append(square.sqrt())
    model.zero_grad(set_to_none=True)
    return {block: torch.stack(norms) for block, norms in found.items()}


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest relative difference of two ways' norms; AssertionError beyond `TOLERANCE`."""
    assert set(ours) == set(theirs), f"other blocks: {sorted(set(ours) ^ set(theirs))}"
    worst = max(float(((ours[block] - theirs[block]) / theirs[block]).abs().max()) for block in theirs)
    assert worst <= TOLERANCE, f"norms differ by {worst:.1e}, expected at most {TOLERANCE}"
    return worst


def memory() -> Result:
    """Extra peak memory; raises AssertionError unless both ways find the same norms to `TOLERANCE`."""
    model, ids = small_llama(), memory_ids()
    worst = difference(together(model, ids), per_example(model, ids))
    peaks = {way: peak_of(way) for way in WAYS}
    return Result.of(
        f"extra peak memory of gradient norms: small Llama, {MEMORY_EXAMPLES} x {MEMORY_TOKENS}", "MiB",
        [peaks["foci"]], [peaks["torch.func"]], rival="torch.func per-example gradients", goal=MEMORY_GOAL,
        note=f"norms within {worst:.1e}, relative",
    )  # fmt: skip


def memory_ids(examples: int = MEMORY_EXAMPLES) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, 4096, (examples, MEMORY_TOKENS), generator=generator).to(device())


def together(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    every = torch.ones_like(ids)
    return block_norms(model, Batch(ids, every, ids), every.bool())


def per_example(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    """All gradients of all examples at once, by `vmap(grad)`."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        output = functional_call(model, parameters, (), {"input_ids": row[None], "use_cache": False})
        return F.cross_entropy(output.logits[0, :-1], row[1:])

    grads = vmap(grad(loss), in_dims=(None, 0))(parameters, ids)
    squares: dict[str, Tensor] = {}
    for name, value in grads.items():
        block = models.block_of(name)
        squares[block] = squares.get(block, torch.zeros((), device=value.device)) + value.flatten(1).square().sum(1)
    return {block: square.sqrt() for block, square in squares.items()}


WAYS: dict[str, Callable[[PreTrainedModel, Tensor], dict[str, Tensor]]] = {
    "foci": together,
    "torch.func": per_example,
}


def peak_of(way: str) -> float:
    """MiB beyond model and tokens, in a fresh process (forked from one that has only imported this module)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak, way).result()


def _peak(way: str) -> float:
    """One example goes before, to load what a first call loads."""
    model = small_llama()
    WAYS[way](model, memory_ids(1))
    return extra_peak_mib(partial(WAYS[way], model, memory_ids()))


@dataclass(frozen=True)
class Still(ScalesLayers):
    """These blocks rest."""

    names: frozenset[str]

    def blocks(self) -> frozenset[str]:
        """The blocks that rest."""
        return self.names

    def scale(self, block: str) -> float:
        """0 for a block that rests, else 1."""
        return float(block not in self.names)


def half_frozen(name: str, model: PreTrainedModel, allowed: Allowance) -> Result:
    """An update of all weights, 16 x 64 tokens: embeddings (a tied head too) and the lower half of the layers frozen.

    Raises AssertionError unless what is frozen stays and the rest moves.
    """
    half = models.layer_count(model) // 2
    still = frozenset({"embeddings", *(f"layers.{n}" for n in range(half))})
    dtype = models.compute_dtype("auto", device().type) if name.startswith("SmolLM2") else torch.float32
    kind = str(dtype).removeprefix("torch.")
    setting = Setting(name, model, vocabulary(models.head_of(model)), dtype, 16, 64)
    most, warmup, trained = 8, 1, dict[str, nn.Module]()
    rows = setting.rows(most + warmup)
    makers = {
        "foci": _trainer(Plan([Still(still)]), rows, trained, "foci"),
        "rival": _trainer(Plan(), rows, trained, "rival"),
    }
    spent, _ = timed_steps(setting, makers, allowed.turns(most, warmup))
    for side, resting in {"foci": still, "rival": frozenset[str]()}.items():
        pairs = zip(trained[side].named_parameters(), model.parameters(), strict=True)
        moved = {models.block_of(n) for (n, after), before in pairs if not torch.equal(after, before)}
        assert moved == set(models.blocks(model)) - resting, f"{side}: {sorted(moved)} moved"
    return Result.timed(
        f"update with the lower half frozen: {name}, all weights, {kind}, 16 x 64", spent["foci"], spent["rival"],
        rival="all moving", goal=FROZEN_GOAL,
        note=f"{half} of {models.layer_count(model)} layers and the embeddings rest, bit for bit",
    )  # fmt: skip


def _trainer(plan: Plan, rows: Sequence[Row], trained: dict[str, nn.Module], side: str) -> MakeTrainer:
    def make(model: nn.Module, arguments: TrainingArguments) -> Trainer:
        trained[side] = model
        return FocusTrainer(model, arguments, plan=plan, train_dataset=rows)

    return make
