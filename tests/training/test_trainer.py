"""The trainer: nothing added when the plan is empty, and the six roles do what they say."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import families
import small
import tiny
from foci import FocusTrainer, Plan, models
from foci.focus import UNWEIGHTED, Batch, Row, WeighsTokens
from foci.methods.known import Known
from foci.models import balancing
from foci.models.losses import token_nll
from foci.training.anchor import Anchor
from foci.training.dataset import Collator
from foci.training.non_finite import NonFinite
from training import arguments, assert_same, model, trained, trained_plainly, weights


class Ones(WeighsTokens):
    def weigh(self, batch):
        return torch.ones_like(batch.input_ids, dtype=torch.float32)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_no_method_is_plain_fine_tuning_bit_for_bit(tmp_path, name, accumulation):
    rows = small.rows()
    changes = {"gradient_accumulation_steps": accumulation, "weight_decay": 0.1, "lr_scheduler_type": "cosine"}
    ours, our_losses = trained(tmp_path / "a", rows, start=model(name), **changes)
    plain, plain_losses = trained_plainly(tmp_path / "b", rows, start=model(name), **changes)
    assert our_losses == plain_losses
    assert len(our_losses) == 6 // accumulation + (accumulation == 2)
    assert_same(ours, plain)


@pytest.mark.parametrize("lora", [False, True])
def test_our_loss_with_weights_of_one_is_the_trainers(tmp_path, lora):
    rows = small.rows()
    ours, our_losses = trained(tmp_path / "a", rows, [Ones()], start=model(lora=lora), gradient_accumulation_steps=2)
    plain, losses = trained_plainly(tmp_path / "b", rows, start=model(lora=lora), gradient_accumulation_steps=2)
    assert our_losses == pytest.approx(losses, abs=1e-6)
    assert_same(ours, plain, 2e-6)


@pytest.mark.parametrize("name", ["qwen3_moe", "jetmoe"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_balancing_loss_of_routers_is_kept(tmp_path, name, accumulation):
    """A plan with weights of 1 and the Trainer's own loss are the same number, and another one without that part."""
    factor = {"aux_loss_coef" if name == "jetmoe" else "router_aux_loss_coef": 0.5}

    def losses(methods, asked):
        start = families.build(name, output_router_logits=asked, **factor)
        settings = {"gradient_accumulation_steps": accumulation, "num_train_epochs": 1, "learning_rate": 1e-3}
        return trained(tmp_path, small.rows(), methods, start=start, **settings)[1]

    own, ours = losses([], True), losses([Ones()], True)
    assert ours == pytest.approx(own, rel=1e-4)
    assert min(ours) > max(losses([Ones()], False)) + 0.2


def test_a_balancing_loss_without_a_known_factor_is_refused(monkeypatch):
    net = families.build("qwen3_moe", output_router_logits=True)
    monkeypatch.setattr(balancing, "COEFFICIENTS", ())
    words = r"Qwen3MoeForCausalLM adds a balancing loss .*set output_router_logits: false"
    with pytest.raises(ValueError, match=words), balancing.balancing_losses(net):
        pass


def test_loss_is_the_weighted_mean_of_nats(tmp_path):
    """The first logged loss, by hand from the definition."""
    rows = small.rows(4)
    start = model()
    b = small.batch(4)
    nll, w = token_nll(start, b).detach(), b.columns["w"] * b.predicted()
    _, losses = trained(tmp_path, rows, [small.Column()], start=start, num_train_epochs=1)
    assert losses[0] == pytest.approx(float((nll * w).sum() / w.sum()), abs=1e-6)


def test_row_normalisation_counts_rows_alike(tmp_path):
    rows = small.rows(4)
    start = model()
    b = small.batch(4)
    nll, w = token_nll(start, b).detach(), b.columns["w"] * b.predicted()
    _, losses = trained(tmp_path, rows, [small.Column()], start=start, num_train_epochs=1, normalise="row")
    assert losses[0] == pytest.approx(float(((nll * w).sum(1) / w.sum(1)).mean()), abs=1e-6)


@pytest.mark.parametrize("normalise", ["update", "row"])
@pytest.mark.parametrize(
    "methods",
    [(small.Column(),), (small.Column(), small.Hard()), (small.Column(), small.Imitating())],
    ids=["column", "with-nll", "imitating"],
)
def test_accumulation_is_a_larger_batch(tmp_path, methods, normalise):
    """4 rows at once, 2 x 2 and 4 x 1, with weights that differ and start with 0: the same updates."""
    rows = small.rows(12)
    runs = [
        trained(
            tmp_path / str(size), rows, methods, normalise=normalise, per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size, train_sampling_strategy="sequential", optim="sgd", learning_rate=0.1,
        )
        for size in (4, 2, 1)
    ]  # fmt: skip
    for other, losses in runs[1:]:
        assert losses == pytest.approx(runs[0][1], abs=2e-6)
        assert_same(runs[0][0], other, 1e-6)


def test_scale_of_weights_does_not_matter(tmp_path):
    doubled = [
        small.Row(r.row_id, r.input_ids, columns={"w": tuple(8 * v for v in r.columns["w"])}) for r in small.rows()
    ]
    a, _ = trained(tmp_path / "a", small.rows(), [small.Column()])
    b, _ = trained(tmp_path / "b", doubled, [small.Column()])
    assert_same(a, b, 1e-7)


def test_edits_are_the_same_whatever_the_workers(tmp_path):
    a, la = trained(tmp_path / "a", small.rows(), [small.Dropped()], dataloader_num_workers=0)
    b, lb = trained(tmp_path / "b", small.rows(), [small.Dropped()], dataloader_num_workers=2)
    _, lp = trained(tmp_path / "c", small.rows())
    assert la == lb
    assert la != lp
    assert_same(a, b)


def test_frozen_blocks_rest_and_others_move_at_their_rate(tmp_path):
    start = model()
    before = weights(start)
    by = {"layers.0": 0.0, "embeddings": 0.0, "layers.1": 0.5}
    after, _ = trained(
        tmp_path, small.rows(4), [small.Scaled(by)], start=start, num_train_epochs=1,
        lr_scheduler_type="constant", optim="sgd", learning_rate=0.1, max_grad_norm=0,
    )  # fmt: skip
    full, _ = trained(
        tmp_path / "b", small.rows(4), start=model(), num_train_epochs=1,
        lr_scheduler_type="constant", optim="sgd", learning_rate=0.1, max_grad_norm=0,
    )  # fmt: skip
    moved = weights(full)
    for name, p in after.named_parameters():
        share = 0.0 if "layers.0." in name or "embed" in name else 0.5 if "layers.1." in name else 1.0
        torch.testing.assert_close(p - before[name], share * (moved[name] - before[name]), atol=1e-7, rtol=1e-4)
        assert p.requires_grad, name


def test_frozen_blocks_have_no_optimiser_state(tmp_path):
    trainer = FocusTrainer(
        model(), arguments(tmp_path), plan=Plan([small.Scaled({"layers.0": 0.0})]), train_dataset=small.rows()
    )
    trainer.train()
    names = {p: n for n, p in trainer.model.named_parameters()}
    held = [names[p] for group in trainer.optimizer.param_groups for p in group["params"]]
    assert held
    assert not [n for n in held if "layers.0." in n]


def test_mixed_rows_are_read_and_epochs_may_differ_in_length(tmp_path):
    old = small.rows(8, seed=9)
    trainer = FocusTrainer(
        model(), arguments(tmp_path, per_device_train_batch_size=1), plan=Plan([small.Old(old, (3, 1))]),
        train_dataset=small.rows(4),
    )  # fmt: skip
    seen = [row for inputs in trainer.get_train_dataloader() for row in inputs["row_ids"]]
    assert len(seen) == 4 + 3 + 4 + 1
    new = {row.row_id for row in small.rows(4)}
    assert {row for row in seen[:7] if row in new} == new == {row for row in seen[7:] if row in new}
    trainer.train()
    assert trainer.state.global_step == 12


@pytest.mark.parametrize(("epochs", "updates"), [(0.5, 6), (1, 11), (2.5, 28), (3, 33)])
def test_a_part_of_an_epoch_is_a_part_of_it_with_old_rows_too(tmp_path, epochs, updates):
    """10 new rows and an old one are 11 updates of one row: half an epoch 5.5, which Trainer rounds up."""
    old = small.Old(small.rows(2, seed=9), (1, 1, 1))
    _, losses = trained(tmp_path, small.rows(10), [old], num_train_epochs=epochs, per_device_train_batch_size=1)
    assert len(losses) == updates


def test_rehearsed_rows_are_read_plainly(tmp_path):
    """A weigher that weighs new rows 0 leaves the loss of the old ones: their plain mean."""
    new = [small.Row(r.row_id, r.input_ids, columns={"w": (0.0,) * (len(r) - 1) + (1e-9,)}) for r in small.rows(2)]
    old = [small.Row(r.row_id, r.input_ids) for r in small.rows(2, seed=9)]
    start = model()
    b = small.Batch.of(old, tiny.PAD)
    mean = float(token_nll(start, b).detach().sum() / b.predicted().sum())
    methods = [small.Column(), small.Old(old, (2,))]
    _, losses = trained(tmp_path, new, methods, start=start, num_train_epochs=1)
    assert losses[0] == pytest.approx(mean, abs=1e-5)


def test_an_update_of_rehearsed_rows_alone(tmp_path):
    old = [small.Row(r.row_id, r.input_ids) for r in small.rows(6, seed=9)]
    _, losses = trained(
        tmp_path,
        small.rows(2),
        [small.Column(), small.Old(old, (6,))],
        num_train_epochs=1,
        per_device_train_batch_size=1,
    )
    assert len(losses) == 8
    assert min(losses) > 0


def test_pull_by_hand(tmp_path):
    """SGD, lr .1, strength 2: after the gradient step, theta loses .2 of its distance from the start."""
    start = model()
    before = weights(start)
    settings = {"num_train_epochs": 1, "optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant"}
    free, _ = trained(tmp_path / "a", small.rows(4), start=model(), **settings)
    held, _ = trained(tmp_path / "b", small.rows(4), [small.Pulled(2.0)], start=start, **settings)
    moved = weights(free)
    for name, p in held.named_parameters():
        torch.testing.assert_close(p - before[name], 0.8 * (moved[name] - before[name]), atol=1e-7, rtol=1e-4)


def test_pace_scales_the_optimisers_step(tmp_path):
    start = model()
    before = weights(start)
    settings = {"num_train_epochs": 1, "optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant"}
    free, _ = trained(tmp_path / "a", small.rows(4), start=model(), **settings)
    paced, _ = trained(tmp_path / "b", small.rows(4), [small.Pulled(0.0, tempo=0.25)], start=start, **settings)
    for (name, p), q in zip(paced.named_parameters(), free.parameters(), strict=True):
        torch.testing.assert_close(p - before[name], 0.25 * (q - before[name]), atol=1e-7, rtol=1e-4)


def test_pull_on_an_adapter_shortens_what_it_adds(tmp_path):
    """The pull acts on s B A, and is its gradient descent: compared with autograd."""
    from foci.training.anchor import Anchor

    wrapped = tiny.lora(tiny.build("llama"))
    anchor = Anchor(wrapped)
    with torch.no_grad():
        for p in wrapped.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    (a, b), scaling = next(iter(anchor.pairs.items()))
    parameters = dict(wrapped.named_parameters())
    pa, pb = parameters[a].detach().clone().requires_grad_(), parameters[b].detach().clone().requires_grad_()
    distance = scaling * (pb @ pa - anchor.start[b] @ anchor.start[a])
    ga, gb = torch.autograd.grad(0.5 * distance.square().sum(), (pa, pb))
    anchor.pull({"*": 2.0}, dict.fromkeys(anchor.start, 0.01))
    torch.testing.assert_close(parameters[a], pa - 0.02 * ga)
    torch.testing.assert_close(parameters[b], pb - 0.02 * gb)


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss"])
@pytest.mark.parametrize("tensors", [False, True])
def test_pull_on_the_adapter_of_experts_is_the_gradient_of_what_it_adds(name, tensors):
    """Compared with autograd through PEFT's own product; gpt-oss stores its experts as (in, out)."""
    from foci.training.anchor import Anchor

    wrapped = models.add_adapter(families.build(name), models.Adapter(r=2, alpha=1.0))
    anchor = Anchor(wrapped)
    layer = wrapped.get_submodule("base_model.model.model.layers.0.mlp.experts")  # the outer of two
    assert {layer.parameter_name, layer.base_layer.parameter_name} == {"down_proj", "gate_up_proj"}
    for inner in (layer, layer.base_layer):
        start = inner.get_delta_weight("default").detach().clone()
        with torch.no_grad():
            for p in (inner.lora_A["default"].weight, inner.lora_B["default"].weight):
                p.add_(0.1 * torch.randn_like(p))
        pair = [inner.lora_A["default"].weight, inner.lora_B["default"].weight]
        before = [p.detach().clone() for p in pair]
        place = f"model.layers.0.mlp.experts.{inner.parameter_name}"
        strength = torch.rand_like(start) if tensors else torch.tensor(1.0)
        down = torch.autograd.grad(0.5 * (strength * (inner.get_delta_weight("default") - start).square()).sum(), pair)
        anchor.pull({place: strength} if tensors else {"*": 1.0}, dict.fromkeys(anchor.start, 0.01))
        for now, old, g in zip(pair, before, down, strict=True):
            torch.testing.assert_close(now, old - 0.01 * g)
            assert not torch.equal(now, old)


def test_a_pull_past_the_start_is_refused(tmp_path):
    start = model()
    with pytest.raises(ValueError, match=r"learning rate 0.01 times strength 200 is 2"):
        Anchor(start).pull({"*": 200.0}, dict.fromkeys(weights(start), 0.01))
    with pytest.raises(ValueError, match=r"times strength reaches 2 in update \d+, .* by at least 2"):
        trained(tmp_path, small.rows(4), [small.Pulled(200.0)], lr_scheduler_type="constant")


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ([small.Column("absent")], "reads the column 'absent', which no row has"),
        ([small.Scaled({"layers.7": 0.5})], r"match no parameter, layers.7; the model has layers.0, layers.1, e"),
        ([small.Scaled(dict.fromkeys(["embeddings", "layers.0", "layers.1", "norm", "head"], 0.0))], "every block"),
        ([small.LookAt(layer=9)], "guides no head in any of 2 layers"),
        ([small.LookAt(layer=1), small.Scaled({"layers.1": 0.0})], r"guides heads in layers \[1\], which are frozen"),
        ([small.LookAt(pattern="next")], "cannot look at later tokens, got 'next'"),
        ([small.Pulled(1.0, "layers.9")], r"pull names \['layers.9'\]"),
        ([small.Old([], (0, 0))], "mixed in no old rows"),
    ],
)  # fmt: skip
def test_a_method_never_silently_does_nothing(tmp_path, methods, words):
    with pytest.raises(ValueError, match=words):
        trained(tmp_path, small.rows(), methods)


def test_a_method_that_must_be_prepared_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"Known\(share=0.5\) must look at the model .* run `plan, rows = foci.learn"):
        trained(tmp_path, small.rows(), [Known()])


def test_a_constant_column_is_refused(tmp_path):
    flat = [small.Row(r.row_id, r.input_ids, columns={"w": (1.0,) * len(r)}) for r in small.rows()]
    with pytest.raises(ValueError, match=r"column 'w' is \{1.0\} on all tokens"):
        trained(tmp_path, flat, [small.Column()])


@pytest.mark.parametrize(("value", "words"), [(math.nan, "weight of nan"), (-1.0, "weight of -1.0")])
def test_bad_weights_are_refused(tmp_path, value, words):
    class Bad(WeighsTokens):
        def weigh(self, batch):
            return torch.full(batch.input_ids.shape, value)

    with pytest.raises(ValueError, match=words):
        trained(tmp_path, small.rows(), [Bad()])


def test_weights_of_another_shape_are_refused(tmp_path):
    class PerRow(WeighsTokens):
        def weigh(self, batch):
            return torch.ones(len(batch.input_ids), 1)

    with pytest.raises(ValueError, match=r"weights of shape \(4, 1\)"):
        trained(tmp_path, small.rows(), [PerRow()])


def test_a_loss_that_would_be_ignored_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"label_smoothing_factor=0.1.*would do nothing"):
        trained(tmp_path, small.rows(), [small.Column()], label_smoothing_factor=0.1)


@pytest.mark.parametrize(
    ("methods", "changes", "words"),
    [
        ([small.Dropped()], {"dataloader_persistent_workers": True, "dataloader_num_workers": 1}, "repeat the edits"),
        ([], {"save_only_model": True}, "save_only_model=True"),
    ],
)
def test_settings_that_would_break_a_law_are_refused(tmp_path, methods, changes, words):
    with pytest.raises(ValueError, match=words):
        trained(tmp_path, small.rows(), methods, **changes)


def test_packed_batches_are_refused(tmp_path):
    """Their positions restart inside a row; our loss would let tokens look across documents."""

    def packed(rows):
        made = Collator(tiny.PAD)(rows)
        return made | {"position_ids": torch.arange(made["input_ids"].shape[1]).expand(made["input_ids"].shape)}

    def train(methods):
        FocusTrainer(
            model(), arguments(tmp_path), plan=Plan(methods), train_dataset=small.rows(), data_collator=packed
        ).train()

    train([])
    with pytest.raises(ValueError, match=r"this one also has \['position_ids'\].*packing"):
        train([small.Column()])


def test_evaluation_reads_rows(tmp_path):
    """eval_dataset of rows: the Trainer's own loss, whatever the plan."""
    start = model()
    b = small.batch(4)
    trainer = FocusTrainer(
        start, arguments(tmp_path), plan=Plan([small.Column()]), train_dataset=small.rows(), eval_dataset=small.rows(4)
    )
    mean = token_nll(start, b).detach().sum() / b.predicted().sum()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(float(mean), abs=1e-5)


def test_evaluation_counts_tokens_with_a_label_whatever_the_plan(tmp_path):
    """Rows and mappings, with and without a weigher: the mean NLL of the last three tokens of each row."""
    start = model()
    rows = [Row(f"r{n}", row.input_ids, columns=dict(row.columns)) for n, row in enumerate(small.rows(4))]
    marked = [replace(row, columns={**row.columns, UNWEIGHTED: (1.0,) * (len(row) - 3) + (0.0,) * 3}) for row in rows]
    given = [{"input_ids": row.input_ids, "labels": [-100] * (len(row) - 3) + [*row.input_ids[-3:]]} for row in rows]
    nll = token_nll(start, Batch.of(rows, tiny.PAD)).detach()
    mean = sum(float(line[len(row) - 3 : len(row)].sum()) for line, row in zip(nll, rows, strict=True)) / 12
    for plan in (Plan(), Plan([small.Column()])):
        trainer = FocusTrainer(start, arguments(tmp_path), plan=plan, train_dataset=small.rows())
        assert trainer.evaluate(marked)["eval_loss"] == pytest.approx(mean, abs=1e-5)
        assert trainer.predict(given).metrics["test_loss"] == pytest.approx(mean, abs=1e-5)
    with pytest.raises(ValueError, match="has labels that are not its tokens"):
        trainer.evaluate([{"input_ids": [5, 6, 7], "labels": [5, 6, 8]}])


def test_the_best_checkpoint_is_named_by_its_place(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    settings |= {"metric_for_best_model": "eval_loss", "greater_is_better": False, "learning_rate": 1e-3}
    args = arguments(tmp_path, **settings)
    trainer = FocusTrainer(model(), args, plan=Plan(), train_dataset=small.rows(), eval_dataset=small.rows(4))
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name == f"step-{trainer.state.best_global_step}"
    assert json.loads((best / "trainer_state.json").read_text())["best_model_checkpoint"] == str(best)


def test_what_would_be_ignored_is_refused(tmp_path):
    args = arguments(tmp_path)
    with pytest.raises(TypeError, match="copies"):
        FocusTrainer(model(), args, plan=Plan(), train_dataset=torch.utils.data.TensorDataset(torch.ones(3)), copies=3)
    once = arguments(tmp_path, save_strategy="epoch", num_train_epochs=1)
    FocusTrainer(model(), once, plan=Plan([small.Old(small.rows(3))]), train_dataset=small.rows())
    for name in ("eval", "save", "logging"):
        args = arguments(tmp_path, **{f"{name}_strategy": "epoch"}, num_train_epochs=2)
        with pytest.raises(ValueError, match=f"{name}_strategy='epoch' would act once"):
            FocusTrainer(
                model(),
                args,
                plan=Plan([small.Old(small.rows(3))]),
                train_dataset=small.rows(),
                eval_dataset=small.rows(4),
            )


def test_not_a_method():
    with pytest.raises(TypeError, match="EditsTokens"):
        Plan(["oracle"])


def test_a_guided_head_moves_toward_its_pattern(tmp_path):
    rows = small.rows(8, longest=10)
    b = small.batch(8, longest=10)

    @torch.no_grad()
    def attention_to_previous(net):
        net.set_attn_implementation("eager")
        maps = net(input_ids=b.input_ids, attention_mask=b.attention_mask, output_attentions=True).attentions[1][:, 0]
        net.set_attn_implementation("sdpa")
        real = b.attention_mask.bool()[:, 1:]
        return float(maps.diagonal(-1, 1, 2)[real].mean())

    free, _ = trained(tmp_path / "a", rows, num_train_epochs=10)
    led, _ = trained(tmp_path / "b", rows, [small.LookAt()], num_train_epochs=10)
    assert attention_to_previous(led) > 0.7 > 0.4 > attention_to_previous(free)
    assert led.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("checkpointing", [False, True])
def test_guiding_with_accumulation_and_checkpointing_is_the_same_update(tmp_path, checkpointing):
    settings = {"train_sampling_strategy": "sequential", "optim": "sgd", "learning_rate": 0.5, "num_train_epochs": 2}
    a, _ = trained(tmp_path / "a", small.rows(8), [small.LookAt()], per_device_train_batch_size=4, **settings)
    start = model()
    if checkpointing:
        (getattr(start, "activation_checkpointing_enable", None) or start.gradient_checkpointing_enable)()
    b, _ = trained(
        tmp_path / "b", small.rows(8), [small.LookAt()], start=start, per_device_train_batch_size=1,
        gradient_accumulation_steps=4, **settings,
    )  # fmt: skip
    free, _ = trained(tmp_path / "c", small.rows(8), per_device_train_batch_size=4, **settings)
    assert_same(a, b, 2e-6)
    with pytest.raises(AssertionError):
        assert_same(a, free, 2e-6)


@pytest.mark.parametrize("methods", [(), (small.Column(),)], ids=["plain", "weighed"])
def test_a_number_that_is_not_finite_stops_the_run(tmp_path, methods):
    start = model()
    start.lm_head.weight.data[5] = math.inf
    before = weights(start)
    with pytest.raises(
        NonFinite,
        match=r"loss is (nan|inf) at update 1, with the learning rate 0.01; rows .*: 0-.*last good checkpoint: none",
    ):
        trained(tmp_path, small.rows(), methods, start=start)
    torch.testing.assert_close(start.model.norm.weight, before["model.norm.weight"], atol=0, rtol=0)


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path):
    start = model()
    start.model.norm.weight.register_hook(lambda g: g * math.nan)
    with pytest.raises(NonFinite, match="gradient norm is nan at update 1"):
        trained(tmp_path, small.rows(), start=start)


def test_the_trainer_names_no_method():
    import inspect
    import pkgutil
    import re

    import foci.methods
    import foci.training.trainer

    names = [module.name for module in pkgutil.walk_packages(foci.methods.__path__)]
    assert names
    assert not re.findall(rf"\b({'|'.join(names)})\b", inspect.getsource(foci.training.trainer))


def test_rows_that_change_each_other_are_told_by_a_plain_run_and_refused_by_a_guide(tmp_path):
    rows = small.rows(4, shortest=9, longest=20)
    with pytest.warns(UserWarning, match=r"Phi3ForCausalLM changes its rotary positions .* is not read as it is alone"):
        trained(tmp_path, rows, start=tiny.stretched("longrope"), max_steps=1)
    with pytest.raises(ValueError, match=r"heads cannot be guided here: Phi3ForCausalLM .* all rows to 16 tokens"):
        trained(tmp_path, rows, [small.LookAt(layer=1)], start=tiny.stretched("longrope"), max_steps=1)


def test_the_checkpoints_of_a_second_training_in_one_folder_are_its_own(tmp_path):
    """Those of the training before are deleted first, and a resume goes on with the newest of this one."""
    saved = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    trained(tmp_path, small.rows(), max_steps=6, **saved)
    trained(tmp_path, small.rows(), max_steps=3, **saved)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-2", "step-3"]


def test_a_resume_says_what_it_cannot_resume_from(tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 1}
    trained(tmp_path, small.rows(), max_steps=2, resume=True, **saved)  # there is none: it begins anew
    for step, words in ((2, "resuming from .*step-1; "), (1, "training begins anew; ")):
        (tmp_path / f"step-{step}" / "optimizer.pt").write_bytes(b"x")
        with pytest.warns(UserWarning, match=rf"{words}checkpoints in .* are not complete \(step-2: "):
            trained(tmp_path, small.rows(), max_steps=2, resume=True)


@pytest.mark.parametrize("rows", [[], ()])
def test_an_empty_list_of_rows_is_refused_by_name(tmp_path, rows):
    with pytest.raises(ValueError, match="there are no rows to train on"):
        trained(tmp_path, rows)
