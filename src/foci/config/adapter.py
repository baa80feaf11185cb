"""The run file's `adapter`, and which of its settings each type of adapter reads. Imports no torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A mapping of the run file: frozen, nothing unknown, no conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


LORA_SETTINGS: dict[str, int | float] = {"r": 16, "alpha": 32.0, "dropout": 0.0}
K_ADAPTER_SETTINGS: dict[str, int | float] = {
    "layers": 3, "depth": 2, "width": 768, "heads": 12, "scale": 0.1, "gain": 0.0, "dropout": 0.0,
}  # fmt: skip
READ_SETTINGS: dict[str, tuple[str, ...]] = {
    "lora": tuple(LORA_SETTINGS),
    "rslora": tuple(LORA_SETTINGS),
    "dora": tuple(LORA_SETTINGS),
    "osf": (),
    "k_adapter": tuple(K_ADAPTER_SETTINGS),
}
"""Adapter types that foci sets up, and the settings that each reads."""
DEFAULTS = LORA_SETTINGS | K_ADAPTER_SETTINGS
"""Every setting's default, over all types."""


def check_settings(kind: str, given: Mapping[str, int | float]) -> None:
    """Raises ValueError for a setting that this type of adapter would not read, and for sizes that do not fit."""
    reads = READ_SETTINGS[kind]
    unread = {name: value for name, value in given.items() if name not in reads and value != DEFAULTS[name]}
    if unread:
        values = ", ".join(f"{name} {value}" for name, value in unread.items())
        why = " (half of the singular directions train)" if kind == "osf" else ""
        raise ValueError(
            f"{kind} reads {', '.join(reads) or 'no settings'}{why}, got {values}; leave out {' and '.join(unread)}"
        )
    if kind == "k_adapter" and given["width"] % given["heads"]:
        raise ValueError(
            f"k_adapter's heads share its width evenly, got width {given['width']} and {given['heads']} heads; "
            "set heads to a divisor of width"
        )


class AdapterConfig(Section):
    """What trains in place of all weights; `adapter: null` trains all weights instead."""

    type: Literal["lora", "rslora", "dora", "osf", "k_adapter"] = Field(
        default="lora",
        description="lora; rslora (scaled by alpha / sqrt(r)); dora (learns norms too); osf (smaller half of the SVD); "
        "k_adapter (transformer layers beside the model)",
    )
    r: Count = Field(default=16, description="rank of the adapter (lora, rslora, dora)")
    alpha: float = Field(
        default=32.0, gt=0, description="LoRA's alpha; the adapter's output is scaled by alpha / r (lora, rslora, dora)"
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share dropped in training: of the adapter's inputs, in k_adapter of its attention and outputs "
        "(not of osf)",
    )
    layers: Count = Field(
        default=3, description="k_adapter: adapter layers, fed by as many of the model's, evenly spaced"
    )
    depth: Count = Field(default=2, description="k_adapter: transformer layers in each adapter layer")
    width: Count = Field(default=768, description="k_adapter: what an adapter layer projects down to")
    heads: Count = Field(default=12, description="k_adapter: attention heads, a divisor of width")
    scale: float = Field(default=0.1, gt=0, description="k_adapter: what its normalised output is multiplied by")
    gain: float = Field(
        default=0.0,
        ge=0,
        description="k_adapter: its last LayerNorm's gain at the start; 0 = the model answers as before, 1 = published",
    )

    @field_validator("type", mode="before")
    @classmethod
    def _no_corda(cls, value: Any) -> Any:
        if value == "corda":
            raise ValueError(
                "corda needs a pass over text before training and moves base weights into the adapter, so that the "
                "saved adapter does not fit the untouched model; use lora, rslora, dora or osf"
            )
        return value

    @model_validator(mode="after")
    def _settings_are_read(self) -> "AdapterConfig":
        check_settings(self.type, self.model_dump(exclude={"type"}))
        return self
