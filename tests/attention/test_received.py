"""Attention that is watched in slices, against whole maps of Transformers' eager attention; and what is refused."""

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

import tiny
from attending import Largest, bert, gpt_oss, modern_bert
from foci.attention import attention_maps, check_watched, logits, pair_attention, received, watching
from foci.attention.received import _checked, _queries
from foci.models.architecture import base_of

SEQ = 19


@pytest.fixture(autouse=True)
def slices(monkeypatch):
    """Short texts in several slices."""
    monkeypatch.setattr(logits, "QUERIES_AT_A_TIME", 5)


def texts(side: str = "right", seq: int = SEQ):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, 97, (3, seq), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, -7:] = 0
    mask[2, -seq + 1 :] = 0
    return ids, mask if side == "right" else mask.flip(1)


def eager_maps(model, ids, mask):
    """layer x (batch, head, query, key) from Transformers itself, which reads each row alone; 0 at padding."""
    base, seq = base_of(model), ids.shape[1]
    before = base.config._attn_implementation
    base.set_attn_implementation("eager")
    made: list[torch.Tensor] = []
    for row, real in enumerate(mask.bool()):
        with torch.no_grad():
            maps = model(input_ids=ids[row, real][None], output_attentions=True).attentions
        assert maps
        made = made or [torch.zeros(len(ids), one.shape[1], seq, seq, dtype=one.dtype) for one in maps]
        at = real.nonzero().flatten()
        for whole, one in zip(made, maps, strict=True):
            whole[row, :, at[:, None], at] = one[0]
    base.set_attn_implementation(before)
    return made


def slow(maps, mask, kind="following", layers=None, heads=None, without_first=False):
    """The card's formula with loops."""
    whole = torch.stack([layer.double() for layer in maps], 1).nan_to_num()  # batch, layer, head, query, key
    whole = whole[:, list(range(len(maps)) if layers is None else layers)]
    whole = whole[:, :, list(range(whole.shape[2]) if heads is None else heads)]
    share = torch.zeros(mask.shape, dtype=torch.float64)
    for b in range(len(mask)):
        tokens = mask[b].nonzero().flatten().tolist()
        if without_first:
            whole[b, ..., tokens[0]] = 0
            whole[b] /= whole[b].sum(-1, keepdim=True).clamp(min=1e-300)
        for j in tokens:
            asked = [i for i in tokens if (i > j if kind == "later" else i >= j)]
            asked = [i for i in asked if isinstance(kind, str) or kind[b, i]]
            share[b, j] = whole[b, :, :, asked, j].mean() if asked else 0.0
    return share


def close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours.double(), theirs.double(), atol=tolerance, rtol=0)


def uniform():
    """A Llama whose queries are 0: token i gives 1 / (i + 1) to each token up to itself."""
    model = tiny.build("llama", layers=1)
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data.zero_()
    return model


def test_by_hand():
    model, ids = uniform(), torch.tensor([[5, 6, 7]])
    mask = torch.ones_like(ids)
    close(received(model, ids, mask), torch.tensor([[11 / 18, 5 / 12, 1 / 3]]), 1e-6)
    close(received(model, ids, mask, queries="later"), torch.tensor([[5 / 12, 1 / 3, 0]]), 1e-6)
    close(received(model, ids, mask, without_first=True), torch.tensor([[0, 3 / 4, 1 / 2]]), 1e-6)
    last = torch.tensor([[False, True, False]])
    close(received(model, ids, mask, queries=last), torch.tensor([[1 / 2, 1 / 2, 0]]), 1e-6)


@pytest.mark.parametrize("attention", ["eager", "own"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_received_is_that_of_eager_maps(name, side, attention):
    model = tiny.build(name, attention="eager" if attention == "eager" else None)
    ids, mask = texts(side)
    maps = eager_maps(model, ids, mask)
    close(received(model, ids, mask), slow(maps, mask))


@pytest.mark.parametrize("make", [gpt_oss, bert, modern_bert])
@pytest.mark.parametrize("side", ["right", "left"])
def test_received_with_sinks_and_in_both_directions(make, side):
    model, (ids, mask) = make(), texts(side)
    maps = eager_maps(model, ids, mask)
    if make is gpt_oss:
        assert float(maps[0][0].sum(-1).mean()) < 0.9
    close(received(model, ids, mask), slow(maps, mask))
    close(received(model, ids, mask, queries="later"), slow(maps, mask, "later"))


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_every_setting_is_that_of_eager_maps(name):
    model, (ids, mask) = tiny.build(name), texts("left")
    maps = eager_maps(model, ids, mask)
    some = torch.rand(mask.shape) < 0.4
    close(received(model, ids, mask, queries="later"), slow(maps, mask, "later"))
    close(received(model, ids, mask, queries=some), slow(maps, mask, some))
    close(received(model, ids, mask, layers=[1]), slow(maps, mask, layers=[1]))
    close(received(model, ids, mask, layers=[0], heads=[3, 1]), slow(maps, mask, layers=[0], heads=[3, 1]))
    close(received(model, ids, mask, without_first=True), slow(maps, mask, without_first=True))


def test_with_lora_and_in_half_precision():
    model, (ids, mask) = tiny.lora(tiny.build("llama")), texts()
    plain = received(tiny.build("llama"), ids, mask)
    adapted = received(model, ids, mask)
    close(adapted, slow(eager_maps(model, ids, mask), mask))
    assert float((adapted - plain).abs().max()) > 1e-2
    half = received(tiny.build("llama").bfloat16(), ids, mask)
    assert half.dtype == torch.float32
    close(half, plain, 2e-2)
    assert received(tiny.build("llama").double(), ids, mask).dtype == torch.float64


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3", "gpt2"])
def test_a_callers_autocast_is_no_reason_to_refuse(name):
    """The first look at a model may happen inside autocast: rounding is not another attention."""
    ids, mask = texts()
    with torch.autocast("cpu", torch.bfloat16):
        found = received(tiny.build(name), ids, mask)
    exact = received(tiny.build(name), ids, mask)
    assert not torch.equal(found, exact)
    close(found, exact, 5e-2)


def test_padding_changes_nothing():
    model, (ids, mask) = tiny.build("mistral"), texts()
    alone = received(model, ids[1:2, :-7], mask[1:2, :-7])
    together = received(model, ids, mask)
    close(together[1:2, :-7], alone, 1e-6)
    assert together[1, -7:].eq(0).all()


@pytest.mark.parametrize("name", ["gemma2", "qwen3", "gpt2"])
def test_pairs_and_maps_are_those_of_eager_attention(name):
    model, (ids, mask) = tiny.build(name), texts()
    maps = torch.stack(eager_maps(model, ids, mask), 1)
    pairs = torch.tensor([[0, 18, 3], [1, 4, 4], [0, 2, 9], [0, 7, 0]])
    found = pair_attention(model, ids, mask, pairs)
    assert found.shape == (4, 2, 4)
    for n, (row, query, key) in enumerate(pairs.tolist()):
        close(found[n], maps[row, :, :, query, key])
    assert found[2].eq(0).all()
    close(pair_attention(model, ids, mask, pairs, layers=[1], heads=[2])[:, 0, 0], found[:, 1, 2], 0)
    pictures = attention_maps(model, ids, mask, [(1, 3), (0, 0)])
    for n, (layer, head) in enumerate([(1, 3), (0, 0)]):
        close(pictures[:, n], maps[:, layer, head] * mask[:, :, None])


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_outputs_are_the_models_own_and_it_is_as_it_was(name):
    model, (ids, mask) = tiny.build(name), texts()
    model.train()
    model.get_input_embeddings().eval()
    modes = [module.training for module in model.modules()]
    implementation = model.config._attn_implementation
    own = watching._hidden(model, ids, mask)
    ours = watching.run_in_slices(model, ids, mask, lambda *_: None)
    real = mask.bool()
    scale = float(own[real].abs().max())
    assert float((ours - own)[real].abs().max()) <= 2e-6 * scale  # eager and SDPA differ by as much
    received(model, ids, mask)
    assert model.config._attn_implementation == implementation
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(watching._hidden(model, ids, mask), own)
    for kind in (AttentionInterface, AttentionMaskInterface):
        assert not [name for name in kind._global_mapping if name.startswith(watching.NAME)]


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_outputs_in_float64(name):
    """To rounding; Gemma 2's own attention takes its softmax in float32.

    No padding: eager attention gives NaN in float64 where a window holds nothing but padding.
    """
    model, (ids, _) = tiny.build(name, dtype=torch.float64), texts()
    mask = torch.ones_like(ids)
    tolerance = 2e-6 if name.startswith("gemma2") else 1e-10
    ours = watching.run_in_slices(model, ids, mask, lambda *_: None)
    torch.testing.assert_close(ours, watching._hidden(model, ids, mask), atol=tolerance, rtol=0)


def test_two_models_are_watched_at_once():
    """One inside the other: each has a name of its own."""
    one, other, (ids, mask) = tiny.build("llama"), tiny.build("llama", seed=1), texts()
    alone = received(one, ids, mask), received(other, ids, mask)
    inner = []

    def see(layer, *_):
        if layer == 1 and len(inner) < 2:
            inner.append(received(other, ids, mask))
            inner.append(received(one, ids, mask))

    watching.run_in_slices(one, ids, mask, see)
    assert torch.equal(inner[0], alone[1])
    assert torch.equal(inner[1], alone[0])


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_no_map_is_held(monkeypatch, name):
    monkeypatch.setattr(logits, "QUERIES_AT_A_TIME", 16)
    model, (ids, mask) = tiny.build(name, layers=2), texts(seq=512)
    check_watched(model)
    with Largest() as largest:
        received(model, ids, mask)
    assert 0 < largest.numel < 3 * 512 * 512
    with Largest() as whole:
        eager_maps(model, ids, mask)
    assert whole.numel >= 3 * 4 * 512 * 512


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MambaForCausalLM(MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=2)), "Mamba"),
        (lambda: BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=16, n_layer=2, n_head=2)), "Bloom"),
        (
            lambda: FalconForCausalLM(
                FalconConfig(vocab_size=97, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
            ),
            "Falcon",
        ),
    ],
)
def test_a_model_that_cannot_be_watched_is_refused_by_name(make, says):
    ids, mask = texts()
    with pytest.raises(ValueError, match=rf"{says}\w* .*cannot (be )?watch"):
        received(make().eval(), ids, mask)


def other_attention(model, name="flash_attention_2"):
    """A model that says it runs a kernel of which no scores are known."""
    model.config._attn_implementation_internal = name
    return model


def test_a_kernel_that_is_not_known_is_refused_by_name():
    ids, mask = texts()
    with pytest.raises(ValueError, match="LlamaForCausalLM runs attention 'flash_attention_2', which"):
        received(other_attention(tiny.build("llama")), ids, mask)


def test_attention_that_reads_more_is_refused():
    """What sparse attention and biases hand over beside the mask; another scale is seen in the outputs."""
    model, (ids, mask) = tiny.build("llama"), texts()
    module = type(model.model.layers[0].self_attn)
    options = {"scaling": 1.0}
    vectors = torch.randn(1, 4, 3, 8)
    with pytest.raises(ValueError, match="its attention reads indices"):
        watching.logits_of(model, vectors, vectors, None, {**options, "indices": torch.zeros(1)})
    with pytest.raises(ValueError, match="2 queries, 3 keys"):
        watching.logits_of(model, vectors[:, :, :2], vectors, None, options)

    class Sharper(module):
        def forward(self, *args, **kwargs):
            self.scaling = 0.5 if self.config._attn_implementation == "sdpa" else 0.9
            return super().forward(*args, **kwargs)

    model.model.layers[1].self_attn.__class__ = Sharper
    with pytest.raises(ValueError, match=r"LlamaForCausalLM .*cannot be watched: 2 of its layers .*other outputs"):
        received(model, ids, mask)


def test_code_that_works_on_the_mask_itself_is_refused():
    model, (ids, mask) = tiny.build("llama"), texts()
    layer = model.model.layers[0].self_attn

    class Slices(type(layer)):
        def forward(self, hidden_states, position_embeddings=None, attention_mask=None, **kwargs):
            return super().forward(hidden_states, position_embeddings, attention_mask[:, :, :, :], **kwargs)

    layer.__class__ = Slices
    with pytest.raises(ValueError, match=r"LlamaForCausalLM .*its code works on the attention mask itself"):
        received(model, ids, mask)


def test_layers_without_attention_are_never_averaged_over():
    """A hybrid: layers 0 and 2 are Mamba's, 1 and 3 have attention."""
    torch.manual_seed(0)
    config = JambaConfig(
        vocab_size=97, hidden_size=16, intermediate_size=16, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=2, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=9, expert_layer_offset=8,
        num_experts=1, num_experts_per_tok=1, use_mamba_kernels=False, mamba_d_state=4, mamba_expand=1,
        pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    model, (ids, mask) = JambaForCausalLM(config).eval(), texts()
    with pytest.raises(ValueError, match=r"JambaForCausalLM .*layers \[0, 2\] have no attention .*\[1, 3\] have"):
        received(model, ids, mask)
    assert received(model, ids, mask, layers=[1, 3])[0].min() > 0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"layers": [2]}, r"layers \[2\] have no attention"),
        ({"layers": []}, "at least one layer"),
        ({"heads": []}, "at least one layer and one head"),
        ({"heads": [4]}, r"layer 0 has heads 0 to 3, got heads \[4\]"),
        ({"queries": torch.zeros(3, SEQ, dtype=torch.bool)}, "0 True"),
    ],
)
def test_what_is_asked_for_must_be_there(asked, says):
    model, (ids, mask) = tiny.build("llama"), texts()
    with pytest.raises(ValueError, match=says):
        received(model, ids, mask, **asked)


@pytest.mark.parametrize(
    "pair", [(3, 0, 0), (0, 19, 0), (0, 0, -1), (1, 18, 0), (1, 3, 18)], ids=["row", "query", "key", "pad", "to pad"]
)
def test_pairs_must_be_tokens(pair):
    model, (ids, mask) = tiny.build("llama"), texts()
    with pytest.raises(ValueError, match=r"pairs are \(row, query, key\) of real tokens.*got \[\["):
        pair_attention(model, ids, mask, torch.tensor([(0, 1, 1), pair]))


def test_shapes_are_looked_at():
    """Under pytest types are checked before: here are the checks that everybody else meets."""
    ids, mask = texts()
    with pytest.raises(ValueError, match=r"got \(3, 19\) and \(2, 19\)"):
        _checked(ids, mask[:2])
    with pytest.raises(ValueError, match=r"got shape \(3, 18\)"):
        _queries(torch.ones(3, SEQ - 1, dtype=torch.bool), mask.bool())
    with pytest.raises(ValueError, match=r"'following', 'later' or a mask .* got 'before'"):
        _queries("before", mask.bool())


def test_maps_of_no_head_are_refused():
    with pytest.raises(ValueError, match="got none"):
        attention_maps(tiny.build("llama"), *texts(), [])
