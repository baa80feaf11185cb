"""An adapter's card names the base model as others know it, not by a path of this machine."""

import json

import pytest

import tiny
from foci import models
from foci.learn.save import _write_adapter


def written(folder, base, loaded_from) -> str:
    """The card of an adapter over a model that was loaded from a folder."""
    below = tiny.build("llama")
    below.name_or_path = below.config.name_or_path = loaded_from  # as from_pretrained sets both
    _write_adapter(models.add_adapter(below, models.Adapter(r=2)), folder, base)
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("base", "public"), [("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("org/model", "org/model")]
)
def test_an_adapters_card_has_no_path_of_this_machine(tmp_path, base, public):
    card = written(tmp_path / "adapter", base, "/someone/.cache/foci/models/abc")
    assert f"base_model: {public}\n" in card
    assert f"- base_model:adapter:{public}\n" in card
    assert "/someone" not in card
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == base


def test_a_folder_is_named_by_its_last_part(tmp_path):
    (tmp_path / "mine").mkdir()
    card = written(tmp_path / "adapter", str(tmp_path / "mine"), str(tmp_path / "mine"))
    assert "base_model: mine\n" in card
    assert str(tmp_path) not in card
