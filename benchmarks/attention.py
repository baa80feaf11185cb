"""Attention without an S x S map: scoring a text beside eager attention's maps, and what guided heads cost a step.

Every peak is measured in a process of its own, times in turns in one process.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.side_by_side import Allowance, Result, device, extra_peak_mib, in_turns
from foci import models
from foci.attention import Guide, guided, pattern_targets, received
from foci.focus import Pattern, Row
from foci.methods.contrast.corpus_attention import AttentionQuery, attention_received

MAPS = "eager, output_attentions=True"
PATTERNS: tuple[Pattern, ...] = ("previous", "previous-2", "first")
LONG, LONG_MIB = 8192, 512


@dataclass(frozen=True)
class Size:
    """A random Llama in float32, half of its heads guided, and one batch of random tokens."""

    layers: int = 4
    width: int = 768
    heads: int = 12
    batch: int = 4
    length: int = 512

    @property
    def name(self) -> str:
        shape = f"{self.layers} layers x {self.width}, {self.heads} heads, half guided"
        return f"{shape}, float32, {self.batch} x {self.length} tokens"

    def model(self) -> LlamaForCausalLM:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=4096, hidden_size=self.width, intermediate_size=4 * self.width, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, max_position_embeddings=self.length, pad_token_id=0, eos_token_id=1,
            bos_token_id=None,
        )  # fmt: skip
        return LlamaForCausalLM(config).to(device())

    def targets(self) -> dict[int, dict[int, Pattern]]:
        half = self.heads // 2
        return {layer: {h: PATTERNS[h * len(PATTERNS) // half] for h in range(half)} for layer in range(self.layers)}


def run(allowed: Allowance) -> list[Result]:
    """The rows of scoring, then those of guidance; a quick run has a smaller model and shorter texts."""
    quick = allowed.quick
    size = Size(2, 128, 8, 2, 256) if quick else Size()
    scored = scoring(512 if quick else 1024, allowed.part(0.15))
    corpus = mixed(16 if quick else 32, allowed.part(0.25))
    return [*scored, corpus, long_text(), *guidance(size, allowed.part(0.3))]


def scoring(length: int, allowed: Allowance) -> list[Result]:
    """Raises AssertionError unless both ways give the same scores."""
    sides = ("foci", "rival")
    model, ids = smollm2(), tokens(1, length, 40000)
    made: dict[str, Tensor] = {}

    def call(side: str) -> None:
        made[side] = score(side, model, ids)

    for side in sides:
        score(side, model, ids[:, :32])  # loads what a first call loads
    spent = in_turns({side: partial(call, side) for side in sides}, 3, allowed, warmup=0)
    apart = float((made["foci"] - made["rival"]).abs().max())
    assert apart < 1e-5, f"scores differ by {apart}"
    peaks = {side: fresh(scoring_peak, side, length) for side in sides}
    what = f"attention received, SmolLM2-135M, float32, 1 x {length} tokens"
    return [
        Result.of(
            f"{what}, peak memory", "MiB", [peaks["foci"]], [peaks["rival"]], rival=MAPS, goal=0.1,
            note=f"scores within {apart:.0e}",
        ),
        Result.timed(f"{what}, time", spent["foci"], spent["rival"], rival=MAPS, goal=1.0),
    ]  # fmt: skip


def smollm2() -> nn.Module:
    return models.load("smollm2-135m").model


def tokens(batch: int, length: int, vocabulary: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, vocabulary, (batch, length), generator=generator).to(device())


def score(side: str, model: nn.Module, ids: Tensor) -> Tensor:
    """Attention received per token; the rival's from whole maps, both without the LM head."""
    if side == "foci":
        return received(model, ids, torch.ones_like(ids))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model.base_model(input_ids=ids, use_cache=False, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    mean = sum(layer.mean(1) for layer in maps) / len(maps)
    return mean.sum(1) / torch.arange(ids.shape[1], 0, -1, device=ids.device)


def scoring_peak(side: str, length: int) -> float:
    model = smollm2()
    score(side, model, tokens(1, 32, 40000))
    return extra_peak_mib(partial(score, side, model, tokens(1, length, 40000)))


def mixed(count: int, allowed: Allowance) -> Result:
    """A corpus of texts of 24 to 256 tokens as `foci score` reads it, beside one text a pass with all maps and logits.

    Raises AssertionError unless both ways give the same scores.
    """
    loaded = models.load("smollm2-135m")
    lengths = torch.randint(24, 257, (count,), generator=torch.Generator().manual_seed(1)).tolist()
    rows = [Row(str(n), tuple(tokens(1, length, 40000)[0].tolist())) for n, length in enumerate(lengths)]
    single, half = replace(loaded, compute_dtype=torch.float32), str(loaded.compute_dtype).removeprefix("torch.")
    apart = max(
        float((torch.tensor(line) - one_document(loaded.model, row).cpu()).abs().max())
        for row, line in zip(
            rows[:4], attention_received(single, rows[:4], loaded.tokenizer, AttentionQuery()), strict=True
        )
    )
    assert apart < 1e-5, f"scores differ by {apart}"

    def theirs() -> None:
        with torch.autocast(device().type, dtype=loaded.compute_dtype, enabled=loaded.compute_dtype != torch.float32):
            for row in rows:
                one_document(loaded.model, row)

    calls: dict[str, Callable[[], object]] = {
        "foci": lambda: attention_received(loaded, rows, loaded.tokenizer, AttentionQuery()), "rival": theirs
    }  # fmt: skip
    spent = in_turns(calls, 3, allowed, warmup=0)
    per = {side: [took / (sum(lengths) / 1000) for took in spent[side]] for side in spent}
    what = f"attention received, SmolLM2-135M, {half}, {count} texts of 24 to 256 tokens, time per 1000 tokens"
    return Result.timed(
        what, per["foci"], per["rival"], rival="one document per pass, all maps and logits", goal=0.5,
        note=f"float32 scores within {apart:.0e}",
    )  # fmt: skip


def one_document(model: nn.Module, row: Row) -> Tensor:
    """The published way, with its sum over keys mended."""
    ids = torch.tensor([row.input_ids], device=device())
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(input_ids=ids, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    return torch.stack(maps).mean((0, 1, 2)).tril().sum(0) / torch.arange(ids.shape[1], 0, -1, device=ids.device)


def long_text() -> Result:
    """A text whose maps would not fit: they alone would be 2 GiB (2 layers x 4 heads x 8192^2 x 4 bytes)."""
    peak = fresh(long_peak)
    return Result.of(
        f"attention received, 2 layers x 64, 4 heads, float32, 1 x {LONG} tokens, peak memory", "MiB", [peak],
        [LONG_MIB], rival="the limit; eager's maps alone would be 2048 MiB", goal=1.0,
    )  # fmt: skip


def long_peak() -> float:
    model = Size(2, 64, 4, 1, LONG).model()
    received(model, *[torch.ones(1, 32, dtype=torch.long, device=device())] * 2)
    ids = tokens(1, LONG, 4096)
    return extra_peak_mib(lambda: received(model, ids, torch.ones_like(ids)))


def guidance(size: Size, allowed: Allowance) -> list[Result]:
    """Time of a guided step beside an unguided one and one with all maps, and the memory that guidance adds."""
    sides = ("guided", "plain", "maps")
    model = size.model()
    steps, losses = {side: step(side, model, size) for side in sides}, dict[str, float]()

    def call(side: str) -> None:
        losses[side] = steps[side]()

    spent = in_turns({side: partial(call, side) for side in sides}, 5, allowed, warmup=0)
    apart = abs(losses["guided"] - losses["maps"]) / losses["maps"]
    assert apart < 1e-4, f"pattern losses differ: {losses}"
    del model
    peaks = {side: fresh(step_peak, side, size) for side in sides}
    more = {side: max(0.0, peaks[side] - peaks["plain"]) for side in sides}
    rival, what = "all maps, squared differences", f"forward and backward, {size.name}"
    return [
        Result.timed(f"{what}, time", spent["guided"], spent["plain"], rival="unguided", goal=1.15),
        Result.timed(
            f"{what}, time", spent["guided"], spent["maps"], rival=rival, goal=1.0,
            note=f"pattern losses within {apart:.0e}, relative",
        ),
        Result.of(
            f"{what}, memory beyond the unguided step's", "MiB", [more["guided"]], [more["maps"]], rival=rival, goal=0.2
        ),
    ]  # fmt: skip


def step(side: str, model: LlamaForCausalLM, size: Size) -> Callable[[], float]:
    """One forward and backward pass without an optimiser; returns the pattern loss (0 where there is none)."""
    ids = tokens(size.batch, size.length, 4096)
    real = torch.ones_like(ids, dtype=torch.bool)
    scales = {pattern: 1 / float(pattern_targets(pattern, real)[1].sum()) for pattern in PATTERNS}

    def plain() -> float:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return 0.0

    def with_guide() -> float:
        with guided(model, Guide(size.targets(), real, scales)) as guide:
            plain()
        return float(sum(float(value) for value in guide.values.values()))

    def with_maps() -> float:
        model.set_attn_implementation("eager")
        made = model(input_ids=ids, labels=ids, use_cache=False, output_attentions=True)
        model.set_attn_implementation("sdpa")
        loss = sum(
            map_loss(made.attentions[layer], size, pattern) * scales[pattern]
            for layer in range(size.layers)
            for pattern in PATTERNS
        )
        (made.loss + loss).backward()
        return float(loss.detach())

    def call() -> float:
        model.zero_grad(set_to_none=True)
        return {"plain": plain, "guided": with_guide, "maps": with_maps}[side]()

    return call


def map_loss(maps: Tensor, size: Size, pattern: Pattern) -> Tensor:
    """The sum over rows that have a target, the mean over the pattern's heads."""
    chosen = [head for head, wanted in size.targets()[0].items() if wanted == pattern]
    real = torch.ones(maps.shape[0], maps.shape[2], dtype=torch.bool, device=maps.device)
    target, has = pattern_targets(pattern, real)
    wanted = nn.functional.one_hot(target, maps.shape[3]).to(maps.dtype)
    return ((maps[:, chosen] - wanted[:, None]).square().sum(-1) * has[:, None]).sum() / len(chosen)


def step_peak(side: str, size: Size) -> float:
    """A short step goes before, to load what a first call loads and to make the gradients' room."""
    model = size.model()
    step(side, model, Size(size.layers, size.width, size.heads, 1, 16))()
    return extra_peak_mib(step(side, model, size))


def fresh(work: Callable[..., float], *arguments: object) -> float:
    """The result of a call in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()
