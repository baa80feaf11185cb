"""The section `train` of a run file."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_serializer, model_validator

from foci.config.adapter import Count, Section
from foci.config.patience import LONGEST
from foci.config.trackers import Tracker, as_trackers
from foci.errors import shown


class TrainConfig(Section):
    """The optimisation. One update = `batch_size * accumulation` rows, of all processes together."""

    epochs: Count | None = Field(
        default=4, description="passes over the corpus; exactly one of epochs and steps; 50 where patience is set alone"
    )
    steps: Count | None = Field(default=None, description="updates; exactly one of epochs and steps")
    patience: Count | None = Field(
        default=None,
        description="stop after so many probings in a row without a better held-out score, keep the best; null = never",
    )
    least_steps: int = Field(
        default=60,
        ge=0,
        description="fewest updates of an arm, so that a small corpus is read often; 0 where epochs or steps is set",
    )
    batch_size: Count = Field(
        default=16,
        description="rows per batch; an update has batch_size * accumulation rows, of all processes together",
    )
    accumulation: Count = Field(default=1, description="batches of rows per update")
    batch_tokens: Count | None = Field(
        default=None,
        description="most tokens of a forward pass, with padding; null = what fits, at most 768 on a CPU",
    )
    packing: bool = Field(
        default=False,
        description="put rows behind one another in long rows: less padding; seldom faster on a CPU (docs/scale.md)",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="largest learning rate, after warm-up")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear",
        description="learning rate after warm-up: to 0 linearly, as a cosine, or constant (default with patience)",
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="share of the updates (0 to 1) in which the learning rate rises from 0"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled weight decay (AdamW)")
    max_grad_norm: float = Field(default=1.0, ge=0, description="gradients are clipped to this L2 norm; 0 = never")
    checkpoint_every: Count | None = Field(
        default=None, description="updates between checkpoints; null = a tenth of the run"
    )
    keep_checkpoints: Count = Field(default=2, description="newest checkpoints that are kept")
    group_by_length: bool = Field(default=True, description="batches of rows of like length: less padding")
    copies: Count = Field(default=1, description="how often each row is read per epoch; edits differ between copies")
    normalise: Literal["update", "row"] = Field(
        default="update",
        description="weights sum to one over the update (all tokens count alike) or over each row (all rows do)",
    )
    fsdp: bool = Field(default=False, description="share the model and its optimizer among processes (FSDP2)")
    report_to: Annotated[tuple[Tracker, ...], BeforeValidator(as_trackers)] = Field(
        default=(),
        description="experiment trackers to log to: trackio, tensorboard, wandb, mlflow, swanlab, or a list; [] = none",
    )

    @field_serializer("report_to")
    def _list_of_trackers(self, report_to: tuple[str, ...]) -> list[str]:
        return list(report_to)

    @model_validator(mode="before")
    @classmethod
    def _a_length_that_is_named_is_kept(cls, data: Any) -> Any:
        """A run whose file says how long it is has no other length."""
        if isinstance(data, dict) and (data.keys() & {"epochs", "steps"} or data.get("patience") is not None):
            return {"least_steps": 0, **data}
        return data

    @model_validator(mode="before")
    @classmethod
    def _patience_changes_defaults(cls, data: Any) -> Any:
        """A run that ends by itself is long, and its rate does not fall toward an end that it does not know."""
        if not isinstance(data, dict) or data.get("patience") is None:
            return data
        length = {} if "epochs" in data or data.get("steps") is not None else {"epochs": LONGEST}
        return {"schedule": "constant", **length, **data}

    @model_validator(mode="before")
    @classmethod
    def _steps_replace_default_epochs(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("steps") is not None and "epochs" not in data:
            return {**data, "epochs": None}
        return data

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"exactly one of epochs and steps says how long to train, got epochs = {shown(self.epochs)} "
                f"and steps = {shown(self.steps)}; set one and make the other null"
            )
        return self
