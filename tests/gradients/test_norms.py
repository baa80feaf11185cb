"""Gradient norms of single examples: by hand, and against a loop over unpadded examples and the model's own logits."""

import copy
import math
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

import families
import tiny
from foci import models
from foci.focus import IGNORED, Batch, Row
from foci.gradients import factors
from foci.gradients.norms import block_norms
from foci.models import head_of, losses
from foci.models.architecture import block_of, part_of

LENGTHS = (9, 4, 13, 2)
IN_FLOAT32 = frozenset({"gemma2", "gemma2-uncapped", "gemma3"})
"""Architectures whose norms compute in float32 whatever the weights are, so that float64 is not exact to 1e-10."""


def batch(side: str = "right", lengths: tuple[int, ...] = LENGTHS) -> Batch:
    """Random rows; the padding token occurs in the text too."""
    generator = torch.Generator().manual_seed(3)
    rows = [
        Row(f"r{n}", (5, tiny.PAD, *torch.randint(0, 97, (length - 2,), generator=generator).tolist()))
        for n, length in enumerate(lengths)
    ]
    return Batch.of(rows, tiny.PAD, side)


def some(b: Batch) -> torch.Tensor:
    """About half of the tokens of every row, at least one."""
    generator = torch.Generator().manual_seed(4)
    chosen = torch.rand(b.input_ids.shape, generator=generator)
    chosen[~b.predicted()] = 0.0
    return (chosen > 0.5) | (chosen == chosen.max(1, keepdim=True).values)


def slow_norms(model, b: Batch, mask: torch.Tensor, *, name_of=block_of, reduction: str = "mean"):
    """One example at a time, without padding, by the model's own logits and `backward`."""
    model, squares = copy.deepcopy(model), {}
    for n in range(len(mask)):
        model.zero_grad(set_to_none=True)
        at = b.attention_mask[n].nonzero().flatten()
        ids, where = b.input_ids[n, at], mask[n, at]
        logits = model(input_ids=ids[None]).logits[0, :-1].to(factors.precision(next(model.parameters())))
        nll = F.cross_entropy(logits, ids[1:], reduction="none")[where[1:]]
        (nll.mean() if reduction == "mean" else nll.sum()).backward()
        for name, p in model.named_parameters():
            if p.requires_grad:
                own = squares.setdefault(name_of(name), torch.zeros(len(mask), dtype=factors.precision(p)))
                own[n] += 0.0 if p.grad is None else p.grad.square().sum()
    return {block: square.sqrt() for block, square in squares.items()}


def assert_same(ours, theirs, rtol: float = 1e-5) -> None:
    assert set(ours) == set(theirs)
    for block in theirs:
        torch.testing.assert_close(ours[block], theirs[block], rtol=rtol, atol=0, msg=lambda m, b=block: f"{b}: {m}")


def plain(model, b: Batch, mask: torch.Tensor, **settings):
    """Returns the norms; fails if they needed one backward pass per example."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return block_norms(model, b, mask, **settings)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["raw", "lora"])
@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_norms_are_those_of_single_unpadded_examples(name, wrapped, side):
    model = tiny.build(name)
    model = tiny.lora(model) if wrapped else model
    b = batch(side)
    assert_same(plain(model, b, some(b)), slow_norms(model, b, some(b)))


@pytest.mark.parametrize("wrapped", [False, True], ids=["raw", "lora"])
@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_norms_are_exact_in_float64(name, wrapped):
    """Without padding: eager attention with a sliding window is NaN at padding in float64."""
    model = tiny.build(name, dtype=torch.float64)
    model = tiny.lora(model).double() if wrapped else model
    b = batch(lengths=(8, 8, 8))
    tolerance = 1e-7 if name in IN_FLOAT32 else 1e-10
    assert_same(plain(model, b, some(b)), slow_norms(model, b, some(b)), tolerance)


def flat() -> tuple[nn.Module, Batch]:
    """A model whose layers add nothing and whose head is 0; three rows of tokens 1 with labels of two kinds."""
    model = tiny.build("llama", vocab=2, dtype=torch.float64)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    model.model.norm.weight.data.fill_(1.0)
    head_of(model).module.weight.data.zero_()
    ids = torch.ones(3, 3, dtype=torch.long)
    labels = torch.tensor([[1, 1, 1], [1, 1, 0], [IGNORED, 1, IGNORED]])
    return model, Batch(ids, torch.ones_like(ids), labels)


def test_norms_by_hand():
    """p = 1/2 for both tokens, the head reads h of norm sqrt(32) at every position: a token's gradient is
    (-1/2, 1/2) h^T or its negative, of norm sqrt(1/2 * 32) = 4. Two equal ones add up, two opposite ones cancel.
    """
    model, b = flat()
    every = torch.ones_like(b.input_ids, dtype=torch.bool)
    sums = plain(model, b, every, reduction="sum")
    torch.testing.assert_close(sums["head"], torch.tensor([8.0, 0.0, 4.0]).double(), rtol=1e-4, atol=1e-9)
    means = plain(model, b, every)
    torch.testing.assert_close(means["head"], torch.tensor([4.0, 0.0, 4.0]).double(), rtol=1e-4, atol=1e-9)
    assert all((means[block] == 0).all() for block in ("embeddings", "layers.0", "layers.1", "norm"))


def test_sum_is_mean_times_tokens():
    model, b = tiny.build("llama"), batch()
    mean, total = (plain(model, b, some(b), reduction=kind) for kind in ("mean", "sum"))
    assert_same(total, {block: norm * some(b).sum(1) for block, norm in mean.items()}, 1e-5)
    assert_same(total, slow_norms(model, b, some(b), reduction="sum"))


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_parts_of_layers(name):
    model, b = tiny.build(name), batch()
    parts = plain(model, b, some(b), by="part")
    assert_same(parts, slow_norms(model, b, some(b), name_of=part_of))
    assert {part.rpartition(".")[2] for part in parts if part.startswith("layers.")} == {"attention", "mlp", "norm"}
    layers = plain(model, b, some(b))
    for block, norm in layers.items():
        squares = [parts[part].square() for part in parts if part == block or part.startswith(block + ".")]
        torch.testing.assert_close(sum(squares), norm.square(), rtol=1e-5, atol=0)


def test_blocks_come_in_depth_order():
    b = batch()
    assert list(plain(tiny.build("gpt2"), b, some(b))) == ["embeddings", "layers.0", "layers.1", "norm"]
    assert list(plain(tiny.build("llama", layers=1), b, some(b))) == ["embeddings", "layers.0", "norm", "head"]


@pytest.mark.parametrize("shape", [(3, 2, 40, 30), (3, 40, 2, 3), (1, 1, 1, 1)], ids=["gram", "product", "one"])
def test_outer_squares_both_ways(shape, monkeypatch):
    batch, tokens, rows, columns = shape
    left, right = torch.randn(batch, tokens, rows).double(), torch.randn(batch, tokens, columns).double()
    expected = torch.einsum("btr,btc->brc", left, right).square().sum((1, 2))
    torch.testing.assert_close(factors.outer_squares(left, right), expected)
    monkeypatch.setattr(factors, "ELEMENTS", 1)
    torch.testing.assert_close(factors.outer_squares(left, right), expected)


def test_a_lookup_adds_up_gradients_of_one_token():
    ids, gradient = torch.randint(0, 4, (3, 9)), torch.randn(3, 9, 5).double()
    table = F.one_hot(ids, 4).double().mT @ gradient
    torch.testing.assert_close(factors.lookup_squares(ids, gradient), table.square().sum((1, 2)))


@pytest.mark.parametrize("elements", [97, 97 * 3, 97 * 13, 97 * 40])
@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_slices_of_the_head_change_nothing(name, elements, monkeypatch):
    """One token at a time; part of an example; one whole example; several."""
    model, b = tiny.build(name), batch()
    expected = slow_norms(model, b, some(b))
    monkeypatch.setattr(losses, "SLICE_ELEMENTS", elements)
    assert_same(plain(model, b, some(b)), expected)


def test_only_counted_tokens_reach_the_head(monkeypatch):
    model, b = tiny.build("llama"), batch()
    mask = torch.zeros_like(b.input_ids, dtype=torch.bool)
    mask[:, 1] = True
    mask[2, 5] = True
    seen, inner = [], losses.logits_nll
    monkeypatch.setattr(losses, "logits_nll", lambda z, t: (seen.append(tuple(z.shape)), inner(z, t))[1])
    block_norms(model, b, mask)
    assert seen == [(4, 2, 97)]


def test_one_forward_pass():
    model, b, calls = tiny.build("llama"), batch(), []
    block_norms(model, b, some(b))  # the first use of a model runs it on a few tokens
    hook = model.model.layers[1].register_forward_hook(lambda *_: calls.append(1))
    block_norms(model, b, some(b))
    hook.remove()
    assert calls == [1]


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gpt-neox"])
def test_one_example(name):
    model, b = tiny.build(name), batch(lengths=(7,))
    assert_same(plain(model, b, some(b)), slow_norms(model, b, some(b)))


@pytest.mark.parametrize("name", ["jetmoe", "qwen3_moe", "granitemoe"])
@pytest.mark.parametrize("lengths", [(9,), (9, 6)])
def test_experts_count_in_a_batch_of_one_too(name, lengths):
    """Experts that run one after another use slices of one weight."""
    model, b = families.build(name, experts="eager" if name == "qwen3_moe" else None), batch(lengths=lengths)
    with pytest.warns(UserWarning, match="one backward pass per example"):
        found = block_norms(model, b, some(b))
    assert_same(found, slow_norms(model, b, some(b)))


@pytest.mark.parametrize("lengths", [(9,), (9, 6)])
def test_adapters_in_experts_count(lengths):
    torch.manual_seed(0)
    model, b = models.add_adapter(families.build("gpt_oss"), models.Adapter(r=4)), batch(lengths=lengths)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = block_norms(model, b, some(b))
    assert_same(found, slow_norms(model, b, some(b)))


class Added(nn.Module):
    """A linear layer whose output is changed in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        return self.inner(x).mul_(2.0)


class Aside(nn.Module):
    """A linear layer that chooses, and gets no gradient, beside one that does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.choice, self.inner = nn.Linear(width, 1), nn.Linear(width, width)

    def forward(self, x):
        with torch.no_grad():
            chosen = self.choice(x) > 0
        return self.inner(x) * chosen


@pytest.mark.parametrize("lengths", [(9,), (9, 6)])
@pytest.mark.parametrize("made", [Added, Aside])
def test_outputs_changed_in_place_and_layers_without_gradient(made, lengths):
    model, b = tiny.build("llama"), batch(lengths=lengths)
    model.model.layers[1].mlp = made(32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = block_norms(model, b, some(b))
    assert_same(found, slow_norms(model, b, some(b)))


def checkpointing(model, reentrant: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Transformers 5.23 has another name for it, 5.17 only this
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.train()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gemma2"])
def test_checkpointed_activations(name, reentrant):
    model, b = tiny.build(name), batch("left")
    expected = slow_norms(model, b, some(b))
    block_norms(model, b, some(b))  # the first use of a model runs it on a few tokens
    calls = []
    checkpointing(model, reentrant)
    layer = next(m for m in model.modules() if isinstance(m, nn.ModuleList))[0]
    inner = next(m for m in layer.modules() if type(m).__name__.endswith("MLP"))
    hook = inner.register_forward_pre_hook(lambda *_: calls.append(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = block_norms(model, b, some(b))
    hook.remove()
    assert len(calls) == 2
    assert all(m.training for m in model.modules())
    assert_same(found, expected)


def test_reentrant_checkpoints_that_lose_gradients_are_refused():
    model = tiny.lora(tiny.build("llama"))
    expected = slow_norms(model, batch(), some(batch()))
    checkpointing(model, True)
    b = batch()
    assert_same(block_norms(model, b, some(b)), expected)
    model.get_base_model().disable_input_require_grads()
    with pytest.raises(RuntimeError, match="use_reentrant=False"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block_norms(model, b, some(b))


def test_dropout_is_off():
    model, b = tiny.build("gpt2"), batch()
    expected = slow_norms(model, b, some(b))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    assert_same(plain(model.train(), b, some(b)), expected)


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "qwen3", "cohere"])
def test_autocast(name):
    """In bfloat16 within 3 % of float32 and of single examples in bfloat16."""
    model, b = tiny.build(name), batch()
    with torch.autocast("cpu", torch.bfloat16):
        found = plain(model, b, some(b))
        single = slow_norms(model, b, some(b))
    assert all(norm.dtype == torch.float32 for norm in found.values())
    assert_same(found, single, 3e-2)
    assert_same(found, slow_norms(model, b, some(b)), 3e-2)


def state(model) -> list:
    return [
        (name, p, None if p.grad is None else (p.grad, p.grad.clone()), p.requires_grad, p.detach().clone())
        for name, p in model.named_parameters()
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_untouched(fails, monkeypatch):
    model, b = tiny.lora(tiny.build("gpt2")), batch()
    lone = next(p for p in model.parameters() if p.requires_grad)
    lone.grad = torch.randn_like(lone)
    odd = model.get_base_model().transformer.h[0].mlp.c_fc.lora_A["default"]
    odd.forward = odd.forward  # as accelerate does
    before, own = state(model), odd.__dict__["forward"]
    if fails:
        monkeypatch.setattr(losses, "logits_nll", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            block_norms(model, b, some(b))
    else:
        block_norms(model, b, some(b))
    for (name, p, grad, wants, value), (other, q, now, still, then) in zip(before, state(model), strict=True):
        assert (name, wants) == (other, still)
        assert p is q
        assert torch.equal(value, then)
        assert (grad is None) == (now is None)
        assert grad is None or (grad[0] is now[0] and torch.equal(grad[1], now[1]))
    assert [m for m in model.modules() if "forward" in m.__dict__] == [odd]
    assert odd.__dict__["forward"] is own
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


def test_shared_layers_add_up():
    model, b = tiny.build("llama"), batch()
    model.model.layers[1].mlp = model.model.layers[0].mlp
    model.model.layers[1].input_layernorm = model.model.layers[0].input_layernorm
    assert_same(plain(model, b, some(b)), slow_norms(model, b, some(b)))


def test_only_trained_parameters_count():
    """Biases alone; a frozen lower half; nothing but the head; the embedding of a tied model's other layers frozen."""
    b = batch()
    model = tiny.build("qwen2")
    for name, p in model.named_parameters():
        p.requires_grad_(name.endswith("bias"))
    assert_same(plain(model, b, some(b)), slow_norms(model, b, some(b)))
    model = tiny.build("llama")
    for name, p in model.named_parameters():
        p.requires_grad_(block_of(name) not in ("embeddings", "layers.0"))
    assert list(plain(model, b, some(b))) == ["layers.1", "norm", "head"]
    assert_same(plain(model, b, some(b)), slow_norms(model, b, some(b)))
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    assert_same(plain(model, b, some(b)), slow_norms(model, b, some(b)))
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that is trained"):
        block_norms(model, b, some(b))


class Product(nn.Module):
    """Computes x * w + x @ v: neither is a linear layer that the recorder sees."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(()))
        self.matrix = nn.Parameter(torch.randn(width, width) / width)

    def forward(self, x):
        return x * self.scale + x @ self.matrix


class Flattened(nn.Module):
    """A linear layer and a norm that see (batch * seq, width), as experts do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        return self.norm(self.inner(x.flatten(0, 1))).view(x.shape)


class Borrowed(nn.Module):
    """Uses another module's weight without calling that module."""

    def __init__(self, other: nn.Linear) -> None:
        super().__init__()
        object.__setattr__(self, "other", other)

    def forward(self, x):
        return F.linear(x, self.other.weight.mT @ self.other.weight)


@pytest.mark.parametrize("kind", ["product", "flattened", "borrowed"])
def test_other_uses_of_weights_are_exact_and_warned_of(kind):
    model, b = tiny.build("llama"), batch()
    layers = model.model.layers
    made = {"product": Product, "flattened": Flattened, "borrowed": lambda _: Borrowed(layers[0].mlp.up_proj)}[kind]
    layers[1].mlp = made(32)
    with pytest.warns(UserWarning, match=r"cost one backward pass per example \(4\)"):
        found = block_norms(model, b, some(b))
    assert_same(found, slow_norms(model, b, some(b)))


@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_a_head_that_a_layer_uses_too_is_exact_and_warned_of(name):
    model, b = tiny.build(name), batch()
    first = nn.Linear(32, 97, bias=False)
    first.weight = model.lm_head.weight
    model.model.layers[0].mlp = nn.Sequential(first, nn.Linear(97, 32))
    with pytest.warns(UserWarning, match="cost one backward pass"):
        found = block_norms(model, b, some(b))
    assert_same(found, slow_norms(model, b, some(b)))


@pytest.mark.parametrize(
    ("settings", "warns"),
    [
        ({"target_modules": "all-linear", "use_dora": True}, True),
        ({"target_modules": ["embed_tokens", "q_proj"]}, True),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, False),
        ({"target_modules": ["q_proj", "lm_head"]}, False),
        ({"target_modules": ["v_proj"], "bias": "all"}, False),
    ],
    ids=["dora", "embedding", "saved-head", "head", "bias"],
)
def test_other_adapters(settings, warns):
    model, b = tiny.build("qwen2"), batch(lengths=(9, 4, 13, 5))
    mask = b.predicted()  # attention to a single token gives its query no gradient
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM", **settings)
        model = get_peft_model(model, config).eval()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = block_norms(model, b, mask)
    assert bool(seen) == warns
    assert_same(found, slow_norms(model, b, mask))


def test_errors_name_the_cure():
    model, b = tiny.build("llama"), batch()
    mask = some(b)
    with pytest.raises(ValueError, match=r"batch's shape \(4, 13\), got \(4, 12\)"):
        block_norms(model, b, mask[:, 1:])
    mask[[1, 3]] = False
    mask[:, 0] = True
    with pytest.raises(ValueError, match=r"rows \[1, 3\] of 4"):
        block_norms(model, b, mask)
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"must be finite.*rows \[0, 1, 2, 3\] of 4"):
        block_norms(model, b, some(b))
    with pytest.raises(ValueError, match=r"'model\.layers\.0\.odd\.weight'"):
        part_of("model.layers.0.odd.weight")
