"""The run file's `adapter`: what trains in place of the model's weights. Imports no torch."""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from foci.errors import shown, suggest

Targets = Literal["all-linear", "attention", "mlp"]
TARGETS: tuple[str, ...] = get_args(Targets)
"""Groups of linear layers that an adapter can sit in."""
Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
AdapterType = Literal["lora", "rslora", "dora", "osf"]
ADAPTERS: tuple[str, ...] = get_args(AdapterType)
"""Adapter types that foci sets up, by PEFT's names."""


class Section(BaseModel):
    """A section of the run file: frozen, without unknown keys, without conversion of types.

    `FILE` names the file that holds it, `SHORTEST` is the shortest such file, for errors.
    """

    FILE: ClassVar[str] = "run file"
    SHORTEST: ClassVar[str] = "corpus: {path: my_texts}"
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Adapter(Section):
    """An adapter of PEFT, which trains in place of the model's weights.

    `lora`, `rslora` and `dora` add a product of two matrices of rank `r` to each weight. The product is scaled by
    alpha / r; `rslora` scales by alpha / sqrt(r) (arXiv 2312.03732), `dora` also learns the norm of each row of the
    weight (2402.09353). `dropout` is the share of the adapter's inputs that is dropped in training. `osf` (2504.07097)
    reads none of these: it freezes the larger half of each weight's singular directions and trains the rest.
    `targets` says where any of them sits: in all linear layers of the transformer layers, in those of the attention, in
    those of the MLPs, or in layers by name (`[q_proj, v_proj]`, or `[layers.0.mlp.up_proj]`); never in the LM head.

    Raises ValueError for a type that foci does not set up, a value out of range, and a setting that the type ignores.
    """

    type: AdapterType = Field(
        default="lora",
        description="lora; rslora (scaled by alpha / sqrt(r)); dora (learns norms too); osf (smaller half of the SVD)",
    )
    r: Count = Field(default=16, description="rank of the adapter (not of osf)")
    alpha: float = Field(
        default=32.0, gt=0, description="LoRA's alpha; the adapter's output is scaled by alpha / r (not of osf)"
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of the adapter's inputs dropped in training (not of osf)"
    )

    targets: Targets | Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        default="all-linear", description="where it sits: all-linear, attention, mlp, or a list of layers' names"
    )

    @field_validator("targets", mode="before")
    @classmethod
    def _known_targets(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and value and all(isinstance(name, str) and name for name in value):
            return tuple(value)
        if value in TARGETS:
            return value
        nearest = suggest(value, TARGETS) if isinstance(value, str) else None
        raise ValueError(
            f"targets are {', '.join(TARGETS)} or a list of linear layers' names, got {shown(value)}; "
            + (f"did you mean {nearest!r}?" if nearest else "write layers as a list, such as [q_proj, v_proj]")
        )

    @field_validator("type", mode="before")
    @classmethod
    def _known_type(cls, value: Any) -> Any:
        if value in ADAPTERS:
            return value
        if value == "corda":
            raise ValueError(
                "foci does not set up 'corda': it needs a pass over text before training and moves part of each base "
                "weight into the adapter, so that the saved adapter does not fit the untouched base; use "
                f"{', '.join(ADAPTERS)}, or wrap the model yourself (peft.tuners.lora.corda.preprocess_corda) and give "
                "it to FocusTrainer"
            )
        nearest = suggest(value, ADAPTERS) if isinstance(value, str) else None
        raise ValueError(
            f"the adapter type should be one of {', '.join(ADAPTERS)}, got {shown(value)}; "
            + (f"did you mean {nearest!r}? " if nearest else "")
            + "For another adapter of PEFT, wrap the model with peft.get_peft_model and give it to FocusTrainer"
        )

    @model_validator(mode="after")
    def _osf_has_no_settings(self) -> "Adapter":
        if self.type != "osf":
            return self
        own = ("type", "targets")
        defaults = {name: info.default for name, info in type(self).model_fields.items() if name not in own}
        ignored = {name: getattr(self, name) for name in defaults if getattr(self, name) != defaults[name]}
        if ignored:
            values = ", ".join(f"{name} {value}" for name, value in ignored.items())
            raise ValueError(
                f"osf reads no settings (it trains half of the singular directions), got {values}; "
                f"leave out {' and '.join(ignored)}"
            )
        return self
