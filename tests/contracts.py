"""The laws of the roles, as functions. A new method is held to every law of its roles by test_contracts.py."""

import copy
import pickle
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from foci.attention import AHEAD
from foci.focus import (
    ROLES,
    Batch,
    Context,
    EditsTokens,
    GuidesHeads,
    HoldsWeights,
    Imitates,
    LiveTeacher,
    MixesRows,
    Plan,
    Prepares,
    Row,
    ScalesLayers,
    WeighsTokens,
)
from foci.methods import roles_of as announced
from foci.methods._prepared import Prepared
from foci.models import blocks, layer_count
from foci.seeds import generator
from foci.training.anchor import PacesOptimizer
from foci.training.dataset import ChoosesDraws, edited
from foci.training.plan import update_weights
from training import assert_same, model, trained, weights


def assert_is_a_value(method: Any) -> None:
    """A frozen dataclass: equal when its fields are, with a repr that says them all, safe to send to a worker."""
    assert is_dataclass(method)
    assert method.__dataclass_params__.frozen
    said = [f.name for f in fields(method) if f.repr]
    if isinstance(method, Prepared):  # its repr is that of the settings, with what was found
        said = [f.name for f in (*fields(method.settings), *fields(method)) if f.repr and f.name != "settings"]
    assert all(f"{name}=" in repr(method) for name in said)
    assert pickle.loads(pickle.dumps(method)) == method
    assert copy.deepcopy(method) == method


def assert_prepares(settings: Prepares, context: Context) -> tuple[Any, Sequence[Row]]:
    """Settings play no role; what they prepare is a value in the announced roles, twice the same from one folder."""
    assert_is_a_value(settings)
    assert not roles_of(settings)
    method, rows = settings.prepare(context)
    assert_is_a_value(method)
    assert not isinstance(method, Prepares)
    assert set(roles_of(method)) <= set(announced(type(settings)))
    assert set(roles_of(method))
    assert settings.prepare(context) == (method, rows)
    return method, rows


def assert_edit_laws(method: EditsTokens, rows: Sequence[Row]) -> None:
    """Keeps the id and the alignment, invents nothing, and depends on its generator alone."""
    for row in rows:
        marked = Row(row.row_id, row.input_ids, columns={**row.columns, "at": tuple(range(len(row)))})
        after = method.edit(marked, generator(1, row.row_id))
        assert after.row_id == row.row_id
        at = [int(n) for n in after.columns["at"]]
        assert after.input_ids == tuple(row.input_ids[n] for n in at)
        for name, column in row.columns.items():
            assert after.columns[name] == tuple(column[n] for n in at)
        assert after == method.edit(marked, generator(1, row.row_id))
        assert edited(marked, [method], (0, 1, 2)) == edited(marked, [method], (0, 1, 2))
    for epoch, reading in ((0, 0), (0, 1), (3, 2)) if isinstance(method, ChoosesDraws) else ():
        draw = method.draw(epoch, reading)
        assert draw is None or len(draw) == 2
        assert draw == method.draw(epoch, reading)


def assert_weight_laws(method: WeighsTokens, batch: Batch) -> None:
    """One finite weight >= 0 per token, of its own shape; rows do not see each other's padding; not all equal."""
    weights = method.weigh(batch)
    assert weights.shape == batch.input_ids.shape
    assert torch.isfinite(weights).all()
    assert (weights >= 0).all()
    real = weights[batch.predicted()]
    assert (real != real[0]).any(), "all weights are equal: the method does nothing"
    first = update_weights(Plan([method]), batch)
    torch.testing.assert_close(first, update_weights(Plan([method]), batch), atol=0, rtol=0)


def assert_weights_multiply(one: WeighsTokens, other: WeighsTokens, batch: Batch) -> None:
    """Several combine by product, in any order."""
    both = update_weights(Plan([one, other]), batch)
    torch.testing.assert_close(both, update_weights(Plan([other, one]), batch), atol=1e-7, rtol=1e-6)
    expected = one.weigh(batch) * other.weigh(batch) * batch.predicted()
    torch.testing.assert_close(both, expected.float(), atol=1e-7, rtol=1e-6)


def assert_guide_laws(method: GuidesHeads, net: torch.nn.Module) -> None:
    """Guides existing heads of existing layers with patterns a causal model can meet, at a strength >= 0."""
    heads = net.config.num_attention_heads
    targets = {layer: method.targets(layer) for layer in range(layer_count(net))}
    assert any(targets.values())
    for named in targets.values():
        assert all(0 <= head < heads for head in named)
        assert not set(named.values()) & AHEAD
    assert all(0 <= method.strength(step, 100) < float("inf") for step in (0, 1, 50, 99))
    assert any(method.strength(step, 100) > 0 for step in range(100))


def assert_scale_laws(method: ScalesLayers, net: torch.nn.Module) -> None:
    """A finite number >= 0 for every block, and not 1 for all."""
    scales = [method.scale(block) for block in blocks(net)]
    assert all(0 <= scale < float("inf") for scale in scales)
    assert any(scale != 1 for scale in scales)


def assert_mix_laws(method: MixesRows, epochs: int = 3) -> None:
    """The same rows for the same generator; other draws in another epoch are allowed; every row can be read."""
    for epoch in range(epochs):
        rows = list(method.mix(epoch, generator(0, epoch)))
        assert rows == list(method.mix(epoch, generator(0, epoch)))
        assert all(len(row) >= 2 for row in rows)


def assert_hold_laws(method: HoldsWeights, net: torch.nn.Module, steps: Sequence[int] = (0, 1, 100)) -> None:
    """Strengths >= 0 for what the model has, and a pace between 0 and 1."""
    names = {"*", *blocks(net), *(name for name, _ in net.named_parameters())}
    for step in steps:
        pull = method.pull(step)
        assert set(pull) <= names
        assert all(bool((torch.as_tensor(value) >= 0).all()) for value in pull.values())
        assert not isinstance(method, PacesOptimizer) or 0 <= method.pace(step) <= 1


def assert_imitate_laws(method: Imitates, batch: Batch) -> None:
    """Holds a finite amount >= 0 of each token, whatever the weights; strengths >= 0, not 0 at every update.

    A stored teacher answers for every token of its own rows, and its probabilities sum to 1.
    """
    for given in (torch.zeros(batch.input_ids.shape), batch.predicted().float()):
        hold = method.hold(batch, given)
        assert hold.shape == batch.input_ids.shape
        assert torch.isfinite(hold).all()
        assert (hold >= 0).all()
    assert all(0 <= method.strength(step, 100) < float("inf") for step in (0, 1, 50, 99))
    assert any(method.strength(step, 100) > 0 for step in range(100))
    teacher = method.teacher()
    where = batch.predicted() & (method.hold(batch, torch.zeros(batch.input_ids.shape)) > 0)
    if not isinstance(teacher, LiveTeacher) and bool(where.any()):
        targets = teacher.targets(batch, where)
        assert len(targets.ids) == len(targets.log_probs) == len(targets.rest) == int(where.sum())
        whole = targets.log_probs.double().exp().sum(1) + targets.rest.double().exp()
        torch.testing.assert_close(whole, torch.ones_like(whole), atol=1e-5, rtol=0)


def assert_order_does_not_matter(methods: Sequence[Any], folder: Path, rows: Sequence[Row]) -> None:
    """Permuting a plan changes nothing but the order of edits."""
    edits = [m for m in methods if isinstance(m, EditsTokens)]
    rest = [m for m in methods if not isinstance(m, EditsTokens)]
    one, losses = trained(folder / "one", rows, [*edits, *rest])
    other, same = trained(folder / "other", rows, [*reversed(rest), *edits])
    assert losses == pytest.approx(same, rel=1e-6)  # a sum of floats in another order
    assert_same(one, other, 1e-6)


def assert_model_is_left_as_it_was(
    method: Any, folder: Path, rows: Sequence[Row], net: torch.nn.Module | None = None
) -> None:
    """After training, all but the weights is as before: modules, hooks, forwards, gradients asked for, attention."""
    net = model() if net is None else net
    before = _shape_of(net)
    trained(folder, rows, [method], start=net, num_train_epochs=1)
    assert _shape_of(net) == before


def assert_it_changes_something(method: Any, folder: Path, rows: Sequence[Row]) -> None:
    """A method never silently does nothing."""
    free, _ = trained(folder / "free", rows)
    led, _ = trained(folder / "led", rows, [method])
    a, b = weights(free), weights(led)
    assert any(not torch.equal(a[name], b[name]) for name in a), f"{method!r} changed no weight"


def _shape_of(net: torch.nn.Module) -> Any:
    return {
        "attention": net.config._attn_implementation,
        "asks": {name: p.requires_grad for name, p in net.named_parameters()},
        "modules": {name: type(module).__name__ for name, module in net.named_modules()},
        "hooks": {
            name: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for name, m in net.named_modules()
        },
        "patched": {name for name, m in net.named_modules() if "forward" in m.__dict__},
    }


def roles_of(method: Any) -> list[type]:
    """The roles a method plays."""
    return [role for role in ROLES if isinstance(method, role)]


def tiny_model() -> torch.nn.Module:
    """The model that laws are tried on."""
    return tiny.build("llama")
