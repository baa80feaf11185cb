"""Peak memory and time of the loss alone, forward and backward: 4 x 512 tokens, vocabulary 49152, width 576 (SmolLM2).

The peak of each way is measured in a process of its own, time in turns in one process.
"""

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.side_by_side import Allowance, Result, device, extra_peak_mib, in_turns
from foci.models import Head
from foci.models.losses import head_nll

GOAL = 0.35
TOKENS, VOCABULARY, WIDTH = 4 * 512, 49152, 576
CASES = (("autocast", "frozen"), ("float32", "trained"), ("autocast", "trained"), ("float32", "frozen"),
         ("bfloat16", "trained"), ("bfloat16", "frozen"))  # fmt: skip
"""Precision of hidden states and head, and whether the head trains; later ones are measured where there is time.

autocast: float32 weights under bfloat16 autocast, as `foci learn` trains.
"""


@dataclass(frozen=True)
class Case:
    """The inputs of the loss: hidden states (they need a gradient), the head, targets and weights of the tokens."""

    precision: str
    hidden: Tensor
    head: nn.Linear
    targets: Tensor
    weights: Tensor

    @classmethod
    def make(cls, precision: str, head: str, tokens: int = TOKENS) -> "Case":
        torch.manual_seed(0)
        own = torch.float32 if precision == "float32" else torch.bfloat16
        place = device()
        linear = nn.Linear(WIDTH, VOCABULARY, bias=False, device=place)
        linear.to(own if precision == "bfloat16" else torch.float32)
        linear.weight.data.normal_(std=0.1)
        linear.requires_grad_(head == "trained")
        hidden = torch.randn(tokens, WIDTH).to(place, own).requires_grad_()
        targets, weights = torch.randint(VOCABULARY, (tokens,)), torch.rand(tokens)
        return cls(precision, hidden, linear, targets.to(place), weights.to(place))

    def of_tokens(self, tokens: int) -> "Case":
        hidden = self.hidden.detach()[:tokens].requires_grad_()
        return Case(self.precision, hidden, self.head, self.targets[:tokens], self.weights[:tokens])

    def run(self, way: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """The tokens' losses, and the gradients of hidden states and head."""
        self.hidden.grad = self.head.weight.grad = None
        kind, narrow = self.hidden.device.type, self.precision == "autocast"
        autocast = torch.autocast(kind, torch.bfloat16) if narrow else contextlib.nullcontext()
        with autocast:
            nll = WAYS[way](self)
        (nll * self.weights).sum().backward()
        assert self.hidden.grad is not None
        return nll.detach(), self.hidden.grad, self.head.weight.grad


def plain(case: Case) -> Tensor:
    """All logits in float32, and their cross entropy."""
    return F.cross_entropy(case.head(case.hidden).float(), case.targets, reduction="none")


def foci(case: Case) -> Tensor:
    return head_nll(Head(case.head), case.hidden, case.targets)


def chunked(case: Case) -> Tensor:
    """torch's own, which takes part in no autocast: casts are made outside."""
    weight = case.head.weight.to(case.hidden.dtype)
    options = nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(case.hidden, weight, case.targets, reduction="none", options=options)


WAYS: dict[str, Callable[[Case], Tensor]] = {"foci": foci, "plain": plain, "torch": chunked}
RIVALS = {"plain": "float32 logits and cross_entropy", "torch": "F.linear_cross_entropy"}


def run(allowed: Allowance) -> list[Result]:
    """Peak and time of the precisions and heads that there is time for; the goal is about the first rival's peak."""
    begun, found = time.perf_counter(), list[Result]()
    for number, case in enumerate(CASES[:1] if allowed.quick else CASES):
        spent = time.perf_counter() - begun
        if number and spent + spent / number > allowed.seconds:
            break
        found += beside(*case, allowed.part(0.1))
    return found


def beside(precision: str, head: str, allowed: Allowance) -> list[Result]:
    """One precision and head: peak and time against every rival there is."""
    ways = [way for way in WAYS if way != "torch" or hasattr(nn, "LinearCrossEntropyOptions")]
    peaks = {way: peak_of(way, precision, head) for way in ways}
    differences = compared(Case.make(precision, head), ways)
    case = Case.make(precision, head)
    found = []
    for rival in ways[1:]:
        calls: dict[str, Callable[[], object]] = {way: partial(case.run, way) for way in ("foci", rival)}
        spent = in_turns(calls, 3, allowed, warmup=0)
        what = f"of the loss, {precision}, head {head}"
        goal = GOAL if rival == "plain" else None
        found += [
            Result.of(
                f"peak memory {what}", "MiB", [peaks["foci"]], [peaks[rival]], rival=RIVALS[rival], goal=goal,
                note=f"foci: {differences['foci']}; rival: {differences[rival]}",
            ),
            Result.timed(f"time {what}", spent["foci"], spent[rival], rival=RIVALS[rival]),
        ]  # fmt: skip
    return found


def compared(case: Case, ways: list[str]) -> dict[str, str]:
    """Per way, the largest differences from the plain float32 loss of the same numbers, in words."""
    exact = Case(
        "float32", case.hidden.detach().float().requires_grad_(), copy_of(case.head), case.targets, case.weights
    )
    nll, *gradients = exact.run("plain")
    found = {}
    for way in ways:
        own, *theirs = case.run(way)
        worst = [f"loss {float((own.float() - nll).abs().max()):.0e} nats"]
        for name, ours, right in zip(("hidden", "head"), theirs, gradients, strict=True):
            if ours is not None and right is not None:
                share = float((ours.float() - right).abs().max() / right.abs().max())
                worst.append(f"{name} gradient {share:.0e} of its largest")
        found[way] = ", ".join(worst)
    return found


def copy_of(head: nn.Linear) -> nn.Linear:
    copy = nn.Linear(WIDTH, VOCABULARY, bias=False, device=head.weight.device)
    copy.weight.data.copy_(head.weight.data)
    return copy.requires_grad_(head.weight.requires_grad)


def peak_of(way: str, precision: str, head: str) -> float:
    """MiB beyond the inputs, in a fresh process (forked from one that has only imported this module)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak, way, precision, head).result()


def _peak(way: str, precision: str, head: str) -> float:
    """A run over few tokens goes before, to load what a first call loads (not torch's own: it is very slow on few)."""
    case = Case.make(precision, head)
    case.of_tokens(64).run("plain" if way == "torch" else way)
    case.head.weight.grad = None
    return extra_peak_mib(partial(case.run, way))
