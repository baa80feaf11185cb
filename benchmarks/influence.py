"""Token influence beside double backward: peak memory, time and growth, 8 layers x 512, float32; one meta step."""

import json
import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.side_by_side import Allowance, Result, Spent, allocated_peak_mib, device, extra_peak_mib, in_turns
from foci import models
from foci.data.biographies import Biographies, generate
from foci.focus import Batch
from foci.gradients import by_row
from foci.gradients.influence import gradient_alignment, token_influence
from foci.gradients.inner_step import InnerStep
from foci.meta.material import Material
from foci.meta.objectives import Loop
from foci.methods.train_attention import weigher
from foci.methods.train_attention.pairs import Pair, documents, read_pairs, tasks
from foci.models.forward import device_of, pad_id
from foci.models.losses import token_nll

RIVAL = "double backward (create_graph, MATH attention)"
VOCABULARY, RATE = 8192, 1e-2
WAYS = ("difference", "double")


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(device()).eval()


def batch_of(rows: int, tokens: int, seed: int) -> Batch:
    ids = torch.randint(2, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(seed)).to(device())
    return Batch(ids, torch.ones_like(ids), ids)


class Case:
    """A model, documents of `tokens` tokens, later tasks of 32, and weights that differ."""

    def __init__(self, rows: int, tokens: int) -> None:
        self.model = model()
        self.batch, self.later = batch_of(rows, tokens, 0), batch_of(rows, 32, 1)
        self.weights = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(2)).to(device()) + 0.1

    def run(self, way: str) -> Tensor:
        if way == "double":
            return self.double()
        return token_influence(self.model, self.batch, self.later, self.weights, lr=RATE)

    def double(self) -> Tensor:
        """As it is usually written: the graph through the step is kept, logits are whole."""
        weights = self.weights.clone()
        weights[:, 0] = 0
        weights.requires_grad_()
        parameters = dict(self.model.named_parameters())
        with sdpa_kernel(SDPBackend.MATH):
            nll = losses(self.model(self.batch.input_ids, use_cache=False).logits, self.batch.input_ids)
            loss = ((weights[:, 1:] * nll).sum(1) / weights[:, 1:].sum(1)).mean()
            gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
            moved = {name: p - RATE * g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
            after = functional_call(self.model, moved, (self.later.input_ids,), {"use_cache": False})
            return torch.autograd.grad(losses(after.logits, self.later.input_ids).mean(), weights)[0]


def losses(logits: Tensor, ids: Tensor) -> Tensor:
    flat = F.cross_entropy(logits[:, :-1].reshape(-1, VOCABULARY), ids[:, 1:].reshape(-1), reduction="none")
    return flat.view(len(ids), -1)


def run(allowed: Allowance) -> list[Result]:
    """Peak and time at 4 x 512 tokens, growth with the number of tokens, and a meta step of SmolLM2."""
    rows, tokens = (2, 64) if allowed.quick else (4, 512)
    peaks = {way: peak_of(way, rows, tokens) for way in WAYS}
    case, short = Case(rows, tokens), Case(1, 16)
    made: dict[str, Tensor] = {}

    def call(way: str) -> None:
        made[way] = case.run(way)

    for way in WAYS:
        short.run(way)  # loads what a first call loads
    spent = in_turns({way: partial(call, way) for way in WAYS}, 3, allowed.part(0.3), warmup=0)
    off = float((made["difference"] - made["double"]).norm() / made["double"].norm())
    size = f"difference, {rows} x {tokens}"
    found = [
        Result.of(
            f"peak memory of token_influence, {size}", "MiB", [peaks["difference"]], [peaks["double"]], rival=RIVAL,
            goal=1 / 3, note=f"relative difference from the rival {off:.0e}",
        ),
        Result.timed(
            f"time of token_influence, {size}", spent["difference"], spent["double"], rival=RIVAL, goal=0.85,
        ),
    ]  # fmt: skip
    if not allowed.quick:
        found += [*many_pairs(allowed.part(0.3)), meta_step(allowed.part(0.2))]
    return [*found, *growth(allowed.quick)]


def growth(quick: bool) -> list[Result]:
    """Allocated at 512 tokens over allocated at 64, and whether what a doubling adds doubles or quadruples."""
    scale = 8 if quick else 1
    lengths = {"difference": (64, 512, 1024, 2048), "double": (64, 128, 256, 512)}
    held = {
        way: {n: allocated_peak_mib(partial(Case(1, n // scale).run, way)) for n in of} for way, of in lengths.items()
    }
    grown = [[held[way][512] / held[way][64]] for way in lengths]
    added = [
        [(held[way][of[3]] - held[way][of[2]]) / (held[way][of[2]] - held[way][of[1]])] for way, of in lengths.items()
    ]
    told = "; ".join(f"{way}: " + ", ".join(f"{n}: {mib:.0f} MiB" for n, mib in held[way].items()) for way in held)
    short, long = 64 // scale, 512 // scale
    return [
        Result.of(f"allocated for {long} tokens over {short}", "times", *grown, rival=RIVAL, note=told),
        Result.of(
            "what the last doubling of the tokens adds over the one before (2: linear, 4: quadratic)", "times", *added,
            rival=RIVAL, note=f"up to {lengths['difference'][-1] // scale} tokens, the rival up to {long}",
        ),
    ]  # fmt: skip


def many_pairs(allowed: Allowance, count: int = 8) -> list[Result]:
    """The influence in documents on a question each, SmolLM2, all weights: at once, one by one, double backward.

    The rivals take one of the pairs, and what they need is multiplied.
    """
    loaded, step, few = models.load("smollm2-135m"), InnerStep(length=0.3), 1
    made, pad, device = pairs(loaded.tokenizer, count), pad_id(loaded.tokenizer), device_of(loaded.model)
    found: dict[str, list[Tensor]] = {}

    def at_once() -> None:
        batch = documents(made, pad, device)
        weights = batch.predicted().float()
        lines = by_row.alignments(loaded.model, batch, tasks(made, pad, device), weights, step)
        found["at once"] = [line[: len(pair.document)] for line, pair in zip(lines, made, strict=True)]

    def one_by_one(way: str) -> None:
        found[way] = []
        for pair in made[:few]:
            batch, later = documents([pair], pad, device), tasks([pair], pad, device)
            weights = batch.predicted().float()
            if way == "double":
                found[way] += [token_influence(loaded.model, batch, later, weights, lr=RATE, mode="unroll")[0]]
            else:
                found[way] += [gradient_alignment(loaded.model, batch, later, weights, step)[0]]

    ways = {"at once": at_once, **{way: partial(one_by_one, way) for way in ("differences", "double")}}
    spent = in_turns(ways, 3, allowed)
    off = max(
        float((ours - theirs).abs().max() / theirs.abs().max())
        for ours, theirs in zip(found["at once"], found["differences"], strict=False)
    )
    what, times = f"influence of {count} pairs, SmolLM2, all weights", count / few
    theirs = {way: [Spent(s.clock * times, s.processor * times) for s in spent[way]] for way in spent}
    note = f"rivals: {few} pair, times {times:g}; within {off:.0e} of the largest difference"
    return [
        Result.timed(what, spent["at once"], theirs["differences"], rival="one by one", goal=0.5, note=note),
        Result.timed(what, spent["at once"], theirs["double"], rival=RIVAL, goal=0.45, note=note),
    ]


def meta_step(allowed: Allowance) -> Result:
    """One update of a weigher on 4 pairs, SmolLM2 as learner (LoRA) and as body, beside a plain update of its rows."""
    case = Meta()
    calls: dict[str, Callable[[], object]] = {"meta": case.meta, "plain": case.plain}
    spent = in_turns(calls, 3, allowed, warmup=0)
    what = "one meta step (loop, difference), SmolLM2, LoRA, 4 pairs"
    return Result.timed(what, spent["meta"], spent["plain"], rival="forward and backward of the same documents")


class Meta:
    """SmolLM2 twice, and 4 pairs of made-up biographies."""

    def __init__(self) -> None:
        self.loaded = weigher.new("smollm2-135m", r=16, alpha=32)
        learner: Any = models.add_adapter(models.load("smollm2-135m").model, models.Adapter())
        self.pairs = pairs(self.loaded.tokenizer, 4)
        self.material = Material(learner, self.loaded.tokenizer, "", self.pairs, self.pairs)
        self.loop = Loop(self.material, InnerStep(2e-4, "adam"))

    def meta(self) -> None:
        self.loop.backward(self.loaded.weigher, self.pairs, 0)

    def plain(self) -> None:
        token_nll(self.material.learner, self.material.documents(self.pairs)).mean().backward()


def pairs(tokenizer: Any, count: int) -> list[Pair]:
    """Made-up biographies, each with a question about it."""
    texts, probes = generate(Biographies(people=count, texts=1))
    lines = [
        {"text": document["text"], "prompt": probe["prompt"], "answer": probe["answer"]}
        for document, probe in zip(texts, probes[:: len(probes) // count], strict=False)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        return read_pairs(path, tokenizer, max_length=256)[:count]


def peak_of(way: str, rows: int, tokens: int) -> float:
    """MiB beyond model and batch, in a fresh process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak, way, rows, tokens).result()


def _peak(way: str, rows: int, tokens: int) -> float:
    """A run over few tokens goes before, to load what a first call loads."""
    case = Case(rows, tokens)
    small = Case(1, 16)
    small.run(way)
    del small
    return extra_peak_mib(partial(case.run, way))
