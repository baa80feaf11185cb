"""Writes the model at a share of its change, and reads it back to prove that it is that model."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from foci import models
from foci.models.adapters import peft_quiet
from foci.models.gguf import without_bars
from foci.slide.change import Slider
from foci.system.files import read_json, replacing_folder
from foci.system.run_folder import ArmFolder

SCALABLE = ("LORA",)
CLOSE = 1e-4
"""How far a weight of base plus scaled adapter may be from that of the model: they are computed in another order."""


def write_at(
    loaded: models.Loaded, slider: Slider, share: float, arm: ArmFolder, place: Path, how: str, *, trusted: bool = False
) -> dict[str, Any]:
    """Writes `place`/model, and `place`/adapter where scaling a LoRA makes the same model; returns both and a sentence.

    `trusted`: the model's own code may run. Raises ValueError where what is read back is not what was written.
    """
    slider.move(share)
    with without_bars(), replacing_folder(place / "model") as part:
        loaded.model.save_pretrained(part)
        loaded.tokenizer.save_pretrained(part)
        again = models.load(str(part), trust_remote_code=trusted)
        own, read = (dict(net.named_parameters()) for net in (loaded.model, again.model))
        wrong = [name for name in own if name not in read or not torch.equal(own[name].detach(), read[name].detach())]
        if wrong:
            raise ValueError(
                f"{place / 'model'} does not hold what was written: {wrong[0]} differs after reading it back; write it "
                "again to another disk"
            )
    reason = _why_no_adapter(arm, how)
    if reason is None:
        _write_adapter(arm, place, share)
        _check_adapter(slider, own, place)
    else:
        shutil.rmtree(place / "adapter", ignore_errors=True)  # of a model that was written here before
    adapter = None if reason else str(place / "adapter")
    said = "read back: the same bits" + ("; with adapter/, the same change as a LoRA" if adapter else f"; {reason}")
    return {"model": str(place / "model"), "adapter": adapter, "said": said}


def _why_no_adapter(arm: ArmFolder, how: str) -> str | None:
    """Returns why no scaled adapter makes the same model, in words; None where one does."""
    settings = read_json(arm.adapter / "adapter_config.json")
    if settings is None:
        return "no adapter, because all weights were trained"
    kind = "DoRA" if settings.get("use_dora") else str(settings.get("peft_type"))
    if arm.earlier.is_file():
        return "no adapter, because the run went on with one, and a share of its change alone is no scaled adapter"
    if how == "prune":
        return "no adapter, because a pruned change is no product of two small matrices"
    if kind not in SCALABLE:
        return f"no adapter, because scaling {kind} does not scale the change"
    return None


def _write_adapter(arm: ArmFolder, place: Path, share: float) -> None:
    """Writes the arm's LoRA with its alpha times `share`, which scales what it adds."""
    settings = read_json(arm.adapter / "adapter_config.json")
    settings["lora_alpha"] *= share
    settings["alpha_pattern"] = {name: share * alpha for name, alpha in (settings.get("alpha_pattern") or {}).items()}
    with replacing_folder(place / "adapter") as part:
        for file in arm.adapter.iterdir():
            if file.is_file() and file.name != "adapter_config.json":
                (part / file.name).write_bytes(file.read_bytes())
        (part / "adapter_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def _check_adapter(slider: Slider, own: dict[str, Any], place: Path) -> None:
    """Raises ValueError where base plus adapter is not the model."""
    wanted = {name: parameter.detach().clone() for name, parameter in own.items()}
    slider.move(0.0)
    with peft_quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT looks for the base model's config on the hub
        merged = PeftModel.from_pretrained(slider.model, str(place / "adapter")).merge_and_unload()  # type: ignore[arg-type]
    far = max(float((p.detach() - wanted[name]).abs().max()) for name, p in merged.named_parameters())
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            parameter.copy_(wanted[name])
    if far > CLOSE:
        raise ValueError(
            f"{place / 'adapter'} does not make the model beside it: a weight differs by {far:.1e}, expected at most "
            f"{CLOSE:g}; use {place / 'model'}"
        )
