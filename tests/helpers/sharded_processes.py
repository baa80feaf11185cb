"""Influence in sharded models beside that in whole ones, on two processes; test_fsdp.py runs it."""

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parent))

import torch  # noqa: E402
from torch import Tensor, distributed, nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module  # noqa: E402
from torch.multiprocessing import start_processes  # noqa: E402

import tiny  # noqa: E402
from foci.focus import IGNORED, Batch, Row  # noqa: E402
from foci.gradients.influence import token_influence  # noqa: E402
from foci.models import losses  # noqa: E402
from foci.models.architecture import base_of  # noqa: E402

RATES = {"sgd": 1e-2, "adam": 1e-4}


def rows(lengths: tuple[int, ...], seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = [tuple(torch.randint(2, 97, (length,), generator=generator).tolist()) for length in lengths]
    return Batch.of([Row(f"r{n}", line) for n, line in enumerate(ids)], tiny.PAD)


def pair() -> tuple[Batch, Batch, Tensor]:
    batch, later = rows((9, 6), 0), rows((5, 4), 1)
    labels = later.labels.clone()
    labels[:, :3] = IGNORED
    weights = torch.rand(batch.input_ids.shape, generator=torch.Generator().manual_seed(2)) + 0.1
    return batch, replace(later, labels=labels), weights


def layers(model: nn.Module, **root: bool) -> nn.Module:
    for layer in base_of(model).model.layers:
        fully_shard(layer)
    return fully_shard(model, **root)


def apart(model: nn.Module) -> nn.Module:
    """As accelerate does it: embedding, layers, last norm and head together, the rest."""
    base = base_of(model)
    fully_shard(base.model.embed_tokens)
    for layer in base.model.layers:
        fully_shard(layer)
    fully_shard([base.model.norm, base.lm_head], reshard_after_forward=False)
    return fully_shard(model)


def head_apart(model: nn.Module) -> nn.Module:
    fully_shard(model.lm_head)
    return layers(model)


def copied(model: nn.Module) -> nn.Module:
    """Every process holds all (HSDP): a norm that added up over both would be too long."""
    return fully_shard(model, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard")))


def half_frozen() -> nn.Module:
    model = tiny.build("llama")
    for name, p in model.named_parameters():
        p.requires_grad_("mlp" in name or "norm" in name)
    return model


def head_only() -> nn.Module:
    model = tiny.build("llama").requires_grad_(False)
    model.lm_head.requires_grad_(True)
    return model


def checkpointing() -> nn.Module:
    model = tiny.build("llama").train()
    model.gradient_checkpointing_enable()
    return model


def llama() -> nn.Module:
    return tiny.build("llama")


LAYOUTS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], nn.Module]]] = {
    "layers and root": (llama, layers),
    "root alone": (llama, fully_shard),
    "root without its whole weights after a pass": (llama, lambda model: layers(model, reshard_after_forward=True)),
    "norm and head together": (llama, apart),
    "head apart": (llama, head_apart),
    "copied, not split": (llama, copied),
    "tied head": (lambda: tiny.build("llama-tied"), layers),
    "frozen base": (half_frozen, layers),
    "head alone trained": (head_only, layers),
    "lora": (lambda: tiny.lora(tiny.build("llama")), layers),
    "checkpointing": (checkpointing, layers),
}
SLICED = ("layers and root", "norm and head together")
BOTH = ("layers and root", "frozen base", "lora")
"""Layouts of which both inner steps are looked at; of the others, sgd."""


def part(tensor: Tensor) -> Tensor:
    """A copy of what this process holds of it."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach().clone()


def compared(name: str, inner: str) -> dict[str, object]:
    """Influence in the sharded model beside the whole one's, after a plain forward pass and with gradients there."""
    build, shard = LAYOUTS[name]
    batch, later, weights = pair()
    options = {"lr": RATES[inner], "inner": inner}
    truth = token_influence(build(), batch, later, weights, **options)
    model = shard(build())
    parts = dict(model.named_parameters())
    before = {name: part(p) for name, p in parts.items()}
    with torch.no_grad():
        logits = model(batch.input_ids).logits  # leaves whole parameters of the root behind
    given = {}
    for number, (name, p) in enumerate(parts.items()):
        given[name] = torch.full_like(p, 0.5) if p.requires_grad and number % 2 else None
        p.grad = given[name]
    got = token_influence(model, batch, later, weights, **options)
    after = dict(model.named_parameters())
    kept = all(after[name].grad is given[name] for name in parts)
    kept = kept and all(g is None or bool((part(g) == 0.5).all()) for g in given.values())
    with torch.no_grad():
        same = torch.equal(model(batch.input_ids).logits, logits)
    return {
        "off": float((got - truth).norm() / truth.norm()),
        "cosine": float(torch.cosine_similarity(got.flatten(), truth.flatten(), 0)),
        "sharded": sum(isinstance(p, DTensor) for p in after.values()) / len(after),
        "weights": same and all(torch.equal(part(p), before[name]) for name, p in after.items()),
        "grad": kept,
    }


def refused(call: Callable[[], object]) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return "nothing was refused"


def refusals() -> dict[str, str]:
    rank, (batch, later, weights) = distributed.get_rank(), pair()
    own, model = rows((9, 6), 10 + rank), layers(llama())
    uneven, half = weights.clone(), MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    uneven[0, 2] += rank

    def influence(model: nn.Module, *given: object, lr: float = 1e-2, mode: str = "difference"):
        return lambda: token_influence(model, *(given or (batch, later, weights)), lr=lr, mode=mode)

    silent, summed, waiting = layers(llama()), layers(llama()), layers(llama())
    silent.set_requires_gradient_sync(False)
    summed.set_gradient_divide_factor(1.0)
    waiting.set_requires_gradient_sync(False)
    waiting(batch.input_ids).logits.sum().backward()
    waiting.set_requires_gradient_sync(True)
    return {
        "rows": refused(influence(model, own, later, weights)),
        "later": refused(influence(model, batch, replace(later, labels=own.labels[:, :5]), weights)),
        "rate": refused(influence(model, lr=1e-2 * (1 + rank))),
        "no weight on one": refused(influence(model, batch, later, weights * rank)),
        "weights": refused(influence(model, batch, later, uneven)),
        "unroll": refused(influence(model, mode="unroll")),
        "half": refused(influence(fully_shard(llama(), mp_policy=half))),
        "silent": refused(influence(silent)),
        "summed": refused(influence(summed)),
        "waiting": refused(influence(waiting)),
        "flat": refused(influence(FullyShardedDataParallel(llama(), device_id=torch.device("cpu")))),
        "layers without root": refused(influence(parts_only())),
        "hooked": refused(influence(hooked())),
        "tensor parallel": refused(influence(tensor_parallel())),
    }


def parts_only() -> nn.Module:
    model = llama()
    for layer in model.model.layers:
        fully_shard(layer)
    return model


def hooked() -> nn.Module:
    model = layers(llama())
    model.lm_head.weight.register_post_accumulate_grad_hook(lambda _: None)
    return model


def tensor_parallel() -> nn.Module:
    model = llama()
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    return parallelize_module(model, mesh, {"lm_head": ColwiseParallel()})


def stopped() -> bool:
    """An error between two passes leaves the weights, and the next influence is right."""
    batch, later, weights = pair()
    model, nothing = layers(llama()), torch.full_like(later.labels, IGNORED)
    before = {name: part(p) for name, p in model.named_parameters()}
    expected = token_influence(llama(), batch, later, weights, lr=1e-2)
    hook = model.model.layers[1].mlp.register_forward_hook(_Third())
    try:
        token_influence(model, batch, later, weights, lr=1e-2)
    except ArithmeticError:
        hook.remove()
    else:
        return False
    refused(lambda: token_influence(model, batch, replace(later, labels=nothing), weights, lr=1e-2))
    kept = all(torch.equal(part(p), before[name]) for name, p in model.named_parameters())
    got = token_influence(model, batch, later, weights, lr=1e-2)
    return kept and torch.allclose(got, expected, rtol=1e-4, atol=1e-8)


class _Third:
    """Fails in the third pass: theta + eps v."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, *_: object) -> None:
        self.passes += 1
        if self.passes == 3:
            raise ArithmeticError


def process(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {name: {i: compared(name, i) for i in (RATES if name in BOTH else ("sgd",))} for name in LAYOUTS}
    refused_words, went_on = refusals(), stopped()
    losses.SLICE_ELEMENTS = 2 * 97
    found |= {f"{name}, in slices": {"adam": compared(name, "adam")} for name in SLICED}
    written = {"influence": found, "refused": refused_words, "stopped": went_on}
    (folder / f"{rank}.json").write_text(json.dumps(written))
    distributed.destroy_process_group()


if __name__ == "__main__":
    start_processes(process, (Path(sys.argv[1]).resolve(),), nprocs=2, start_method="fork")  # what was imported once
