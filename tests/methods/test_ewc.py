"""EWC: the Fisher information of two parameters by hand, and what it holds."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from earlier import added, wrapped
from foci import models
from foci.corpus import read_corpus
from foci.focus import Batch, Context, Row
from foci.methods import ewc
from foci.methods.ewc import Ewc, EwcPull, diagonal_fisher, held_parameters, of_mean_one
from foci.models import Adapter
from foci.models.losses import token_nll
from training import trained, weights


def test_the_fisher_information_of_two_parameters_by_hand():
    """p(y = 1) = sigmoid(a x + b) at a = 0.5, b = 0 on (x, y) = (2, 1), (-1, 0).

    d nll / d(a, b) = (p - y) (x, 1): (0.7310586 - 1) (2, 1) = (-0.5378828, -0.2689414), and
    0.3775407 (-1, 1). Squares (0.2893179, 0.0723295) and (0.1425370, 0.1425370); means below.
    """
    a, b = torch.tensor(0.5, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    losses = (
        nn.functional.binary_cross_entropy_with_logits(a * x + b, torch.tensor(y)) for x, y in ((2.0, 1.0), (-1.0, 0.0))
    )
    fisher = diagonal_fisher({"a": a, "b": b}, losses)
    assert fisher["a"].item() == pytest.approx(0.2159275, abs=1e-6)
    assert fisher["b"].item() == pytest.approx(0.1074333, abs=1e-6)
    assert a.grad is None
    scaled = of_mean_one(fisher)  # over (0.2159275 + 0.1074333) / 2
    assert scaled["a"].item() == pytest.approx(1.3355172, abs=1e-5)
    assert sum(f.item() for f in scaled.values()) == pytest.approx(2.0)


def test_the_fisher_information_needs_examples_that_move_something():
    with pytest.raises(ValueError, match="at least one example, got none"):
        diagonal_fisher({"a": torch.zeros(1, requires_grad=True)}, [])
    with pytest.raises(ValueError, match=r"mean Fisher information is 0\.0"):
        of_mean_one({"a": torch.zeros(2)})


def context(folder: Path, seed: int = 0) -> Context:
    rows = [Row(f"r{n}", tuple((11 * n + 5 * t) % 300 + 2 for t in range(12))) for n in range(6)]
    return Context(tiny.build("llama", vocab=tiny.VOCAB, seed=seed), tiny.tokenizer(), rows, folder)


@pytest.fixture
def old_text(tmp_path):
    path = tmp_path / "old.txt"
    path.write_text("The capital of France is Paris. She was born in the town of Bern.")
    return str(path)


def test_ewc_sums_the_gradients_of_whole_rows_one_row_at_a_time(old_text, tmp_path):
    made = context(tmp_path / "kept")
    online, rows = Ewc(strength=2.0, path=old_text).prepare(made)
    assert rows == made.rows
    name = "model.layers.1.mlp.up_proj.weight"
    weight = made.model.get_parameter(name)
    squares = []
    for row in read_corpus(old_text, made.tokenizer, max_length=12).rows:
        loss = token_nll(made.model, Batch.of([row], tiny.PAD)).sum()
        squares.append(torch.autograd.grad(loss, [weight])[0].square())
    assert len(squares) > 1
    expected = torch.stack(squares).mean(0)
    got = online.pull(0)[name]
    torch.testing.assert_close(got / got.mean(), expected / expected.mean(), rtol=1e-3, atol=1e-4)
    everything = torch.cat([f.flatten() for f in online.pull(0).values()])
    assert everything.mean().item() == pytest.approx(2.0, rel=1e-3)
    assert set(online.pull(0)) == set(dict(made.model.named_parameters()))
    assert all(p.grad is None for p in made.model.parameters())
    assert repr(online) == repr(Ewc(strength=2.0, path=old_text))


def test_the_fisher_information_is_the_mean_over_so_many_rows_as_the_seed_draws(old_text, tmp_path):
    def squares(rows: int, seed: int) -> torch.Tensor:
        made = replace(context(tmp_path / f"{rows}-{seed}"), seed=seed)
        return Ewc(path=old_text, rows=rows).prepare(made)[0].pull(0)["model.layers.1.mlp.up_proj.weight"]

    whole = squares(100, 0)
    assert torch.equal(whole, squares(99, 0))
    assert not torch.equal(whole, squares(1, 0))
    assert any(not torch.equal(squares(1, 0), squares(1, seed)) for seed in (1, 2, 3))
    with pytest.raises(ValueError, match="rows, of old text, are at least 1, got 0"):
        Ewc(rows=0)


def test_the_fisher_information_is_found_again_and_refused_when_stale(old_text, tmp_path, monkeypatch):
    online, _ = Ewc(path=old_text).prepare(context(tmp_path / "kept"))
    monkeypatch.setattr(ewc, "diagonal_fisher", lambda *_: pytest.fail("computed again"))
    again, _ = Ewc(path=old_text).prepare(context(tmp_path / "kept"))
    assert again == online
    assert again != EwcPull(online.settings, {name: pull + 1 for name, pull in online.pulls.items()})
    with pytest.raises(ValueError, match=r"fisher.safetensors is stale.*\(model: "):
        Ewc(path=old_text).prepare(context(tmp_path / "kept", seed=1))
    with pytest.raises(ValueError, match=r"stale.*text: .*weights: 'all' then, 'linear' now"):
        Ewc(weights="linear").prepare(context(tmp_path / "kept"))


def test_linear_weights_are_those_that_adapters_adapt():
    for name in ("llama", "llama-tied", "gpt2"):
        net = tiny.build(name)
        linear = set(held_parameters(net, "linear"))
        wrapped = models.add_adapter(net, Adapter(r=2))
        names = [n for n, p in wrapped.named_parameters() if p.requires_grad]
        assert linear == {n.removeprefix("base_model.model.").split(".lora_")[0] + ".weight" for n in names}


def test_ewc_holds_most_what_mattered_most(old_text, tmp_path):
    made = context(tmp_path / "kept")
    online, rows = Ewc(strength=30.0, path=old_text).prepare(made)
    start, ways = weights(made.model), {}
    for name, methods in {"plain": [], "ewc": [online]}.items():
        net = tiny.build("llama", vocab=tiny.VOCAB)
        trained(tmp_path, rows, methods, start=net, num_train_epochs=4)
        ways[name] = torch.cat([(p - start[n]).detach().abs().flatten() for n, p in net.named_parameters()])
    fisher = torch.cat([online.pull(0)[n].flatten() for n in start])
    mattered, idle = fisher > fisher.quantile(0.9), fisher < fisher.quantile(0.5)
    shrunk = [float(ways["ewc"][part].mean() / ways["plain"][part].mean()) for part in (mattered, idle)]
    assert shrunk[0] < 0.5 < 0.9 < shrunk[1]


def test_ewc_holds_an_adapter_through_the_weights_it_adapts(old_text, tmp_path):
    made = context(tmp_path / "kept")
    online, rows = Ewc(strength=30.0, path=old_text, weights="linear").prepare(made)
    far = {}
    for name, methods in {"plain": [], "ewc": [online]}.items():
        net = wrapped(vocab=tiny.VOCAB)
        start = added(net)
        trained(tmp_path, rows, methods, start=net, num_train_epochs=4)
        fisher = {f"base_model.model.{n.removesuffix('.weight')}": f for n, f in online.pull(0).items()}
        far[name] = sum(float((fisher[n] * (d - start[n]).square()).sum()) for n, d in added(net).items())
    assert 0 < far["ewc"] < 0.5 * far["plain"]


def test_ewc_refuses_settings():
    with pytest.raises(ValueError, match="ewc's strength is a finite number above 0"):
        Ewc(strength=0.0)
