"""K-Adapter: its formulas by hand and slowly, and everything that a model wrapped by it must keep doing."""

import math
from dataclasses import asdict, replace

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from peft import PeftConfig
from safetensors.torch import load_file
from torch import nn

import runs
import small
import tiny
from foci import models
from foci.config.run import load_run
from foci.focus import Batch, Row
from foci.learn.run import learn
from foci.methods.l2_sp import L2Sp
from foci.methods.rec_adam import RecAdam
from foci.models import Adapter, block_of, load
from foci.models.adapters import evenly_spaced, save_k_adapter
from foci.models.architecture import layer_modules
from foci.models.k_adapter import AdapterLayer, KAdapter, KAdapterConfig, KAdapterModel, TransformerLayer, visible_keys
from foci.models.losses import captured_hidden, hidden_states, token_nll
from foci.probes import answer, read_probes
from foci.probes.qa import generate
from foci.system import checkpoint
from foci.system.checkpoint import step_of
from training import assert_same, trained, trained_plainly, weights

IDS = torch.tensor([[2, 50, 7, 31, 96, 12, 64, 5]])
SMALL = Adapter("k_adapter", layers=2, depth=2, width=16, heads=2)


def adapted(name="llama", *, moved=True, layers=3, settings=SMALL, **changes) -> KAdapterModel:
    """A tiny model with a K-Adapter, its weights moved away from where they start."""
    torch.manual_seed(0)
    net = models.add_adapter(tiny.build(name, layers=layers, **changes), settings)
    if moved:
        with torch.no_grad():
            for parameter in net.k_adapter.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return net.eval()


# --- the formulas ---


def test_which_keys_are_visible_by_hand():
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])
    left = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]
    right = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert visible_keys(mask, 4).int().tolist() == [left, right]
    assert visible_keys(mask, 2).int().tolist() == [left[2:], right[2:]]


def test_one_adapter_layer_by_hand():
    """Width 1: LayerNorm of one number is its bias, so that every norm gives 0.5 and attention plays no part.

    down = 2 * 3 + 5 * (-1) = 1; after the transformer layer 0.5; up = (4 * 0.5 + 1, -2 * 0.5);
    hidden + before + up = (3 + 0 + 3, 7 + (-1) - 1).
    """
    layer = AdapterLayer(KAdapterConfig(hidden=2, reads=(0,), depth=1, width=1, heads=1)).double()
    with torch.no_grad():
        layer.down.weight.copy_(torch.tensor([[2.0, 0.0, 0.0, 5.0]]))
        layer.down.bias.zero_()
        layer.transformer[0].mlp_norm.bias.fill_(0.5)
        layer.up.weight.copy_(torch.tensor([[4.0], [-2.0]]))
        layer.up.bias.copy_(torch.tensor([1.0, 0.0]))
    seen = []
    layer.transformer[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].item()))
    hidden, before = torch.tensor([[[3.0, 7.0]]]).double(), torch.tensor([[[0.0, -1.0]]]).double()
    found = layer(hidden, before, torch.ones(1, 1, 1).bool(), [None])
    assert seen == [1.0]
    assert found.tolist() == [[[6.0, 5.0]]]


def test_attention_by_hand():
    """States (1, -1) and (1, 1) are query, key and value alike: the second query scores them 0 and 2 / sqrt(2)."""
    layer = TransformerLayer(2, 1, 0.0).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.attention_in.weight.copy_(torch.eye(2).repeat(3, 1))  # query = key = value = state
        layer.attention_out.weight.copy_(torch.eye(2))
    got = []
    layer.attention_out.register_forward_hook(lambda _module, inputs, _output: got.append(inputs[0]))
    states = torch.tensor([[[1.0, -1.0], [1.0, 1.0]]]).double()
    layer(states, visible_keys(torch.ones(1, 2).bool(), 2))
    one = 1 / (1 + math.exp(2 / math.sqrt(2)))  # the first key's share
    assert got[0][0, 0].tolist() == pytest.approx([1.0, -1.0], abs=1e-12)
    assert got[0][0, 1].tolist() == pytest.approx([1.0, (1 - one) - one], abs=1e-12)


def slow_norm(row: list[float], norm: nn.LayerNorm | None = None) -> list[float]:
    mean = sum(row) / len(row)
    spread = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row) + 1e-5)
    gain = norm.weight.tolist() if norm else [1.0] * len(row)
    bias = norm.bias.tolist() if norm else [0.0] * len(row)
    return [g * (x - mean) / spread + b for x, g, b in zip(row, gain, bias, strict=True)]


def slow_linear(row: list[float], layer: nn.Linear) -> list[float]:
    found = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [sum(w * x for w, x in zip(line, row, strict=True)) + b for line, b in found]


def plus(*rows: list[float]) -> list[float]:
    return [sum(values) for values in zip(*rows, strict=True)]


def slow_transformer(rows: list[list[float]], layer: TransformerLayer, real: list[int]) -> list[list[float]]:
    """One sequence, loops alone: post-norm attention over real tokens up to and with the own one, then the MLP."""
    made = []
    width, size = len(rows[0]), len(rows[0]) // layer.heads
    parts = [slow_linear(row, layer.attention_in) for row in rows]
    for t, row in enumerate(rows):
        seen: list[float] = []
        keys = [j for j in range(t + 1) if real[j] or j == t]
        for head in range(layer.heads):
            at = head * size
            query = parts[t][at : at + size]
            scores = [
                sum(q * k for q, k in zip(query, parts[j][width + at :][:size], strict=True)) / math.sqrt(size)
                for j in keys
            ]
            total = sum(math.exp(score) for score in scores)
            shares = [math.exp(score) / total for score in scores]
            values = [parts[j][2 * width + at :][:size] for j in keys]
            seen += [sum(s * v[i] for s, v in zip(shares, values, strict=True)) for i in range(size)]
        state = slow_norm(plus(row, slow_linear(seen, layer.attention_out)), layer.attention_norm)
        inner = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in slow_linear(state, layer.mlp_in)]
        made.append(slow_norm(plus(state, slow_linear(inner, layer.mlp_out)), layer.mlp_norm))
    return made


def slow_adapter(read, last, adapter: KAdapter, real: list[int]) -> list[list[float]]:
    output = [[0.0] * len(row) for row in last]
    for hidden, layer in zip(read, adapter.layers, strict=True):
        normal = [slow_norm(row) for row in hidden]
        states = [slow_linear(h + o, layer.down) for h, o in zip(normal, output, strict=True)]
        for transformer in layer.transformer:
            states = slow_transformer(states, transformer, real)
        ups = [slow_linear(state, layer.up) for state in states]
        output = [plus(h, o, u) for h, o, u in zip(normal, output, ups, strict=True)]
    scaled = [[adapter.config.scale * x for x in slow_norm(row, adapter.norm)] for row in output]
    return [plus(row, more) for row, more in zip(last, scaled, strict=True)]


@pytest.mark.parametrize("mask", [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
def test_the_whole_adapter_against_loops_over_single_numbers(mask):
    config = KAdapterConfig(hidden=3, reads=(0, 2), depth=2, width=4, heads=2, scale=0.3, gain=1.0)
    adapter = KAdapter(config).double()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn_like(parameter))
    read, last = [5 * torch.randn(1, 5, 3).double() for _ in range(2)], torch.randn(1, 5, 3).double()
    found = adapter(read, last, torch.tensor([mask]))
    slow = slow_adapter([hidden[0].tolist() for hidden in read], last[0].tolist(), adapter, mask)
    torch.testing.assert_close(found[0], torch.tensor(slow, dtype=torch.float64), atol=1e-11, rtol=1e-11)


def test_gradients_of_the_adapter_are_those_of_its_formula():
    adapter = KAdapter(KAdapterConfig(hidden=3, reads=(0, 1), depth=1, width=4, heads=2, gain=1.0)).double()
    read = [torch.randn(1, 3, 3).double() for _ in range(2)]
    names = [name for name, _ in adapter.named_parameters()]
    values = tuple((torch.randn_like(p) * 0.5).requires_grad_() for p in adapter.parameters())

    def output(*given):
        arguments = (read, torch.zeros(1, 3, 3).double(), torch.tensor([[0, 1, 1]]))
        return torch.func.functional_call(adapter, dict(zip(names, given, strict=True)), arguments)

    assert torch.autograd.gradcheck(output, values)


def test_layers_that_feed_the_adapter_are_evenly_spaced():
    assert evenly_spaced(3, 24) == (0, 11, 23)  # the paper's, for RoBERTa-large
    assert evenly_spaced(3, 30) == (0, 14, 29)
    assert evenly_spaced(4, 4) == (0, 1, 2, 3)
    assert evenly_spaced(1, 5) == (4,)


def test_weights_are_drawn_as_the_published_code_draws_them():
    adapter = KAdapter(KAdapterConfig(hidden=128, reads=(0, 1), width=64, heads=2))
    for name, parameter in adapter.named_parameters():
        if parameter.ndim == 2:
            spread = 2e-4 if ".down." in name or ".up." in name else 0.02
            assert float(parameter.detach().std()) == pytest.approx(spread, rel=0.1), name
        elif name == "norm.weight":
            assert not parameter.any()
        else:
            assert set(parameter.tolist()) == {1.0 if "norm.weight" in name else 0.0}, name


# --- a model with a K-Adapter ---


@pytest.fixture(params=tiny.ARCHITECTURES)
def architecture(request):
    return request.param


def test_it_answers_as_before_until_it_is_trained_and_only_the_adapter_trains(architecture):
    net = tiny.build(architecture)
    before = net(IDS).logits
    wrapped = models.add_adapter(net, SMALL)
    assert torch.equal(wrapped(IDS).logits, before)
    trains = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    assert trains == {f"k_adapter.{name}" for name, _ in wrapped.k_adapter.named_parameters()}
    assert {block_of(name) for name in trains} == {"adapter"}
    tied = net.get_input_embeddings().weight is net.get_output_embeddings().weight
    assert models.blocks(wrapped) == ["embeddings", "layers.0", "layers.1", "norm", "adapter"] + ["head"] * (not tied)
    models.check_head(wrapped)
    assert models.base_of(wrapped) is net


def test_the_published_gain_changes_the_answers_at_once():
    net = tiny.build("llama")
    before = net(IDS).logits
    torch.manual_seed(0)
    wrapped = models.add_adapter(net, Adapter("k_adapter", layers=2, width=16, heads=2, gain=1.0))
    assert (wrapped(IDS).logits - before).abs().max() > 0.01


def test_gradients_flow_from_the_first_update_and_reach_every_weight_in_the_second():
    net = adapted(moved=False)
    optimizer = torch.optim.SGD(net.k_adapter.parameters(), lr=1.0)
    for update in range(2):
        optimizer.zero_grad()
        net(IDS, labels=IDS).loss.backward()
        moving = {name for name, p in net.k_adapter.named_parameters() if p.grad.any()}
        if update == 0:
            assert moving == {"norm.weight", "norm.bias"}
        optimizer.step()
    still = {name for name, _ in net.k_adapter.named_parameters()} - moving
    assert not still
    assert all(p.grad is None for p in models.base_of(net).parameters())


def test_the_head_reads_the_adapted_hidden_state(architecture):
    """h + scale * LN(adapter), from hidden states that Transformers itself gives out."""
    net = adapted(architecture)
    given = tiny.build(architecture, layers=3).base_model(IDS, output_hidden_states=True)
    read: list[torch.Tensor] = []
    plain = tiny.build(architecture, layers=3)
    layer_modules(plain)[2].register_forward_hook(lambda _m, _i, o: read.append(o[0] if isinstance(o, tuple) else o))
    last = plain.base_model(IDS).last_hidden_state
    expected = net.k_adapter([given.hidden_states[1], read[0]], last, torch.ones_like(IDS))
    batch = Batch(IDS, torch.ones_like(IDS), IDS)
    found = hidden_states(net, batch)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert (found - last).abs().max() > 0.01
    torch.testing.assert_close(models.head_of(net).logits(found), net(IDS).logits, atol=1e-6, rtol=1e-6)


def test_nll_is_that_of_the_whole_models_logits():
    net = adapted("gemma2")
    batch = small.batch()
    whole = net(batch.input_ids, batch.attention_mask).logits.log_softmax(-1)
    expected = -whole[:, :-1].gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    found = token_nll(net, batch)
    real = batch.predicted()
    torch.testing.assert_close(found[real], expected[real[:, 1:]], atol=1e-5, rtol=1e-5)


def test_a_later_token_changes_no_earlier_logit(architecture):
    net = adapted(architecture)
    before = net(IDS).logits
    for at in range(1, IDS.shape[1]):
        other = IDS.clone()
        other[0, at] = 40
        after = net(other).logits
        torch.testing.assert_close(after[:, :at], before[:, :at], atol=1e-6, rtol=1e-6)
        assert (after[:, at:] - before[:, at:]).abs().max() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(architecture, side):
    net = adapted(architecture)
    rows = small.rows(4)
    batch = Batch.of(rows, tiny.PAD, side=side)
    assert not batch.attention_mask.all()
    found = token_nll(net, batch)
    for n, row in enumerate(rows):
        alone = token_nll(net, Batch.of([row], tiny.PAD))[0]
        real = batch.attention_mask[n].bool()
        torch.testing.assert_close(found[n][real], alone, atol=2e-5, rtol=1e-5)


def test_padding_without_its_mask_would_change_something():
    """The padding test can fail: the adapter does see a token that the mask does not hide."""
    net = adapted()
    masked = torch.cat([torch.zeros(1, 3).long(), torch.ones_like(IDS)], 1)
    last = torch.randn(1, 11, 32)
    read = [torch.randn(1, 11, 32), torch.randn(1, 11, 32)]
    one, other = (net.k_adapter(read, last, mask)[:, 3:] for mask in (masked, torch.ones_like(masked)))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_and_without_cache_agrees(architecture, beams):
    """Nine new tokens (more than a sliding window), left-padded prompts, greedy and with beams that are reordered."""
    net = adapted(architecture)
    ids = torch.cat([IDS, IDS.flip(1)])
    ids[1, :3] = tiny.PAD
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    options = {"attention_mask": mask, "max_new_tokens": 9, "num_beams": beams, "do_sample": False}
    options |= {"return_dict_in_generate": True, "output_scores": True}
    with torch.no_grad():
        one, other = (net.generate(ids, use_cache=cache, **options) for cache in (True, False))
    assert torch.equal(one.sequences, other.sequences)
    for a, b in zip(one.scores, other.scores, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_logits_one_token_at_a_time_are_those_of_the_whole():
    net = adapted("gemma3")
    whole, cache = net(IDS).logits, None
    for at, width in ((0, 3), (3, 1), (4, 2), (6, 2)):
        part = net(IDS[:, at : at + width], past_key_values=cache, use_cache=True)
        cache = part.past_key_values
        torch.testing.assert_close(part.logits, whole[:, at : at + width], atol=1e-5, rtol=1e-5)


def test_answers_of_questions_are_those_of_generate():
    net, tokenizer = adapted("llama-tied", vocab=tiny.VOCAB), tiny.tokenizer()
    prompts = [Row("a", tuple(tokenizer("The capital of").input_ids)), Row("b", tuple(tokenizer("She").input_ids))]
    with torch.no_grad():
        said = generate(net, tokenizer, prompts, [6, 6])
        for row, words in zip(prompts, said, strict=True):
            ids = torch.tensor([row.input_ids])
            alone = net.generate(ids, max_new_tokens=6, do_sample=False, use_cache=False)[0, ids.shape[1] :]
            text = tokenizer.decode(alone, skip_special_tokens=True).strip()
            assert text.startswith(words)


def test_a_cache_that_the_adapter_did_not_fill_is_refused():
    net, plain = adapted(), tiny.build("llama", layers=3)
    cache = plain(IDS, use_cache=True).past_key_values
    for mask in (None, torch.ones(1, 9).long()):
        with pytest.raises(ValueError, match=r"no cache that was filled without the adapter"):
            net(IDS[:, :1], attention_mask=mask, past_key_values=cache, use_cache=True)
        cache = plain(IDS, use_cache=True).past_key_values


def test_a_mask_that_it_cannot_read_is_refused():
    net = adapted()
    with pytest.raises(ValueError, match=r"attention_mask of shape \(1, 8\), got \(1, 1, 8, 8\)"):
        net(IDS, attention_mask=torch.ones(1, 1, 8, 8).tril().bool())


def test_a_static_cache_gives_the_same_answers():
    net = adapted("llama")
    plain, static = (
        net.generate(IDS, max_new_tokens=9, do_sample=False, **options)
        for options in ({"use_cache": False}, {"cache_implementation": "static"})
    )
    assert torch.equal(plain, static)


# --- training ---


def test_bfloat16_autocast_and_activation_checkpointing():
    net = adapted()
    batch = small.batch()
    exact = token_nll(net, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = token_nll(net, batch)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.2, rtol=0.05)
    assert not torch.equal(rough, exact)
    net.train()
    exact.sum().backward()
    wanted = {name: p.grad.clone() for name, p in net.k_adapter.named_parameters()}
    net.zero_grad()
    net.activation_checkpointing_enable()
    token_nll(net, batch).sum().backward()
    for name, parameter in net.k_adapter.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-6, rtol=1e-5)
    with_cache = net(batch.input_ids, batch.attention_mask, use_cache=True).logits  # Transformers leaves the cache out
    torch.testing.assert_close(with_cache, net.eval()(batch.input_ids, batch.attention_mask).logits)


def test_dropout_follows_the_mode_of_the_base_model_too():
    net = adapted(settings=Adapter("k_adapter", layers=2, width=16, heads=2, dropout=0.5))
    still = net(IDS).logits
    assert (net.train()(IDS).logits - still).abs().max() > 1e-3
    with models.evaluating(models.base_of(net)):
        assert torch.equal(models.base_of(net)(IDS).logits, still)
    assert (net(IDS).logits - still).abs().max() > 1e-3


def test_a_base_in_bfloat16_keeps_its_precision_and_the_adapter_its_own():
    net = adapted(dtype=torch.bfloat16)
    assert {p.dtype for p in net.k_adapter.parameters()} == {torch.float32}
    assert net(IDS).logits.dtype == torch.bfloat16


def test_training_moves_the_adapter_alone_and_learns(tmp_path):
    net = adapted(moved=False)
    before = weights(net)
    _, losses = trained(tmp_path, small.rows(), start=net, num_train_epochs=8, learning_rate=0.1)
    assert losses[-1] < losses[0] - 0.2
    after = weights(net)
    assert {name for name in after if not torch.equal(after[name], before[name])} == {
        name for name in after if name.startswith("k_adapter.")
    }


def test_an_empty_plan_is_the_trainers_own_training(tmp_path):
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    one, losses = trained(tmp_path / "a", small.rows(), start=adapted(), **settings)
    other, plainly = trained_plainly(tmp_path / "b", small.rows(), start=adapted(), **settings)
    assert losses == plainly
    assert_same(one, other)


def test_the_weighted_loss_with_equal_weights_is_the_trainers_own(tmp_path):
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "num_train_epochs": 1}
    _, ours = trained(tmp_path / "a", small.rows(), [small.Column()], start=adapted(), **settings)
    _, theirs = trained(tmp_path / "b", small.rows(), start=adapted(), **settings)
    assert ours != theirs
    rows = [replace(row, columns={"w": (1.0,) * (len(row) - 1) + (1.0 + 1e-9,)}) for row in small.rows()]
    _, even = trained(tmp_path / "c", rows, [small.Column()], start=adapted(), **settings)
    assert even == pytest.approx(theirs, abs=1e-5)


EVERY = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "optim": "adamw_torch",
    "lr_scheduler_type": "cosine",
}


def test_resuming_from_any_step_ends_in_the_same_bits(tmp_path):
    """With dropout in the adapter, edits, weights and a pull; checkpoints hold the adapter alone."""
    methods = [small.Dropped(), small.Column(), small.Pulled(0.5), small.Pulled(0.2, "adapter")]
    settings = Adapter("k_adapter", layers=2, width=16, heads=2, dropout=0.2)

    def start():
        return adapted(settings=settings, moved=False)

    whole, losses = trained(tmp_path / "whole", small.rows(7), methods, start=start(), **EVERY)
    steps = sorted(step_of(path) for path in (tmp_path / "whole").iterdir())
    assert steps == list(range(1, len(losses) + 1))
    assert len(steps) >= 4
    kept = load_file(tmp_path / "whole" / "step-2" / "model.safetensors")
    assert all(name.startswith("k_adapter.") for name in kept)
    for step in steps[:-1]:
        kept_at = tmp_path / "whole" / f"step-{step}"
        again, rest = trained(tmp_path / f"{step}", small.rows(7), methods, start=start(), resume=kept_at, **EVERY)
        assert rest == losses[step:], step
        assert_same(whole, again)


@pytest.mark.parametrize("method", [L2Sp(60.0), RecAdam(t0=3, gamma=60.0)])
def test_a_pull_holds_the_adapter(method, tmp_path):
    far = []
    for methods in ([], [method]):
        net = adapted(moved=False)
        before = weights(net.k_adapter)
        trained(tmp_path, small.rows(), methods, start=net)
        far.append(sum(float((p - before[name]).square().sum()) for name, p in weights(net.k_adapter).items()))
    assert 0 < far[1] < 0.8 * far[0]


def test_a_learning_rate_of_its_own(tmp_path):
    """The adapter's block is scaled like any other; with scale 0 nothing is left to train."""
    moved = []
    for scale in (1.0, 1e-3):
        net = adapted(moved=False)
        before = weights(net.k_adapter)
        trained(tmp_path, small.rows(), [small.Scaled({"adapter": scale})], start=net)
        moved.append(max(float((p - before[name]).abs().max()) for name, p in weights(net.k_adapter).items()))
    assert moved[1] == pytest.approx(moved[0] * 1e-3, rel=0.5)
    with pytest.raises(ValueError, match="freeze every block that could be trained"):
        trained(tmp_path, small.rows(), [small.Scaled({"adapter": 0.0})], start=adapted())


def test_methods_that_could_do_nothing_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"LookAt.* layers \[1\], which nothing that trains can change: only"):
        trained(tmp_path, small.rows(), [small.LookAt()], start=adapted())
    with pytest.raises(ValueError, match=r"scales blocks \['layers.0'\], none of which trains: only \['adapter'\]"):
        trained(tmp_path, small.rows(), [small.Scaled({"layers.0": 0.5})], start=adapted())

    class Held(small.Pulled):
        def pull(self, step):
            return {"model.layers.0.mlp.up_proj.weight": torch.ones(64, 32)}

    with pytest.raises(ValueError, match=r"pull holds 1 parameters such as model.layers.0.mlp.up_proj.weight, none of"):
        trained(tmp_path, small.rows(), [Held()], start=adapted())


# --- refusals, saving, loading ---


def test_combinations_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"k_adapter of 4 layers needs as many in the model, LlamaForCausalLM has 3"):
        models.add_adapter(tiny.build("llama", layers=3), Adapter("k_adapter", layers=4))
    with pytest.raises(ValueError, match=r"already has an adapter \(k_adapter, which cannot be merged"):
        models.add_adapter(adapted(), Adapter("lora"))
    with pytest.raises(ValueError, match=r"already has an adapter \(default\)"):
        models.add_adapter(tiny.lora(tiny.build("llama")), SMALL)
    with pytest.raises(ValueError, match=r"k_adapter reads .*got r 8; leave out r"):
        Adapter("k_adapter", r=8)
    with pytest.raises(ValueError, match=r"width 16 and 3 heads"):
        Adapter("k_adapter", width=16, heads=3)
    with pytest.raises(ValueError, match=r"a k_adapter needs layers"):
        Adapter("k_adapter", scale=0.0)


def test_a_model_whose_head_reads_something_else_is_refused():
    class Doubled(type(tiny.build("llama"))):
        def forward(self, input_ids=None, attention_mask=None, **options):
            output = self.model(input_ids=input_ids, attention_mask=attention_mask)
            output.logits = self.lm_head(2 * output.last_hidden_state)
            return output

    with pytest.raises(ValueError, match=r"Doubled cannot have a K-Adapter: what its LM head reads is not the last"):
        models.add_adapter(Doubled(tiny.configuration("llama")), SMALL)


def test_a_model_that_hides_its_mask_from_its_body_is_refused():
    class Positional(type(tiny.build("llama"))):
        def forward(self, input_ids=None, attention_mask=None, **options):
            output = self.model(input_ids, attention_mask)
            output.logits = self.lm_head(output.last_hidden_state)
            return output

    with pytest.raises(ValueError, match=r"Positional cannot have a K-Adapter: .* called with nothing by name"):
        models.add_adapter(Positional(tiny.configuration("llama")), SMALL)


def test_saved_and_loaded_it_is_the_same_bit_for_bit(tmp_path):
    base = tiny.save_model(tmp_path / "base", "llama-tied")
    torch.manual_seed(0)
    net = models.add_adapter(load(str(base), device="cpu").model, SMALL)
    with torch.no_grad():
        for parameter in net.k_adapter.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_k_adapter(net, folder, str(base))
    loaded = load(str(folder), device="cpu", dtype="float32")
    assert isinstance(loaded.model, KAdapterModel)
    assert not loaded.model.training
    assert asdict(loaded.model.k_adapter.config) == asdict(net.k_adapter.config)
    assert torch.equal(loaded.model(IDS).logits, net.eval()(IDS).logits)
    assert_same(loaded.model, net)
    assert loaded.fingerprint == models.fingerprint(net) != models.fingerprint(models.base_of(net))
    with pytest.raises(TypeError, match="peft_type"):  # PEFT does not take it for one of its own
        PeftConfig.from_pretrained(str(folder))
    tiny.save_model(base, "llama-tied", seed=1)
    with pytest.raises(ValueError, match=r"K-Adapter .* was trained beside a model with fingerprint .*base' has"):
        load(str(folder), device="cpu")


def test_a_state_holds_the_adapter_alone_and_nothing_of_it_may_be_missing():
    net = adapted()
    state = net.state_dict()
    assert {name for name, _ in net.k_adapter.named_parameters(prefix="k_adapter")} == set(state)
    other = adapted(moved=False)
    assert other.load_state_dict(state).missing_keys == []
    assert_same(net, other)
    state.pop("k_adapter.norm.weight")
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"k_adapter.norm.weight\""):
        other.load_state_dict(state)


def test_the_heads_stand_in_is_taken_away_again():
    net = adapted()
    head = models.head_of(net).module
    with captured_hidden(net) as captured:
        net(IDS)
    assert len(captured) == 1
    assert models.head_of(net).module is head


# --- a whole run ---


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return runs.material(tmp_path_factory.mktemp("things"))


K_ADAPTER = {"type": "k_adapter", "layers": 2, "depth": 1, "width": 16, "heads": 2, "dropout": 0.1}


def run_of(folder, things, **changes):
    file = runs.run_file(folder, things, arms={"plain": []}, **changes)
    text = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**text, "adapter": K_ADAPTER}, sort_keys=False))
    return load_run(file)


def test_a_run_from_the_file_to_the_report(tmp_path, things):
    run = run_of(tmp_path, things, train={"learning_rate": 0.1})
    arm = learn(run)["arms"]["plain"]
    assert arm["corpus_bits_per_byte"]["after"] < arm["corpus_bits_per_byte"]["before"]
    assert "small" in (run.output / "report.html").read_text()
    assert not (run.output / "model").exists()  # without the adapter it would have lost what was learned
    assert {path.name for path in (run.output / "adapter").iterdir()} >= {
        "adapter_config.json", "adapter_model.safetensors", "tokenizer.json",
    }  # fmt: skip
    assert load_run(run.output) == run
    loaded = load(str(run.output / "adapter"), device="cpu", dtype="float32")
    table = pq.read_table(run.output / "probes" / "step-000009.parquet").to_pylist()
    asked = read_probes(run.probes.learn, "learn") + read_probes(run.probes.retain, "retain")
    base = load(str(things.model), device="cpu").model
    untouched = answer(base, loaded.tokenizer, asked)
    for line, found in zip(table, answer(loaded.model, loaded.tokenizer, asked), strict=True):
        assert line["nll"] == pytest.approx(found.nll, abs=1e-4)
        assert line["predicted"] == found.predicted
    assert max(abs(line["nll"] - one.nll) for line, one in zip(table, untouched, strict=True)) > 0.1
    changed = run.model.model_copy(update={"name": str(run.output / "adapter")})
    again = run.model_copy(update={"model": changed, "output": tmp_path / "again"})
    with pytest.raises(ValueError, match=r"adapter has a k_adapter, which cannot be merged .* name its base model"):
        learn(again)


def test_a_run_that_was_stopped_ends_in_the_same_bits(tmp_path, things, monkeypatch):
    whole = learn(run_of(tmp_path / "whole", things))["arms"]["plain"]
    run, seal = run_of(tmp_path / "stopped", things), checkpoint.seal

    def stopped(folder, step):
        if step == 6:
            raise KeyError("stopped")
        seal(folder, step)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "seal", stopped)
        with pytest.raises(KeyError):
            learn(run)
    assert [path.name for path in sorted((run.output / "checkpoints").iterdir())] == ["step-2", "step-4"]
    again = learn(run, resume=True)["arms"]["plain"]
    assert again["weights_sha256"] == whole["weights_sha256"]
    assert again["learned"] == whole["learned"]
