"""What a file may not make foci do: fetch, import, or read elsewhere, because it names it."""

import json
import shutil
from pathlib import Path

import pytest

import tiny
from fake_run import write_run
from foci import models
from foci.methods.train_attention import weigher
from foci.models import locate
from foci.report.read import read_run

FETCHED = "foci fetches nothing because a file names it"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Anything that is fetched fails the test."""

    def fetched(name: str, **settings: object) -> str:
        assert settings.get("local_files_only"), f"{name} is fetched"
        raise OSError("not there")

    monkeypatch.setattr(locate, "snapshot_download", fetched)


def saved(folder: Path) -> Path:
    tiny.save_model(folder)
    return folder


def changed(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), **fields}))


def adapter(folder: Path, **fields: object) -> Path:
    base = saved(folder / "base")
    made = models.add_adapter(models.load(str(base)).model, models.Adapter(r=2))
    made.save_pretrained(folder / "adapter", save_embedding_layers=False)
    changed(folder / "adapter" / "adapter_config.json", base_model_name_or_path=str(base), **fields)
    return folder / "adapter"


def test_the_base_that_an_adapter_names_is_not_fetched(tmp_path):
    where = adapter(tmp_path)
    assert models.load(str(where))
    changed(where / "adapter_config.json", base_model_name_or_path="somebody/something")
    with pytest.raises(ValueError, match=f"needs its base model 'somebody/something'.*{FETCHED}.*hf download"):
        models.load(str(where))


def test_a_model_that_the_user_names_is_fetched():
    with pytest.raises(AssertionError, match="somebody/something is fetched"):
        models.load("somebody/something")


def test_the_base_that_a_weigher_names_is_not_fetched(tmp_path):
    made = weigher.new(str(saved(tmp_path / "base")), r=2, alpha=4)
    weigher.save(made.weigher, tmp_path / "weigher", base=str(tmp_path / "base"), made_by={})
    assert weigher.load(str(tmp_path / "weigher"))
    changed(tmp_path / "weigher" / weigher.SETTINGS, base="somebody/something")
    with pytest.raises(ValueError, match=f"the weigher .* needs its base model 'somebody/something'.*{FETCHED}"):
        weigher.load(str(tmp_path / "weigher"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "names a Python module to import"),
        (
            {
                "peft_type": "PROMPT_TUNING",
                "prompt_tuning_init": "TEXT",
                "tokenizer_name_or_path": "somebody/something",
            },
            "of the type PROMPT_TUNING, which cannot be merged",
        ),
    ],
)
def test_an_adapter_may_not_name_code_or_a_tokenizer(tmp_path, fields, words):
    with pytest.raises(ValueError, match=words):
        models.load(str(adapter(tmp_path, **fields)))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("value", ["somebody/kernel", {"": "somebody/kernel@v1:fast"}])
def test_a_configuration_may_not_name_a_kernel_to_fetch(tmp_path, key, value):
    where = saved(tmp_path / "tiny")
    changed(where / "config.json", **{key: "eager"})
    assert models.load(str(where))
    changed(where / "config.json", **{key: value})
    with pytest.raises(ValueError, match=f"config.json names code to fetch and run .{key}"):
        models.load(str(where))


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/hostname", "..", "a/b.safetensors", ""])
def test_an_index_names_files_beside_it_alone(tmp_path, name):
    where = saved(tmp_path / "tiny")
    shutil.copy(where / "model.safetensors", tmp_path / "other.safetensors")
    (where / "model.safetensors").unlink()
    changed(where / "model.safetensors.index.json", metadata={}, weight_map={"model.norm.weight": name})
    with pytest.raises(ValueError, match="which leads out of the model's folder"):
        models.load(str(where))


def test_a_report_follows_no_name_of_an_arm_out_of_the_run(tmp_path):
    run, other = write_run(tmp_path / "run", arms=("plain",)), write_run(tmp_path / "other", arms=("plain",))
    summary = json.loads((run / "summary.json").read_text())
    summary["arms"] = {f"../../{other.name}": summary["arms"]["plain"], **summary["arms"]}
    (run / "summary.json").write_text(json.dumps(summary))
    found = read_run(run)
    assert [arm.name for arm in found.arms] == ["plain"]
    assert any("is no name of an arm" in notice for notice in found.notices)
