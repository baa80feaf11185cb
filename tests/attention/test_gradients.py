"""The analytic gradient of pattern losses against whole maps: every pattern, direction, kind of mask and model."""

import pytest
import torch
from transformers import RobertaConfig, RobertaForMaskedLM

import small
import tiny
from attending import Largest, bert, gpt_oss, modern_bert
from foci.attention import Guide, Targets, guided, logits, pattern_loss
from foci.attention.logits import Logits
from foci.attention.patterns import loss_of
from foci.focus import Batch, Row
from foci.models.architecture import base_of

CAUSAL = ["same", "previous", "previous-2", "first"]
CASES = [(pattern, "causal") for pattern in CAUSAL] + [(pattern, "both") for pattern in [*CAUSAL, "next"]]
SEQ = 11


@pytest.fixture(autouse=True)
def slices(monkeypatch):
    """Short rows in several slices."""
    monkeypatch.setattr(logits, "QUERIES_AT_A_TIME", 4)


def target_of(pattern, i, tokens):
    return {"same": i, "previous": i - 1, "previous-2": i - 2, "next": i + 1, "first": tokens[0]}[pattern]


def from_maps(maps, pattern, real):
    """sum ||A - P||^2 over (batch, head, query) of whole maps, rows without a target left out."""
    wanted = torch.zeros(len(real), *maps.shape[2:], dtype=maps.dtype)
    has = torch.zeros(real.shape, dtype=maps.dtype)
    for b in range(len(real)):
        tokens = real[b].nonzero().flatten().tolist()
        for i in tokens:
            t = target_of(pattern, i, tokens)
            if t in tokens:
                wanted[b, i, t] = has[b, i] = 1
    return ((maps - wanted[:, None]).square().sum(-1) * has[:, None]).sum()


def whole(query, key, visible, cap=None, sinks=None):
    """The maps: keys repeated, S x S, softmax over what is seen and the sink."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    s = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    s = cap * torch.tanh(s / cap) if cap else s
    s = s.masked_fill(~visible, -1e30)
    if sinks is not None:
        s = torch.cat([s, sinks[None, :, None, None].expand(*s.shape[:3], 1)], -1)
    return s.softmax(-1)[..., : key.shape[2]]


def rows(side="right"):
    real = torch.ones(2, SEQ, dtype=torch.bool)
    real[1, -4:] = False
    return real if side == "right" else real.flip(1)


def seen(real, direction, window=99):
    at = torch.arange(SEQ)
    near = (at[:, None] - at).abs() < window
    return (real[:, None, None] & near & (at[:, None] >= at if direction == "causal" else True)).expand(2, 1, SEQ, SEQ)


def drawn(dtype, heads=4, groups=2):
    query = torch.randn(2, heads, SEQ, 8, dtype=dtype, requires_grad=True)
    return query, torch.randn(2, groups, SEQ, 8, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("kind", ["bool", "additive"])
@pytest.mark.parametrize(("pattern", "direction"), CASES)
def test_value_and_gradient_are_those_of_whole_maps(pattern, direction, kind, dtype, tolerance):
    """Grouped queries, soft-capped scores and a window; the value relative, the gradient to its largest entry."""
    for side, window, cap in [("right", 99, None), ("left", 5, 0.7), ("left", 2, None)]:
        real = rows(side)
        visible, (query, key) = seen(real, direction, window), drawn(dtype)
        mask = visible if kind == "bool" else torch.where(visible, 0.0, torch.finfo(torch.float32).min).to(dtype)
        ours = pattern_loss(query, key, pattern, real, mask, softcap=cap)
        theirs = from_maps(whole(query, key, visible, cap), pattern, real)
        torch.testing.assert_close(ours, theirs, atol=0, rtol=tolerance)
        mine, right = (torch.autograd.grad(3 * loss, (query, key)) for loss in (ours, theirs))
        for a, b in zip(mine, right, strict=True):
            assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))
            assert float(b.abs().max()) > 1e-2


def wanted(pattern, real, delimiters):
    """P with a loop over every query and key; a query without a key has an all-zero row."""
    made = torch.zeros(*real.shape, real.shape[1], dtype=torch.float64)
    for b in range(len(real)):
        tokens = real[b].nonzero().flatten().tolist()
        stops = [j for j in tokens if delimiters[b, j]]
        for i in tokens:
            if pattern == "delimiter":
                keys = [j for j in stops if j <= i][-1:]
            else:
                keys = [j for j in [target_of(pattern, i, tokens)] if j in tokens]
            for j in keys:
                made[b, i, j] = 1
    return made


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    ("pattern", "direction"),
    [*[(p, "causal") for p in ("delimiter", "previous")], *[(p, "both") for p in ("delimiter", "next")]],
)
def test_delimiters_and_queries_without_a_key_are_those_of_whole_maps(pattern, direction, side):
    """Delimiters of which one is hidden by padding, a row of few and one of none; a window that hides some."""
    real = rows(side)
    real = torch.cat([real, torch.ones(1, SEQ, dtype=torch.bool)])
    delimiters = torch.zeros(3, SEQ, dtype=torch.bool)
    delimiters[0, [2, 3, 9]] = delimiters[1, [1, 5, 9]] = True
    p, query = wanted(pattern, real, delimiters), torch.randn(3, 4, SEQ, 8, dtype=torch.float64, requires_grad=True)
    key = torch.randn(3, 2, SEQ, 8, dtype=torch.float64, requires_grad=True)
    counted = p.sum(-1) > 0
    assert bool((real & (p.sum(-1) == 0)).any())
    for window in (99, 4):
        at = torch.arange(SEQ)
        visible = real[:, None, None] & ((at[:, None] - at).abs() < window)
        visible = (visible & (at[:, None] >= at) if direction == "causal" else visible).expand(3, 1, SEQ, SEQ)
        targets = Targets.of(pattern, real, delimiters)
        assert torch.equal(targets.counted, counted)
        ours = pattern_loss(query, key, targets, real, visible)
        squares = (whole(query, key, visible) - p[:, None]).square().sum(-1)
        theirs = (squares * counted[:, None]).sum()
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
        mine, right = (torch.autograd.grad(loss, (query, key)) for loss in (ours, theirs))
        for a, b in zip(mine, right, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)
            assert float(b.abs().max()) > 1e-2


def test_delimiters_by_hand():
    """Equal scores over 4 keys, of which the last 2 are delimiters: queries 0 and 1 see none and do not count."""
    zero, real = torch.zeros(1, 1, 4, 2), torch.ones(1, 4, dtype=torch.bool)
    stops = torch.tensor([[False, False, True, True]])
    last = Targets.of("delimiter", real, stops)  # rows 2 and 3: 1/3 - 2/3 + 1 and 1/4 - 2/4 + 1
    assert last.key.tolist() == [[-1, -1, 2, 3]]
    assert float(pattern_loss(zero, zero, last, real)) == pytest.approx(2 / 3 + 3 / 4)
    with pytest.raises(ValueError, match="'delimiter' looks at delimiters, got none"):
        pattern_loss(zero, zero, "delimiter", real)


@pytest.mark.parametrize("pattern", [*CAUSAL, "next"])
def test_no_mask_is_causal_and_a_row_of_keys_is_both_directions(pattern):
    real = rows()
    query, key = drawn(torch.float64)
    if pattern != "next":
        causal = pattern_loss(query, key, pattern, real)
        torch.testing.assert_close(causal, pattern_loss(query, key, pattern, real, seen(real, "causal")))
    both = pattern_loss(query, key, pattern, real, real[:, None, None])
    torch.testing.assert_close(both, from_maps(whole(query, key, seen(real, "both")), pattern, real))


@pytest.mark.parametrize("pattern", ["same", "first"])
def test_sinks_get_a_gradient_too(pattern):
    real, (query, key) = rows(), drawn(torch.float64)
    sinks = torch.randn(4, dtype=torch.float64, requires_grad=True)
    visible = seen(real, "causal")
    ours = loss_of(Logits(query, key, visible, 8**-0.5, None, sinks), Targets.of(pattern, real))
    theirs = from_maps(whole(query, key, visible, None, sinks), pattern, real)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    inputs = (query, key, sinks)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)


def test_gradcheck():
    real = torch.tensor([[False, True, True, True, True, True]])
    query, key = (torch.randn(1, n, 6, 3, dtype=torch.float64, requires_grad=True) for n in (2, 1))
    assert torch.autograd.gradcheck(lambda q, k: pattern_loss(q, k, "previous", real, softcap=2.0), (query, key))


def test_in_half_precision_it_is_near_float32():
    real, (query, key) = rows(), drawn(torch.float32)
    exact = pattern_loss(query, key, "previous", real)
    for cast in (True, False):
        q, k = ((t.detach().bfloat16() if cast else t.detach()).requires_grad_() for t in (query, key))
        with torch.autocast("cpu", torch.bfloat16):
            ours = pattern_loss(q, k, "previous", real)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, exact, atol=0, rtol=1e-2 if cast else 1e-6)
        right, mine = torch.autograd.grad(exact, (query, key), retain_graph=True), torch.autograd.grad(ours, (q, k))
        for a, b in zip(mine, right, strict=True):
            assert a.dtype == q.dtype
            assert float((a.float() - b).abs().max()) <= (4e-2 if cast else 1e-6) * float(b.abs().max())


def test_heads_that_cannot_be_shared_out_are_refused():
    query, key = torch.randn(1, 3, 4, 8), torch.randn(1, 2, 4, 8)
    with pytest.raises(ValueError, match="got 3 query heads and 2 key heads"):
        pattern_loss(query, key, "same", torch.ones(1, 4, dtype=torch.bool))


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_no_map_is_held(monkeypatch, where):
    monkeypatch.setattr(logits, "QUERIES_AT_A_TIME", 16)
    query, key = (torch.randn(1, 2, 512, 8, requires_grad=True) for _ in range(2))
    real = torch.ones(1, 512, dtype=torch.bool)
    with Largest() as largest:
        loss = pattern_loss(query, key, "previous", real)
        if where == "backward":
            loss.backward()
    assert 0 < largest.numel < 2 * 512 * 512 / 8


TARGETS = {0: {0: "previous", 1: "first", 3: "previous"}, 1: {2: "same", 1: "previous-2", 3: "same"}}
BOTH = {0: {0: "next", 1: "first"}, 1: {1: "next"}}


def gradients(net, loss):
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    made = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named, made, strict=True)}


def roberta():
    """Positions count from the padding's id; with its LM head."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=97, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=40, pad_token_id=0, initializer_range=0.5,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return RobertaForMaskedLM(config).eval()


def guided_gradients(net, targets, ids, mask):
    """What a backward pass of a loss of 0 leaves: the guides' own gradients."""
    with guided(net, Guide(targets)) as guide:
        guide.real = mask.bool()
        guide.scales = {pattern: 2.0 for heads in targets.values() for pattern in heads.values()}
        outputs = net(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        made = gradients(net, (outputs[mask.bool()] * 0).sum())
        guide.check_seen()
        return made, sum(float(value) for value in guide.values.values())


def whole_gradients(net, targets, ids, mask):
    """The same from Transformers' own eager maps."""
    base_of(net).set_attn_implementation("eager")
    maps = net(input_ids=ids, attention_mask=mask, use_cache=False, output_attentions=True).attentions
    loss = 0
    for layer, heads in targets.items():
        for head, pattern in heads.items():
            share = sum(other == pattern for other in heads.values())
            loss = loss + 2.0 / share * from_maps(maps[layer][:, [head]], pattern, mask.bool())
    return gradients(net, loss), float(loss.detach())


def assert_guided_as_whole(net, targets, ids, mask, tolerance):
    ours, value = guided_gradients(net, targets, ids, mask)
    theirs, right = whole_gradients(net, targets, ids, mask)
    assert value == pytest.approx(right, rel=1e-5)
    largest = max(float(g.abs().max()) for g in theirs.values())
    assert largest > 1e-3
    for name, g in theirs.items():
        assert float((ours[name] - g).abs().max()) <= tolerance * largest, name


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "gpt2", "gpt-neox"])
def test_a_guided_models_gradients_are_those_of_whole_maps(name):
    b = small.batch(3)
    assert_guided_as_whole(tiny.build(name), TARGETS, b.input_ids, b.attention_mask, 1e-5)


@pytest.mark.parametrize(("make", "targets"), [(gpt_oss, TARGETS), (bert, BOTH), (modern_bert, BOTH), (roberta, BOTH)])
def test_guiding_with_sinks_and_in_both_directions(make, targets):
    b = small.batch(3)
    assert_guided_as_whole(make(), targets, b.input_ids, b.attention_mask, 1e-5)


def test_guiding_with_lora_and_activation_checkpointing():
    """The same gradients, counted once; only the adapter's."""
    b = small.batch(3)
    net = tiny.lora(tiny.build("llama"))
    plain, _ = guided_gradients(net, TARGETS, b.input_ids, b.attention_mask)
    assert plain
    assert all("lora" in name for name in plain)
    base = base_of(net).train()
    base.enable_input_require_grads()
    (getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable)()
    again, _ = guided_gradients(net, TARGETS, b.input_ids, b.attention_mask)
    for name, g in plain.items():
        torch.testing.assert_close(again[name], g, atol=1e-7, rtol=1e-6)
    base.eval()
    assert_guided_as_whole(tiny.lora(tiny.build("llama")), TARGETS, b.input_ids, b.attention_mask, 1e-5)


def test_looking_ahead_is_refused_in_a_causal_model_alone():
    guide = Guide({0: {0: "next"}})
    with pytest.raises(ValueError, match=r"got 'next'.*'previous-2'"), guided(tiny.build("llama"), guide):
        pass
    with guided(bert(), guide):
        pass


def test_a_guide_of_no_strength_costs_nothing_and_changes_nothing():
    """Its losses are not computed; a layer that was not seen is then no error."""
    net, b = tiny.build("llama"), small.batch(3)
    with guided(net, Guide({1: {0: "previous"}}, scales={"previous": 0.0})) as guide:
        guide.read(b)
        net(input_ids=b.input_ids, attention_mask=b.attention_mask)
        guide.check_seen()
    assert not guide.values


def test_a_pattern_is_a_mean_over_the_queries_that_have_a_key():
    """Rows of 3 and 2 tokens: "previous" gives 2 + 1 queries a key, "delimiter" the last 2 of the first row."""
    b = Batch.of([Row("a", (5, 6, 7), columns={"delimiter": (0, 1, 0)}), Row("b", (5, 6))], 0)
    targets = {0: {0: "previous", 1: "delimiter"}}
    assert Guide(targets).counts(b) == {"previous": 3, "delimiter": 2}
