"""The short form of the sweep: the families of the last two years, and the checks that find most."""

import pytest

import tiny
import tiny_models
from checks import CHECKS, Case
from run import cell

FAMILIES = (
    "apertus", "bamba", "cohere2", "deepseek_v3", "ernie4_5_moe", "exaone4", "falcon_h1", "gemma3_text", "gemma4_text",
    "glm4_moe", "gpt_oss", "granitemoehybrid", "hunyuan_v1_dense", "lfm2", "llama4_text", "mamba2", "minimax_m2",
    "ministral3", "nemotron_h", "olmo3", "phi3", "qwen3", "qwen3_5_text", "qwen3_next", "smollm3",
)  # fmt: skip
QUICK = ("load", "left", "gradient", "decoding", "norms")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_number_is_right(name, tmp_path):
    case = Case(name, tmp_path)
    found = {kind: cell(CHECKS[kind], case) for kind in QUICK}
    assert {kind: one["state"] for kind, one in found.items()} == dict.fromkeys(QUICK, "right"), found


ODD = {
    "deepseek_v4": "adapter",
    "recurrent_gemma": "adapter",
    "zamba": "adapter",
    "zaya": "norms",
    "inkling2_text": "left",
}
"""Layers on groups, matrices per head, shared blocks, a norm of two tensors, a module behind the head."""


@pytest.mark.parametrize(("name", "kind"), ODD.items())
def test_odd_parts_are_read_rightly(name, kind, tmp_path):
    found = cell(CHECKS[kind], Case(name, tmp_path))
    assert found["state"] == "right", found


TIES = {"dots3_note_text": (0, "gradient"), "glm_moe_dsa": (1, "norms"), "deepseek_v32": (1, "decoding")}
"""Weights with which a top-k indexer scores several tokens with exactly 0, so that padding chooses among them."""


@pytest.mark.parametrize(("name", "seed", "kind"), [(name, *rest) for name, rest in TIES.items()])
def test_padding_does_not_choose_what_a_token_attends_to(name, seed, kind, tmp_path):
    found = cell(CHECKS[kind], Case(name, tmp_path, seed=seed))
    assert found["state"] == "right", found


def test_a_wrong_number_a_refusal_and_a_crash_are_told_apart(tmp_path):
    case = Case("llama", tmp_path)

    def refuses(_):
        raise ValueError("LlamaForCausalLM is not supported")

    def mutters(_):
        raise ValueError("bad shape")

    def fails(_):
        raise RuntimeError("boom")

    states = [cell(check, case)["state"] for check in (lambda _: 0.5, lambda _: 1e-5, refuses, mutters, fails)]
    assert states == ["wrong", "right", "refused", "unclear", "crash"]
    assert cell(lambda _: float("nan"), case)["state"] == "wrong"


def test_every_architecture_is_tried_or_left_out_for_a_reason():
    assert set(FAMILIES) <= set(tiny_models.names())
    assert set(tiny_models.LEFT_OUT) <= set(tiny_models.names())
    assert all(why for why in tiny_models.LEFT_OUT.values())
    assert tiny_models.configuration("llama").vocab_size > tiny.VOCAB
