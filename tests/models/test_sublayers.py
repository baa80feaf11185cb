"""Where an adapter sits: attention and MLP told apart by how they behave, in every architecture, and layers by name."""

import re

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GPTJConfig,
    OPTConfig,
    PhiConfig,
)

import families
import tiny
from foci import models
from foci.models import Adapter, sublayers
from foci.models.targets import targets_of

LLAMA = (
    {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"},
    {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"},
)
EXPECTED = {
    "gpt2": ({"attn.c_attn", "attn.c_proj"}, {"mlp.c_fc", "mlp.c_proj"}),
    "gpt-neox": ({"attention.query_key_value", "attention.dense"}, {"mlp.dense_h_to_4h", "mlp.dense_4h_to_h"}),
    "phi3": ({"self_attn.qkv_proj", "self_attn.o_proj"}, {"mlp.gate_up_proj", "mlp.down_proj"}),
}
SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
BLOOM = (
    {"self_attention.query_key_value", "self_attention.dense"},
    {"mlp.dense_h_to_4h", "mlp.dense_4h_to_h"},
)
OTHERS = {  # OPT's MLP has no part of its own; the others have names of their own
    "opt": (
        OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=64),
        {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"},
        {"fc1", "fc2"},
    ),
    "bloom": (BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4), *BLOOM),
    "falcon": (FalconConfig(**SMALL), *BLOOM),
    "gptj": (
        GPTJConfig(vocab_size=97, n_embd=32, n_layer=2, n_head=4, rotary_dim=8),
        {"attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj"},
        {"mlp.fc_in", "mlp.fc_out"},
    ),
    "phi": (
        PhiConfig(**SMALL, intermediate_size=64),
        {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense"},
        {"mlp.fc1", "mlp.fc2"},
    ),
}


def within(model, wanted):
    """The names of all weights that an adapter there adapts."""
    found = sublayers.chosen(model, targets_of(model, stacks=True), wanted)
    return [*found.modules, *found.parameters]


def parts(model):
    """(attention's linear layers, the MLPs'), each by its name within its layer, the same in both layers."""
    found = []
    for part in ("attention", "mlp"):
        names = [re.split(r"(?:layers|h)\.(\d+)\.", name)[1:] for name in within(model, part)]
        first, second = ({name for layer, name in names if layer == number} for number in "01")
        assert first == second
        found.append(first)
    return tuple(found)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_attention_and_mlp_are_told_apart_in_every_architecture(name):
    model = tiny.build(name)
    assert parts(model) == EXPECTED.get(name, LLAMA)
    assert sorted(within(model, "attention") + within(model, "mlp")) == sorted(within(model, "all-linear"))


@pytest.mark.parametrize("name", OTHERS)
def test_so_are_they_in_architectures_with_names_of_their_own(name):
    config, *expected = OTHERS[name]
    model = AutoModelForCausalLM.from_config(config).eval()
    assert parts(model) == tuple(expected)


def test_a_state_space_mixer_stands_in_the_place_of_attention():
    model = families.build("mamba")
    assert {name.split(".0.")[1] for name in within(model, "attention") if ".0." in name} >= {"mixer.in_proj"}
    with pytest.raises(ValueError, match="targets is mlp, but none of the layers of MambaForCausalLM that can be"):
        models.add_adapter(model, Adapter(targets="mlp"))


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss", "jetmoe", "falcon_h1", "bamba"])
def test_experts_and_mixers_find_their_place(name):
    model = families.build(name)
    attention, mlp = within(model, "attention"), within(model, "mlp")
    assert sorted(attention + mlp) == sorted(within(model, "all-linear"))
    assert all(re.search(r"attn|self_attention|mamba", one) for one in attention)
    assert all(re.search(r"mlp|feed_forward|moe", one) for one in mlp)
    assert not set(attention) & set(mlp)


@pytest.mark.parametrize("kind", models.ADAPTERS)
def test_only_what_is_targeted_trains_and_the_model_begins_as_it_was(kind):
    plain = tiny.build("llama")
    ids = torch.tensor([[2, 50, 7, 31, 96, 12]])
    before = plain(ids).logits.detach()
    net = models.add_adapter(plain, Adapter(type=kind, targets="mlp"))
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".mlp." in name for name in trained)
    torch.testing.assert_close(net(ids).logits, before, atol=1e-4, rtol=1e-4)


def test_layers_are_targeted_by_name():
    def adapted(*targets):
        net = models.add_adapter(tiny.build("llama"), Adapter(targets=targets))
        names = [name for name, _ in net.named_parameters() if "lora_" in name]
        return sorted({name.split("model.layers.")[1].split(".lora_")[0] for name in names})

    assert adapted("down_proj", "layers.1.self_attn.q_proj") == [
        "0.mlp.down_proj", "1.mlp.down_proj", "1.self_attn.q_proj",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (
            ["down_prj"],
            "names 'down_prj', but no layer of LlamaForCausalLM that can be adapted is called so; did you",
        ),
        (["nothing"], "known: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        (["lm_head"], "names 'lm_head', but no layer"),
        (["q_proj", "proj"], "names 'proj'"),
    ],
)
def test_names_that_no_layer_has_are_refused_with_those_there_are(targets, words):
    with pytest.raises(ValueError, match=words):
        models.add_adapter(tiny.build("llama"), Adapter(targets=targets))
