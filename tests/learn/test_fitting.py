"""How many tokens pass at once: what is asked for, what memory holds, and one layer at a time where it holds little."""

import gc

import pytest
import torch
from torch import nn
from transformers import Trainer

import fits
import runs
import several
import tiny
from foci.config.run import load_run
from foci.config.train import TrainConfig
from foci.learn import arm
from foci.learn import fitting as module
from foci.learn.fitting import CPU_TOKENS, Fit, fitting, kept_bytes, later_bytes
from foci.learn.run import learn
from foci.learn.save import save
from foci.system import machine
from foci.system.files import read_json

FLOAT = torch.float32


def test_what_is_asked_for_is_taken():
    assert fitting(TrainConfig(batch_tokens=7), tiny.build("llama"), 50, FLOAT) == Fit(7)


def test_a_cpu_with_memory_reads_as_many_as_pay():
    assert fitting(TrainConfig(), tiny.lora(tiny.build("llama")), 50, FLOAT) == Fit(CPU_TOKENS)


def test_what_is_kept_grows_with_the_layers():
    """At the least each layer keeps what goes into two norms, attention and MLP; a model twice as deep keeps twice."""
    model = tiny.lora(tiny.build("llama"))
    config = model.config
    each = kept_bytes(model, FLOAT)
    assert each >= 4 * 4 * config.hidden_size * config.num_hidden_layers
    deep = tiny.lora(tiny.build("llama", layers=3 * config.num_hidden_layers))
    assert kept_bytes(deep, FLOAT) == pytest.approx(3 * each, rel=0.3)


def living():
    """Returns the bytes of all tensors that are alive, each storage once."""
    gc.collect()
    storages = [each.untyped_storage() for each in gc.get_objects() if type(each) in (torch.Tensor, nn.Parameter)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_looking_leaves_nothing_behind():
    """A hook that returns its own tensor keeps the pass for good: 490 MB for each arm of SmolLM2-135M."""
    model = tiny.lora(tiny.build("llama"))
    kept_bytes(model, FLOAT)
    before = living()
    kept_bytes(model, FLOAT)
    assert living() == before


def test_the_trainer_is_gone_when_the_model_is_saved(tmp_path, monkeypatch):
    """Its optimizer and the copies of lean passes took the memory that loading the saved model again takes."""
    things, found = runs.material(tmp_path), []

    def saving(*given):
        kept = gc.get_objects()  # of other tests too, some of which warn when their class is asked for
        trainers = [each for each in kept if issubclass(type(each), Trainer)]
        found.append([each.args.output_dir for each in trainers if str(tmp_path) in each.args.output_dir])
        return save(*given)

    monkeypatch.setattr(arm, "save", saving)
    learn(load_run(runs.run_file(tmp_path, things)))
    assert found
    assert not any(found)


@pytest.mark.parametrize(("free", "fit"), [
    (1.0, Fit(100)),
    (0.25, Fit(25, recomputes=True)),
])  # fmt: skip
def test_memory_decides(monkeypatch, free, fit):
    """100 positions fit into a whole budget; rows of 50 do not fit into a quarter of it."""
    model = tiny.lora(tiny.build("llama"))
    budget = 100 * kept_bytes(model, FLOAT) / module.SHARE
    later = later_bytes(model)
    assert later == 12 * sum(p.numel() for p in model.parameters() if p.requires_grad)  # float32, three times
    monkeypatch.setattr(machine, "free_bytes", lambda device: int(budget * free) + later + 1)
    found = fitting(TrainConfig(), model, 50, FLOAT)
    assert found.recomputes == fit.recomputes
    assert found.tokens == fit.tokens if not fit.recomputes else found.tokens > fit.tokens


def test_a_run_that_is_short_of_memory_learns_the_same(tmp_path, monkeypatch, capsys):
    """But for rounding in bfloat16; `test_passes` compares in float64."""
    things = runs.material(tmp_path)

    def losses(name):
        run = load_run(runs.run_file(tmp_path, things, output=str(tmp_path / name)))
        learn(run)
        return {
            arm: found["loss"]["last"] for arm, found in read_json(tmp_path / name / "summary.json")["arms"].items()
        }

    ample = losses("ample")
    assert "memory is short" not in capsys.readouterr().out
    monkeypatch.setattr(machine, "free_bytes", lambda device: 1)
    short = losses("short")
    assert capsys.readouterr().out.count("memory is short") == len(ample)
    assert short == pytest.approx(ample, rel=0.02)


def test_the_limit_on_a_control_group_counts(tmp_path):
    assert machine._free_in_groups(tmp_path) == []
    for name, words in {
        "memory.max": "1000",
        "memory.current": "700",
        "memory.stat": "inactive_file 30\nactive_file 20\nanon 3",
    }.items():
        (tmp_path / name).write_text(words + "\n")
    assert machine._free_in_groups(tmp_path) == [350]
    (tmp_path / "memory.max").write_text("max\n")
    assert machine._free_in_groups(tmp_path) == []


def test_processes_that_share_a_model_compute_activations_again_all_or_none(tmp_path):
    """One that gathered a layer a second time would wait for the others for ever."""
    found = {}
    for name, free in {"short": (2**33, 2**16), "enough": (2**33, 2**33)}.items():
        (tmp_path / name).mkdir()
        several.called(fits.write_fit, tmp_path / name, free, folder=tmp_path, count=2)
        found[name] = [read_json(tmp_path / name / f"{n}.json") for n in range(2)]
    assert found["short"][0] == found["short"][1]
    assert found["short"][0][1] is True
    assert found["enough"] == [[CPU_TOKENS, False]] * 2
