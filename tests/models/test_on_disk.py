"""Weights in files that are mapped into memory: the model of weights in memory, to the bit, with little of it there."""

import errno
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

import runs
import tiny
from foci import models
from foci.config.run import load_run, of_settings
from foci.learn import save
from foci.learn.memory import memory_of
from foci.learn.run import learn
from foci.meta.config import MetaRun
from foci.models import on_disk
from foci.models.lean import Lean
from foci.models.on_disk import float32_files, is_on_disk, mapped
from foci.models.saved_adapter import merged
from foci.system.checkpoint import DiskFull
from foci.system.files import LOCK
from foci.system.scratch import temporary_folder_of

IDS = torch.tensor([[1, 7, 9, 30, 31, 8, 12, 5, 2, 40], [1, 60, 61, 62, 9, 8, 7, 6, 5, 4]])
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads what is mapped from /proc")


def saved(folder: Path, name: str = "llama-tied", dtype: torch.dtype = torch.bfloat16, **given) -> Path:
    """A tiny model whose files have a number format."""
    tiny.save_model(folder, name)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, **given)
    return folder


def load(folder: Path, *, on_disk: bool = True) -> models.Loaded:
    return models.load(str(folder), device="cpu", on_disk=on_disk)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def place(tensor: torch.Tensor) -> str:
    """The line of this process' memory map in which a tensor lies."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(edge, 16) for edge in line.split()[0].split("-"))
        if begin <= tensor.data_ptr() < end:
            return line
    raise AssertionError("the tensor lies nowhere")


def lies_in_file(tensor: torch.Tensor) -> bool:
    """Whether it lies in a file of the folder for temporary files that has no name any more, and is written to it."""
    _, rights, _, _, _, *path = place(tensor).split(maxsplit=5)
    return rights[3] == "s" and bool(path) and path[0].startswith(tempfile.gettempdir()) and "(deleted)" in path[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama-tied", "llama", "gpt2", "gemma2", "gemma3", "qwen2", "phi3"])
def test_it_is_the_model_in_memory(name, dtype, tmp_path):
    folder = saved(tmp_path / name, name, dtype)
    found, expected = load(folder), load(folder, on_disk=False)
    assert found.fingerprint == expected.fingerprint
    for (key, own), (_, other) in zip(
        [*found.model.named_parameters(), *found.model.named_buffers()],
        [*expected.model.named_parameters(), *expected.model.named_buffers()],
        strict=True,
    ):
        assert own.dtype == other.dtype, key
        assert torch.equal(own, other), key
    assert torch.equal(logits(found.model), logits(expected.model))
    assert found.model.config.to_dict() == expected.model.config.to_dict()
    assert found.model.name_or_path == str(folder)
    assert (is_on_disk(found.model), is_on_disk(expected.model)) == (True, False)


@LINUX
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_and_copies_lie_in_files_without_a_name_and_the_adapter_does_not(tmp_path, monkeypatch, dtype):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    folder = saved(tmp_path / "model", dtype=dtype)
    model = models.add_adapter(load(folder).model, models.Adapter(r=4))
    lean = Lean.of(model, torch.bfloat16)
    assert lean is not None
    for name, parameter in model.named_parameters():
        assert lies_in_file(parameter) == (not parameter.requires_grad), name
    assert len(lean.parameters) == 14
    assert all(lies_in_file(half) for *_, half in lean.parameters)
    assert not [*temporary.iterdir()]
    in_memory = models.add_adapter(load(folder, on_disk=False).model, models.Adapter(r=4))
    assert not any(lies_in_file(p) for p in in_memory.parameters())


@LINUX
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_merging_writes_into_the_files(tmp_path, kind):
    """PEFT gives a weight that DoRA changes new numbers in memory."""
    folder = saved(tmp_path / "model")
    found, expected = (merged(adapted(load(folder, on_disk=here).model, kind), "it") for here in (True, False))
    assert all(lies_in_file(p) for p in found.parameters())
    assert torch.equal(logits(found), logits(expected))
    assert not torch.equal(logits(found), logits(load(folder).model))  # the files of the model did not change


def adapted(model, kind="lora"):
    """The model with an adapter that changes something."""
    torch.manual_seed(3)
    model = models.add_adapter(model, models.Adapter(type=kind, r=4))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


MEASURED = """
import sys
import torch
import foci
from foci import models
from foci.focus import Batch
from foci.models.lean import Lean
from foci.models.soft_targets import summed_loss
from foci.system.machine import release_memory

def anonymous():
    release_memory()
    lines = dict(line.split(":", 1) for line in open("/proc/self/status") if line.startswith("Rss"))
    return int(lines["RssAnon"].split()[0]) / 1024

torch.set_num_threads(1)
begin = anonymous()
model = models.add_adapter(models.load(sys.argv[1], device="cpu", on_disk=sys.argv[2] == "True").model,
                           models.Adapter(r=4))
lean = Lean.of(model, torch.bfloat16)
ids = torch.arange(2, 34)[None]
batch = Batch(ids, torch.ones_like(ids), ids.clone())
with lean.on(), torch.autocast("cpu", torch.bfloat16):
    summed_loss(model, batch, batch.predicted().float(), [], [])[0].backward()
print(anonymous() - begin)
"""


@LINUX
def test_weights_take_no_memory_of_their_own(tmp_path):
    """288 MiB of weights in float32, and all again in bfloat16; in memory both are this process' own."""
    folder = tiny.save_model(tmp_path / "model")
    wide = tiny.configuration("llama-tied", vocab=tiny.VOCAB, layers=8, width=1024)
    wide.initializer_range = 0.02
    AutoModelForCausalLM.from_config(wide, dtype=torch.bfloat16).save_pretrained(folder)
    weights = 8 * (3 * 1024 * 2048 + (2 + 1) * 1024 * 1024) * 4 / 2**20

    def taken(here: bool) -> float:
        words = [sys.executable, "-W", "ignore", "-c", MEASURED, str(folder), str(here)]
        return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])

    files, memory = taken(True), taken(False)
    assert memory - files == pytest.approx(1.5 * weights, rel=0.05)
    assert files < 0.25 * weights


def test_several_files_and_an_adapter_as_the_model(tmp_path):
    folder = saved(tmp_path / "model", "gpt2", max_shard_size="20KB")
    assert len([*folder.glob("model-*.safetensors")]) > 2
    assert load(folder).fingerprint == load(folder, on_disk=False).fingerprint
    model = adapted(load(folder).model)
    model.peft_config["default"].base_model_name_or_path = str(folder)
    model.save_pretrained(tmp_path / "adapter")
    upon = [load(tmp_path / "adapter", on_disk=here) for here in (True, False)]
    assert upon[0].fingerprint == upon[1].fingerprint
    assert is_on_disk(upon[0].model)


def test_weights_in_float32_are_not_copied_before_they_are_loaded(tmp_path):
    folder = saved(tmp_path / "float32", dtype=torch.float32)
    with float32_files(folder) as found:
        assert found == folder
    other = saved(tmp_path / "bfloat16")
    with float32_files(other) as found:
        assert found != other
    assert not found.exists()


def test_a_tensor_without_numbers_and_a_single_number():
    assert torch.equal(mapped(torch.empty(0, 3)), torch.empty(0, 3))
    assert torch.equal(mapped(torch.tensor(3.5), torch.bfloat16), torch.tensor(3.5, dtype=torch.bfloat16))
    assert torch.equal(mapped(torch.arange(6).view(2, 3).t()), torch.arange(6).view(2, 3).t())


def test_a_full_temporary_folder_is_named(tmp_path, monkeypatch):
    class Full:
        name = "full"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    folder = saved(tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr(on_disk.tempfile, "NamedTemporaryFile", lambda **_: Full())
        with pytest.raises(DiskFull, match=r"the temporary folder .*TMPDIR=FOLDER"):
            load(folder)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(on_disk, "save_file", full)  # while weights are copied in float32
    with pytest.raises(DiskFull, match=r"the temporary folder .*TMPDIR=FOLDER"):
        load(folder)


def test_what_a_killed_load_left_is_deleted_and_what_another_one_uses_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, foreign = tmp_path / "foci-float32-left", tmp_path / "foci-float32-foreign"
    for each in (left, foreign):
        each.mkdir()
    (left / LOCK).touch()  # of a process that is gone; the other one has no lock yet
    with temporary_folder_of("foci-float32-") as used, temporary_folder_of("foci-float32-") as other:
        assert used.is_dir()
        assert other.is_dir()
        assert not left.exists()
    assert [*tmp_path.iterdir()] == [foreign]


def test_a_file_larger_than_memory_is_copied_weight_by_weight(tmp_path, monkeypatch):
    """No file that is larger than the memory can be mapped for writing."""
    folder = saved(tmp_path / "float32", dtype=torch.float32)
    expected = load(folder, on_disk=False).fingerprint
    size = (folder / "model.safetensors").stat().st_size
    memory = on_disk.psutil.virtual_memory()._replace(total=size - 1)
    monkeypatch.setattr(on_disk.psutil, "virtual_memory", lambda: memory)
    with float32_files(folder) as found:
        assert found != folder
        assert found.name == folder.name  # by which the code that comes with a model is known
        assert max(path.stat().st_size for path in found.glob("*.safetensors")) < size
    assert load(folder).fingerprint == expected


def test_stacked_experts_are_refused_by_name(tmp_path):
    folder = tiny.save_model(tmp_path / "experts")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MixtralConfig(vocab_size=tiny.VOCAB, num_key_value_heads=2, num_local_experts=4, **shape)
    MixtralForCausalLM(config).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"keeps its experts in stacks \(.*model\.on_disk: true would save none"):
        load(folder)


# ------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(run, summary) of a run on disk, and of one in memory, of a model in bfloat16."""
    found = []
    for here in (True, False):
        folder = tmp_path_factory.mktemp(f"here-{here}")
        things = runs.material(folder)
        saved(things.model)
        arms = {"plain": [], "held": ["oracle", "lwf", {"replay": {"path": "encyclopedia", "anchor": "kl"}}]}
        settings = {"on_disk": here, "dtype": "bfloat16"}
        run = load_run(runs.run_file(folder, things, model=settings, arms=arms, adapter={"dropout": 0.0}))
        found.append((run, learn(run)))
    return found


TIMED = re.compile(r"seconds|peak|memory|notes")


def without_times(value):
    """A value of the summary without what differs from run to run: times, memory, and words that name folders."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if not TIMED.search(key)}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def test_a_run_is_that_of_weights_in_memory(both):
    (run, found), (_, expected) = both
    for name, arm in expected["arms"].items():
        assert without_times(found["arms"][name]) == without_times(arm), name
        assert arm["loss"]["last"] < arm["loss"]["first"]
        assert (run.output / "arms" / name / "model" / "model.safetensors").is_file()


def test_a_stopped_run_goes_on_to_the_same_weights(both):
    run, summary = both[0]
    held = run.output / "arms" / "held"
    (held / "arm.json").unlink()
    shutil.rmtree(max((held / "checkpoints").iterdir(), key=lambda path: int(path.name.removeprefix("step-"))))
    assert learn(run, resume=True)["arms"]["held"]["weights_sha256"] == summary["arms"]["held"]["weights_sha256"]


def test_another_run_goes_on_from_it(both, tmp_path):
    found, page = [], tmp_path / "page.txt"
    page.write_text("Kim Vale was born in Turin and works as a tailor.\n")
    for here, (before, _) in zip((True, False), both, strict=True):
        settings = before.model_dump(mode="json") | {"output": str(tmp_path / str(here)), "arms": {"plain": []}}
        settings["corpus"] |= {"path": str(page)}
        later = of_settings(settings | {"continues": {"run": str(before.output), "arm": "plain"}})
        assert later.model.on_disk == here
        found.append(learn(later)["arms"]["plain"]["weights_sha256"])
    assert found[0] == found[1]


def test_the_model_is_saved_in_files_that_fit_into_memory(both, tmp_path, monkeypatch):
    """A file is in memory as a whole when it is written."""
    assert save.SHARD == "500MB"
    monkeypatch.setattr(save, "SHARD", "20KB")
    run, _ = both[0]
    again = of_settings(run.model_dump(mode="json") | {"output": str(tmp_path / "again"), "arms": {"plain": []}})
    learn(again)
    found, expected = again.output / "model", run.output / "arms" / "plain" / "model"
    assert len([*found.glob("model-*.safetensors")]) > 2
    assert load(found, on_disk=False).fingerprint == load(expected, on_disk=False).fingerprint


def test_check_says_what_lies_in_files(both, capsys):
    said = runs.told(["check", both[0][0].output.parent / "small.yaml"], capsys)
    assert re.search(r"MiB of this are mapped files, which the system can drop", " ".join(said.split()))
    model = models.add_adapter(load(Path(both[0][0].model.name)).model, models.Adapter(r=4))
    told, frozen = memory_of(model, torch.bfloat16), [p for p in model.parameters() if not p.requires_grad]
    assert told.files == 4 * sum(p.numel() for p in frozen) + told.copies
    assert told.copies > 0
    assert memory_of(tiny.lora(tiny.build("llama")), torch.bfloat16).files == 0


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"adapter": None}, "an adapter of the types lora, rslora, dora must train, got adapter: null"),
        ({"adapter": {"type": "osf"}}, "got adapter: osf"),
        ({"train": {"fsdp": True}}, "does not go with train.fsdp: true"),
        ({"model": {"on_disk": True, "bits": 4}}, "does not go with model.bits: 4"),
    ],
)
def test_what_does_not_go_with_weights_on_disk_is_refused(settings, words):
    with pytest.raises(ValueError, match=r"model\.on_disk: true") as error:
        of_settings({"corpus": {"path": "a.txt"}, "model": {"on_disk": True}, **settings})
    assert words in str(error.value)


@pytest.mark.parametrize("given", [{"device": "cuda"}, {"device": "cpu", "bits": 8}])
def test_a_gpu_and_few_bits_are_refused(tmp_path, given):
    with pytest.raises(ValueError, match=r"model\.on_disk: true keeps weights in float32 for a CPU"):
        models.load(str(tiny.save_model(tmp_path / "model")), on_disk=True, **given)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no folder in memory")
def test_a_temporary_folder_in_memory_is_refused_by_name(tmp_path, monkeypatch):
    """On some systems /tmp is one."""
    folder = saved(tmp_path / "model")
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")
    with pytest.raises(ValueError, match=r"/dev/shm lies in memory \(tmpfs\).*TMPDIR=FOLDER"):
        load(folder)


def test_meta_training_refuses_weights_on_disk():
    with pytest.raises(ValueError, match=r"meta-training moves all weights.*got model\.on_disk: true"):
        MetaRun.model_validate({"pairs": {"path": "pairs.jsonl"}, "model": {"on_disk": True}})
