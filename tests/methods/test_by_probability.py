"""The methods that weigh tokens by what the learner thinks of them: values worked by hand, and slow versions."""

import math
from dataclasses import replace

import pytest
import torch

import tiny
from foci.focus import ENTROPY, REHEARSED, Batch, Context, Plan, Row, WeighsTokens
from foci.learn.samples import described, sample_entropy, sample_nll
from foci.methods import build
from foci.methods.dft import Dft
from foci.methods.eaft import Eaft
from foci.methods.stm import Stm, StmWeights
from foci.methods.talr import Talr, median_row_nll
from foci.models import losses
from foci.pretrain.masking import HIDDEN, ORIGINAL, MaskedCollator
from foci.pretrain.trainer import Pretrainer
from foci.training.dataset import batch_of
from training import arguments, trained

IDS = [[5, 9, 31, 7, 60, 12], [8, 44, 3], [2, 2, 90, 17]]


def rows(**columns: float) -> list[Row]:
    return [Row(f"r{n}", tuple(ids), columns={k: (v,) * len(ids) for k, v in columns.items()})
            for n, ids in enumerate(IDS)]  # fmt: skip


def batch(nll: list[list[float]], name: str = "nll", old: tuple[int, ...] = ()) -> Batch:
    """Rows whose first token has no NLL, with a float64 column of the others'."""
    made = Batch.of([Row(f"r{n}", tuple(range(5, 6 + len(line)))) for n, line in enumerate(nll)], tiny.PAD)
    column = torch.zeros(made.input_ids.shape, dtype=torch.float64)
    for n, line in enumerate(nll):
        column[n, 1 : 1 + len(line)] = torch.tensor(line, dtype=torch.float64)
    made.columns[name] = column
    if old:
        made.columns[REHEARSED] = torch.tensor([[float(n in old)] for n in range(len(nll))]).expand(column.shape)
    return made


# --- by hand ---


def test_dft_is_the_probability_by_hand():
    """p = 1/2, 1/4, 1, 1/1000: their own values are the weights."""
    read = batch([[math.log(2), math.log(4)], [0.0, math.log(1000)]])
    assert Dft().weigh(read)[:, 1:].tolist() == [[pytest.approx(0.5), pytest.approx(0.25)], [1.0, pytest.approx(1e-3)]]
    assert build("dft") == Dft()


def test_eaft_by_hand():
    """Entropies 0, ln 2, ln 20: (0 / 3)^a = 0, (0.231049)^a, (0.998577)^a."""
    read = batch([[0.0, math.log(2), math.log(20)]], ENTROPY)
    assert Eaft().weigh(read)[0, 1:].tolist() == pytest.approx([0.0, 0.23104906018664842, 0.9985774245179969])
    squared = [0.0, 0.05338366821275293, 0.9971568727]
    assert Eaft(alpha=2.0).weigh(read)[0, 1:].tolist() == pytest.approx(squared)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"eaft's alpha is a finite power above 0.*1 is the paper's"):
            Eaft(wrong)


def test_talr_by_hand():
    """Rows' mean NLL 1, 2, 6: tau = 2, so weights are exp(-nll / 2) = sqrt(p); exp(-12 / 2) = .0025 becomes .01."""
    read = batch([[0.5, 1.5], [2.0], [0.0, 12.0]])
    assert float(median_row_nll(read.columns["nll"], read.predicted())) == pytest.approx(2.0)
    found = Talr().weigh(read)
    assert found[0, 1:].tolist() == pytest.approx([math.exp(-0.25), math.exp(-0.75)])
    assert found[1, 1].item() == pytest.approx(math.exp(-1))
    assert found[2, 1:].tolist() == pytest.approx([1.0, 0.01])
    assert Talr(floor=0.0).weigh(read)[2, 2].item() == pytest.approx(math.exp(-6))


def test_the_median_of_talr_leaves_out_old_rows_and_padding_and_takes_the_middle_of_two():
    read = batch([[1.0, 1.0, 1.0], [3.0], [99.0, 99.0]], old=(2,))
    read.columns["nll"][1, 2:] = 50.0  # padding
    assert Talr().weigh(read)[0, 1].item() == pytest.approx(math.exp(-1 / 2))  # tau = (1 + 3) / 2
    old = batch([[1.0, 2.0]], old=(0,))
    assert torch.isfinite(Talr().weigh(old)).all()


def test_talr_is_finite_where_all_is_learned():
    """tau = 0: 0^(1/0) of a token with an NLL is the floor, a certain token has weight 1."""
    read = batch([[0.0, 0.0, 0.0], [0.0, 3.0]])
    read.columns["nll"][1, 2] = 0.0
    assert Talr().weigh(read)[:, 1:].tolist() == [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    read = batch([[0.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    assert Talr().weigh(read)[2, 1:].tolist() == [1.0, pytest.approx(0.01)]
    for wrong in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"talr's floor.*0\.01 is the paper's"):
            Talr(wrong)


def test_stm_by_hand():
    """Perplexities 2.4, 2.5 and 2.6: only the last is above 2.5."""
    read = batch([[math.log(2.4), math.log(2.5), math.log(2.6)]], "start_nll")
    assert StmWeights(Stm()).weigh(read)[0, 1:].tolist() == [1.0, 1.0, 0.0]
    for wrong in (1.0, 0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"stm's threshold is a finite perplexity above 1.*2\.5 is the paper's"):
            Stm(wrong)


def test_stm_masks_by_the_untouched_model_and_is_the_mirror_of_known(tmp_path):
    net = tiny.build("llama", vocab=tiny.VOCAB)
    context = Context(net, tiny.tokenizer(), rows(), tmp_path / "stm")
    method, made = Stm(400.0).prepare(context)
    known, _ = build({"known": {"share": 1 / 400}}).prepare(Context(net, tiny.tokenizer(), rows(), tmp_path / "known"))
    read = Batch.of(made, tiny.PAD)
    logits = net.double()(read.input_ids).logits.log_softmax(-1).detach()
    for n, ids in enumerate(IDS):
        for t in range(1, len(ids)):
            perplexity = math.exp(-float(logits[n, t - 1, ids[t]]))
            assert float(method.weigh(read)[n, t]) == float(perplexity <= 400.0)
    counted = read.predicted()
    assert torch.equal(method.weigh(read)[counted], 1 - known.weigh(read)[counted])
    with pytest.raises(ValueError, match=r"perplexities .* from .* to .*, so stm's threshold, 1\.1, masks all of them"):
        Stm(1.1).prepare(Context(tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer(), rows(), tmp_path / "all"))


def test_a_reference_of_another_name_does_not_change_what_stm_reads(tmp_path):
    """rho's reference has a column of its own: both methods in one arm read the right numbers."""
    saved = str(tiny.save_model(tmp_path / "other", "llama", seed=3))
    net = tiny.build("llama", vocab=tiny.VOCAB)
    made = rows()
    for name, method in (("a", Stm(400.0)), ("b", build({"rho": {"reference": saved}}))):
        _, made = method.prepare(Context(net, tiny.tokenizer(), made, tmp_path / name))
    assert all(row.columns["start_nll"] != row.columns["reference_nll"] for row in made)


# --- the entropy of the 20 likeliest tokens ---


def slow_entropy(logits: torch.Tensor) -> float:
    """Of one position, by the definition: sort, keep 20, scale to 1, sum -p ln p."""
    p = sorted(logits.double().softmax(-1).tolist(), reverse=True)[:20]
    return -sum(q / sum(p) * math.log(q / sum(p)) for q in p if q > 0)


def test_the_entropy_by_hand():
    """Of 1/2, 1/4, 1/4: 1.5 ln 2. Of 30 equal tokens the 20 likeliest: ln 20."""
    assert float(losses.top_entropy(torch.tensor([2.0, 1.0, 1.0]).double() * math.log(2))) == pytest.approx(
        1.5 * math.log(2)
    )
    assert float(losses.top_entropy(torch.zeros(30, dtype=torch.float64))) == pytest.approx(math.log(20))
    sure = torch.full((30,), -200.0, dtype=torch.float64)
    sure[3] = 0.0
    assert float(losses.top_entropy(sure)) == pytest.approx(0.0, abs=1e-12)


def published_entropy(logits: torch.Tensor) -> torch.Tensor:
    """The entropy of the published code of EAFT (LLaMA-Factory)."""
    top = torch.topk(logits, k=20, dim=-1).values
    log_probs = top - torch.logsumexp(top, dim=-1, keepdim=True)
    return -(torch.exp(log_probs) * log_probs).sum(dim=-1)


def test_the_published_entropy_breaks_where_the_model_forbids_tokens_and_ours_does_not():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 40, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(losses.top_entropy(logits), published_entropy(logits))
    logits[:, 12:] = -math.inf  # 12 tokens are allowed
    assert published_entropy(logits).isnan().all()  # 0 * -inf
    assert losses.top_entropy(logits).tolist() == pytest.approx([slow_entropy(line) for line in logits])


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gemma2"])
def test_entropy_and_nll_of_every_token_equal_those_of_whole_logits(name, monkeypatch):
    monkeypatch.setattr(losses, "SLICE_ELEMENTS", 4 * 97)  # 4 positions at a time
    net = tiny.build(name, dtype=torch.float64)
    read = Batch.of(rows(), tiny.PAD)
    nll, entropy = losses.token_entropy(net, read)
    logits = net(input_ids=read.input_ids, attention_mask=read.attention_mask).logits
    for n, ids in enumerate(IDS):
        expected = [0.0, *(slow_entropy(logits[n, t - 1]) for t in range(1, len(ids)))]
        assert entropy[n, : len(ids)].tolist() == pytest.approx(expected, abs=1e-9)
    assert not entropy[~read.predicted()].any()
    torch.testing.assert_close(nll, losses.token_nll(net, read).detach())
    assert not nll.requires_grad


def test_no_more_logits_than_a_slice_exist_at_a_time_and_only_at_tokens_that_count(monkeypatch):
    seen = []
    monkeypatch.setattr(losses, "SLICE_ELEMENTS", 4 * 97)
    monkeypatch.setattr(losses, "top_entropy", lambda logits: (seen.append(tuple(logits.shape)), logits[..., 0])[1])
    net = tiny.build("llama")
    read = Batch.of(rows(), tiny.PAD)
    read.labels[0, 2:5] = -100
    losses.token_entropy(net, read)
    assert sum(count for count, _ in seen) == int(read.predicted().sum()) == 7
    assert max(count for count, _ in seen) == 4


class Seen(WeighsTokens):
    """Keeps the batches that it weighs."""

    def __init__(self, *names: str) -> None:
        self.names, self.batches = frozenset(names), list[Batch]()

    def needs(self) -> frozenset[str]:
        return self.names

    def weigh(self, batch: Batch) -> torch.Tensor:
        self.batches.append(batch)
        return torch.ones(batch.input_ids.shape)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_training_computes_the_entropy_of_the_learner_of_now(accumulation, tmp_path):
    net, seen = tiny.build("llama"), Seen(ENTROPY, "nll")
    start = tiny.build("llama")
    changes = {"per_device_train_batch_size": 3 // accumulation, "gradient_accumulation_steps": accumulation}
    trained(tmp_path, rows(), [seen], start=net, num_train_epochs=2, **changes)
    assert len(seen.batches) == 2
    for batch, model, same in zip(seen.batches, (start, start), (True, False), strict=True):
        nll, entropy = losses.token_entropy(model, batch)
        assert torch.allclose(batch.columns[ENTROPY], entropy, atol=1e-4) == same
        assert torch.allclose(batch.columns["nll"], nll, atol=1e-4) == same


def test_a_plan_that_reads_no_entropy_pays_for_none(tmp_path, monkeypatch):
    monkeypatch.setattr("foci.training.trainer.token_entropy", lambda *_: pytest.fail("computed"))
    seen = Seen("nll")
    trained(tmp_path, rows(), [seen], num_train_epochs=1)
    assert ENTROPY not in seen.batches[0].columns


def test_masked_language_models_have_the_entropy_where_the_token_is_hidden(tmp_path):
    net = tiny.build("llama", dtype=torch.float64)
    hidden = Row("h", (2, 9, 40, 7), columns={ORIGINAL: (2, 9, 31, 7), HIDDEN: (0.0, 0.0, 1.0, 0.0)})
    read = batch_of(MaskedCollator(tiny.PAD)([hidden]))
    trainer = Pretrainer(net, arguments(tmp_path), plan=Plan([Eaft()]), masked=True, train_dataset=[hidden])
    nll, entropy = trainer.token_entropy(net, read)
    logits = net(read.input_ids).logits[0, 2]
    assert entropy[0].tolist() == pytest.approx([0, 0, slow_entropy(logits), 0])
    assert nll[0].tolist() == pytest.approx([0, 0, -float(logits.log_softmax(-1)[31].detach()), 0])


def test_the_report_shows_the_weights_before_the_first_update(tmp_path):
    net = tiny.build("llama", vocab=tiny.VOCAB)
    plan, made = Plan([Eaft()]), [replace(row, offsets=((0, 0),) * len(row)) for row in rows()]
    nll = sample_nll(net, tiny.tokenizer(), made)
    entropy = sample_entropy(net, tiny.tokenizer(), made, plan)
    found = described(made, plan, tiny.tokenizer(), nll, nll, entropy)
    expected = losses.token_entropy(net, Batch.of(made, tiny.PAD))[1]
    shown = torch.tensor([[*line["weights"], *(0.0,) * (6 - len(line["weights"]))] for line in found])
    torch.testing.assert_close(shown, expected / expected.max(), atol=1e-4, rtol=1e-4)
    assert sample_entropy(net, tiny.tokenizer(), made, Plan([Dft()])) == []


@pytest.mark.parametrize("method", [Dft(), Eaft(), Talr()], ids=["dft", "eaft", "talr"])
def test_the_loss_of_the_first_update_is_the_weighted_mean_of_slow_weights(method, tmp_path):
    net = tiny.build("llama")
    read = Batch.of(rows(), tiny.PAD)
    logits = tiny.build("llama").double()(input_ids=read.input_ids, attention_mask=read.attention_mask).logits.detach()
    p, entropies, means = [], [], []
    for n, ids in enumerate(IDS):
        p.append([float(logits[n, t - 1].softmax(-1)[ids[t]]) for t in range(1, len(ids))])
        entropies.append([slow_entropy(logits[n, t - 1]) for t in range(1, len(ids))])
        means.append(-sum(map(math.log, p[-1])) / len(p[-1]))
    tau = sorted(means)[1]
    weights = {
        "Dft": [q for line in p for q in line],
        "Eaft": [h / 3 for line in entropies for h in line],
        "Talr": [max(q ** (1 / tau), 0.01) for line in p for q in line],
    }[type(method).__name__]
    nll = [-math.log(q) for line in p for q in line]
    expected = sum(w * v for w, v in zip(weights, nll, strict=True)) / sum(weights)
    _, found = trained(tmp_path, rows(), [method], start=net, num_train_epochs=1)
    assert found[0] == pytest.approx(expected, abs=1e-4)
