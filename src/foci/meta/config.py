"""The file of a meta-training: pairs of a document and a later task, and how a weigher learns from them."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from foci.config.adapter import Adapter, Count, Section
from foci.config.run import ModelConfig, PathText, PathTexts, Text, load
from foci.config.values import Inner, Normalise, Output, Several, as_path, as_texts

PAPER = {"kind": "adam", "lr": 2e-4}
"""The inner step of arXiv 2407.16920, that of the loop where a file gives neither a rate nor a length."""


class PairsConfig(Section):
    """The pairs from which the weigher learns."""

    path: PathTexts = Field(description="pairs: .jsonl of text, prompt, answer")
    max_length: int = Field(
        default=256, ge=2, description="longest document, in tokens; the part with the answer is read"
    )
    limit: Count | None = Field(default=None, description="pairs at most, drawn by the seed; null = all")
    held_out: Count = Field(default=24, description="pairs that are kept for validation, drawn by the seed")
    held_out_kinds: Annotated[tuple[Text, ...], BeforeValidator(as_texts)] = Field(
        default=(), description="kinds of text (key `kind` of a pair) of which all held-out pairs are, and no other"
    )
    several: Several = Field(
        default="each",
        description="a document with several questions (amortised): learned once for each, or once by the influence on "
        "their mean loss, or by each token's largest target",
    )


class StepConfig(Section):
    """The learner's step on a document, whose effect on the task is what the weigher learns from."""

    kind: Inner = Field(
        default="sgd", description="sgd, or adam: Adam's first step (the loop's, at 2e-4, without lr and length)"
    )
    lr: float | None = Field(default=None, gt=0, description="rate of the step; exactly one of lr and length")
    length: float | None = Field(default=None, gt=0, description="L2 length of the step, in place of a rate")
    normalise: Normalise = Field(
        default="row",
        description="the loop's weights sum to 1 over a row or the batch; none: as they are, the mean over tokens",
    )
    batch_size: Count = Field(
        default=1,
        description="documents (amortised) whose influence is computed and stored together, at least; the model reads "
        "as many of them at a time as fit",
    )

    @model_validator(mode="after")
    def _one(self) -> "StepConfig":
        if self.kind != "sgd" and self.lr is None and self.length is None:
            raise ValueError(
                f"a step of kind {self.kind} needs a rate or a length; set lr or length, or leave out kind"
            )
        if self.lr is not None and self.length is not None:
            raise ValueError(f"a step has a rate or a length, got lr {self.lr} and length {self.length}; leave one out")
        return self


class WeigherConfig(Section):
    """The weigher: a LoRA adapter and a head over the model's body."""

    r: Count = Field(default=16, description="rank of the adapter")
    alpha: float = Field(default=32.0, gt=0, description="its update is scaled by alpha / r")
    output: Output = Field(
        default="sigmoid", description="sigmoid: weights between 0 and 1; softplus: of any size (the loop alone)"
    )
    half: bool = Field(default=False, description="save the adapter in float16: half the bytes")


class RetainConfig(Section):
    """Probes that the learner should still answer after its step."""

    path: PathText = Field(description="probes (.jsonl) that the learner knows")
    strength: float = Field(default=1.0, gt=0, description="how much their loss counts beside the task's")
    batch_size: Count = Field(default=4, description="probes beside each batch of tasks, another draw each time")


class LocalityConfig(Section):
    """Text on which the loop's step should leave the learner as it was."""

    strength: float = Field(
        default=0.0, ge=0, description="how much KL(before || after the step) counts beside the task's loss; 0 = off"
    )
    text: PathText = Field(default="general", description="text file; general = the page in foci")
    max_length: int = Field(default=128, ge=2, description="longest window of the text, in tokens")
    batch_size: Count = Field(
        default=2, description="windows beside each batch of tasks, another draw each time; as many are held out"
    )

    @model_validator(mode="after")
    def _on(self) -> "LocalityConfig":
        if self.strength == 0 and self != LocalityConfig.model_construct():
            given = self.model_dump(exclude_defaults=True)
            raise ValueError(
                f"locality is off at strength 0, got {given}; set strength too, or remove locality to switch it off"
            )
        return self


class MetaTrainConfig(Section):
    """The optimisation of the weigher (AdamW)."""

    epochs: Count = Field(default=4, description="passes over the pairs, at most")
    batch_size: Count = Field(default=16, description="pairs per update")
    learning_rate: float = Field(default=1e-3, gt=0, description="largest rate of the adapter; falls to 0 linearly")
    head_rate: float = Field(default=1e-2, gt=0, description="largest rate of the head")
    patience: Count = Field(default=2, description="epochs without a better validation loss after which it ends")


class MetaRun(Section):
    """One meta-training. `how` is "amortised" (the influence of each token is computed once and the weigher learns to
    predict it) or "loop" (the paper's: a step of the learner under the weigher's weights for every batch).
    """

    FILE = "meta-training file"
    SHORTEST = "pairs: {path: pairs.jsonl}"
    name: Text = Field(default="weigher", description="what the weigher is called")
    output: Annotated[Path, BeforeValidator(as_path)] = Field(
        default=Path("out/weigher"), description="folder of the meta-training"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of everything random")
    how: Literal["amortised", "loop"] = Field(default="amortised", description="amortised, or loop as in the paper")
    model: ModelConfig = Field(default_factory=ModelConfig, description="the learner, and the weigher's body")
    learner: Adapter | None = Field(default=None, description="what the learner's step moves; null = all weights")
    warm: bool = Field(default=False, description="a plain Adam step before the step (an adapter's A moves only then)")
    pairs: PairsConfig = Field(description="what the weigher learns from, at least {path: FILE}")
    step: StepConfig = Field(default_factory=StepConfig, description="the learner's step on a document")
    retain: RetainConfig | None = Field(default=None, description="what the step should not make it forget")
    locality: LocalityConfig = Field(
        default_factory=LocalityConfig, description="text on which the step should change nothing"
    )
    weigher: WeigherConfig = Field(default_factory=WeigherConfig, description="the weigher's adapter and its output")
    train: MetaTrainConfig = Field(default_factory=MetaTrainConfig, description="the optimisation of the weigher")

    @model_validator(mode="before")
    @classmethod
    def _loop_has_the_papers_step(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("how") != "loop":
            return data
        step = data.get("step") or {}
        if not isinstance(step, dict) or step.get("lr") is not None or step.get("length") is not None:
            return data
        if (kind := step.get("kind", PAPER["kind"])) != PAPER["kind"]:
            raise ValueError(
                f"the loop's step needs a rate where it is not the paper's, got step.kind {kind!r} without one; set "
                "step.lr, or leave out kind"
            )
        return {**data, "step": {**step, **PAPER}}

    @model_validator(mode="after")
    def _settings_are_read(self) -> "MetaRun":
        if self.model.bits is not None or self.model.on_disk:
            other = "on_disk: true" if self.model.on_disk else f"bits: {self.model.bits}"
            raise ValueError(
                f"meta-training moves all weights of a model, in memory and in float32, got model.{other}; leave it out"
            )
        if self.how == "loop" and self.step.length is not None:
            raise ValueError(f"the loop's step has a rate, got step.length {self.step.length}; set step.lr instead")
        if self.how == "amortised" and self.warm:
            raise ValueError(f"warm is a step of the loop, got how: {self.how}; leave warm out")
        if self.how == "amortised" and self.weigher.output != "sigmoid":
            raise ValueError(
                "amortised training predicts each token's influence as a share of its document's largest, 0 to 1, got "
                f"weigher.output {self.weigher.output}, whose scale it would not teach; set how: loop, or leave output "
                "out"
            )
        if self.step.batch_size > 1 and self.how == "loop":
            raise ValueError(
                f"step.batch_size is for how: amortised, got {self.step.batch_size} with how: loop, whose step is on "
                "train.batch_size documents; leave it out"
            )
        if self.how == "loop" and self.pairs.several != "each":
            raise ValueError(
                f"pairs.several joins the targets of how: amortised, got {self.pairs.several} with how: loop, which "
                "has no targets; leave several out"
            )
        if self.how == "amortised" and (self.locality.strength or self.step.normalise != "row"):
            raise ValueError(
                f"locality and step.normalise are the loop's, got how: {self.how} with locality.strength "
                f"{self.locality.strength} and step.normalise {self.step.normalise}; set how: loop, or leave them out"
            )
        return self


def load_meta(path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> MetaRun:
    """Reads a meta-training from YAML, with overrides such as `"train.epochs=2"`; errors as `foci.config.run.load`."""
    return load(path, overrides, MetaRun)
