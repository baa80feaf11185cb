"""The file of a pretraining: text, a model to begin from scratch, and arms that differ only in their methods."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from foci.config.adapter import Count, Section
from foci.config.run import ArmName, CorpusConfig, Methods, Text, load
from foci.config.train import TrainConfig
from foci.config.values import as_path
from foci.learn.cells import Seeds, all_different, as_tuple

Objective = Literal["causal", "masked"]
"""Every token from those before it, or some tokens that are hidden from all others."""

TYPES: dict[str, Objective] = {
    "llama": "causal", "gpt2": "causal", "bert": "masked", "roberta": "masked", "modernbert": "masked",
}  # fmt: skip
"""Model types that can begin from scratch, and what each is trained for."""


class ScratchConfig(Section):
    """The size of a model with random weights."""

    type: Literal["llama", "gpt2", "bert", "roberta", "modernbert"] = Field(description="the architecture")
    layers: Count = Field(default=4, description="transformer layers")
    width: Count = Field(default=256, description="width of the hidden states")
    heads: Count = Field(default=8, description="attention heads, a divisor of width")
    mlp: Count | None = Field(default=None, description="inner width of the MLPs; null = 4 * width")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share dropped of attention and, but for llama, of hidden states"
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "ScratchConfig":
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"heads share the width in even parts, got width {self.width} and {self.heads} heads; choose heads "
                "so that width / heads is an even number"
            )
        return self


class TokenizerConfig(Section):
    """A byte-level BPE tokenizer, trained on the text that is learned."""

    vocab: int = Field(default=4096, ge=300, description="tokens it knows at most, bytes and special ones included")


class HeldOutConfig(Section):
    """The text on which the loss is validated."""

    share: float = Field(default=0.1, gt=0, lt=1, description="share of the text kept for validation, from its end")
    rows: Count | None = Field(default=256, description="rows that are read each time, the first ones; null = all")
    every: Count = Field(default=50, description="updates between validations")


class GridConfig(Section):
    """Other rates and warm-ups: the whole comparison is made once at every pair of them."""

    learning_rate: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(as_tuple), AfterValidator(all_different)
    ] = Field(min_length=1, description="values of that setting")
    warmup: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], ...], BeforeValidator(as_tuple), AfterValidator(all_different)
    ] = Field(min_length=1, description="values of that setting")


class Pretraining(Section):
    """One pretraining: a model from scratch, trained once per arm and seed."""

    FILE = "pretraining file"
    SHORTEST = "{objective: causal, model: {type: llama}, corpus: {path: my_texts}}"
    name: Text = Field(default="pretraining", description="what tables call it")
    output: Annotated[Path, BeforeValidator(as_path)] = Field(
        default=Path("out"), description="its folder, relative to the current directory; default: out/<name>"
    )
    objective: Objective = Field(description="causal (the next token) or masked (hidden tokens)")
    init: Literal["scratch"] = Field(default="scratch", description="where weights come from: scratch = random")
    model: ScratchConfig = Field(description="the model, at least {type: ...}")
    corpus: CorpusConfig = Field(description="the text to learn, at least {path: FILE_OR_FOLDER}")
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig, description="the tokenizer that is trained")
    masks: float = Field(default=0.15, gt=0, lt=1, description="masked: share of tokens that are predicted")
    held_out: HeldOutConfig = Field(default_factory=HeldOutConfig, description="the text for validation")
    train: TrainConfig = Field(default_factory=TrainConfig, description="the optimisation")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="number format of the forward pass; auto = bfloat16 where the machine has it"
    )
    seeds: Seeds = Field(default=(0, 1, 2), description="seeds; every arm is trained once with each")
    grid: GridConfig | None = Field(
        default=None, description="learning rates and warm-ups to compare all arms at; null = those of train alone"
    )
    keep_models: bool = Field(default=False, description="keep every model when its training is finished")
    arms: dict[ArmName, Methods] = Field(
        default={"plain": ()}, min_length=1, description="methods by arm; [] = plain pretraining"
    )
    sizes: dict[ArmName, dict[str, Any]] = Field(
        default={}, description="changes of model by arm, such as {small: {layers: 2, width: 64}}"
    )

    @model_validator(mode="before")
    @classmethod
    def _output(cls, data: Any) -> Any:
        if isinstance(data, dict) and "output" not in data and isinstance(data.get("name"), str):
            folder = re.sub(r"[^A-Za-z0-9._-]+", "-", data["name"]).strip("-.")
            data = {**data, "output": Path("out") / (folder or "pretraining")}
        return data

    @model_validator(mode="after")
    def _type_fits(self) -> "Pretraining":
        if TYPES[self.model.type] != self.objective:
            known = ", ".join(name for name, objective in TYPES.items() if objective == self.objective)
            raise ValueError(
                f"a {self.model.type} is trained by the {TYPES[self.model.type]} objective, got {self.objective}; "
                f"set objective: {TYPES[self.model.type]}, or model.type to one of {known}"
            )
        return self

    @model_validator(mode="after")
    def _has_no_key_of_other_runs(self) -> "Pretraining":
        if self.train.patience is not None or self.corpus.held_out_share:
            raise ValueError(
                f"a pretraining has a length and its own held_out, got train.patience {self.train.patience} and "
                f"corpus.held_out_share {self.corpus.held_out_share:g}; leave both out"
            )
        if self.train.packing:
            raise ValueError(
                f"a pretraining reads rows side by side, got train.packing {self.train.packing}; leave it out"
            )
        if self.train.fsdp:
            raise ValueError(f"a pretraining runs in one process, got train.fsdp {self.train.fsdp}; leave it out")
        return self

    @model_validator(mode="after")
    def _rows_have_room(self) -> "Pretraining":
        if self.objective == "masked" and self.corpus.max_length < 3:  # the tokens that begin and end a row
            raise ValueError(
                f"a masked row holds its text between two tokens, got corpus.max_length {self.corpus.max_length}; give "
                "at least 3"
            )
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Pretraining":
        if unknown := sorted(set(self.sizes) - set(self.arms)):
            raise ValueError(
                f"sizes are of arms ({', '.join(self.arms)}), got {', '.join(unknown)}; name an arm, or leave it out"
            )
        for arm in self.sizes:
            if self.model_of(arm).type != self.model.type:
                raise ValueError(
                    f"one pretraining has one type, {self.model.type}, got sizes.{arm}.type {self.model_of(arm).type}; "
                    "leave it out, and pretrain the other type by another file"
                )
        return self

    def model_of(self, arm: str) -> ScratchConfig:
        """Returns `model` with the arm's changes. Raises ValueError for changes that a model does not have."""
        try:
            return ScratchConfig(**{**self.model.model_dump(), **self.sizes.get(arm, {})})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(["sizes", arm, *map(str, first["loc"])])
            got = f", got {first['input']!r}" if first["loc"] else ""
            raise ValueError(f"{key}: {first['msg'].removeprefix('Value error, ')}{got}") from None

    @property
    def baseline(self) -> str | None:
        """The arm that others are compared with: `plain`, else the first without methods, if there is one."""
        without = [arm for arm, methods in self.arms.items() if not methods]
        return "plain" if "plain" in without else next(iter(without), None)


def load_pretraining(path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> Pretraining:
    """Reads a pretraining from YAML, with overrides such as `"seeds=[0]"`; errors as in `foci.config.run.load`."""
    return load(path, overrides, Pretraining)
