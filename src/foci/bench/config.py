"""The suite file: a run file, and how its arms are compared.

    seeds: [0, 1, 2]                     # every arm is trained once with each
    match: steps                         # what all arms have in common: steps or tokens
    overrides: {replay: {learning_rate: 3e-4}}   # settings of `train` that an arm has for itself,
                                         # and `adapter`: {osf: {adapter: {type: osf}}, full: {adapter: null}}
    slide: {how: scale, points: [0.25, 0.5, 1]}  # ask the questions along every cell's change; off by default
    probes: {held_out: FILE, every: 8, ...}      # the reported point is chosen on these, among the probed steps

All other keys are those of a run file, but for `seed`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from foci.config.adapter import Adapter
from foci.config.run import ArmName, Run, fields, load
from foci.config.train import TrainConfig
from foci.config.values import unknown_key
from foci.errors import hint, shown
from foci.learn.cells import Seeds
from foci.slide.settings import SlideConfig

PLAIN = "plain"
"""The arm that others are compared with, where there is one of this name."""

Match = Literal["steps", "tokens"]
MATCHED = {
    "steps": "the same number of updates (an arm that rehearses reads old rows in place of new ones)",
    "tokens": "the same number of tokens read, to the nearest update (old rows count like new ones)",
}
"""The budget that all arms have in common, in words."""


class Suite(Run):
    """A run whose arms are trained once per seed and compared."""

    FILE = "suite file"
    seed: int = Field(default=0, exclude=True, description="not used: a suite has seeds")
    seeds: Seeds = Field(default=(0, 1, 2), description="seeds; every arm is trained once with each")
    match: Match = Field(default="steps", description="what all arms have in common: steps or tokens")
    overrides: dict[ArmName, dict[str, Any]] = Field(
        default={}, description="settings of train, and an adapter, that an arm has for itself, by arm"
    )
    keep_models: bool = Field(default=False, description="keep every cell's model and checkpoints when it is finished")
    slide: SlideConfig | None = Field(
        default=None, description="ask the questions along every cell's change, a probing a point; null = not"
    )

    @field_validator("seed")
    @classmethod
    def _no_seed(cls, seed: int) -> int:
        raise ValueError(f"a suite takes several seeds; write seeds: [{seed}]")

    @field_validator("continues")
    @classmethod
    def _begins_untouched(cls, continues: Any) -> Any:
        if continues is not None:
            raise ValueError(
                f"a suite compares arms from the untouched model, got the run {continues.run}; leave continues out, or "
                "name the trained model as the model: {name: RUN/model}"
            )
        return continues

    @field_validator("overrides")
    @classmethod
    def _known(cls, overrides: dict[str, dict[str, Any]], info: Any) -> dict[str, dict[str, Any]]:
        if {"arms", "train", "adapter"} <= info.data.keys():
            for arm, changes in overrides.items():
                if arm not in info.data["arms"]:
                    raise ValueError(f"there is no arm {arm!r}; {hint(arm, info.data['arms'])}")
                changed(info.data["train"], changes)
                own_adapter(info.data["adapter"], changes)
        return overrides

    @field_validator("slide")
    @classmethod
    def _has_questions(cls, slide: SlideConfig | None, info: Any) -> SlideConfig | None:
        probes = info.data.get("probes")
        if slide is None or probes is None:
            return slide
        given = {name: getattr(probes, name) for name in ("learn", "retain", "text")}
        if given["learn"] is None or given["retain"] is given["text"] is None:
            raise ValueError(
                "slide compares what arms learn with what they keep, so it needs probes.learn, and probes.retain or "
                f"probes.text, got {shown(given)}; give them, or leave out slide"
            )
        return slide

    @model_validator(mode="after")
    def _arms_are_of_one_length(self) -> "Suite":
        for arm in self.arms:
            if (patience := self.of_arm(arm).train.patience) is not None:
                raise ValueError(
                    f"a suite compares arms after the same number of {self.match}, got train.patience {patience} (arm "
                    f"{arm}), which ends each where it no longer improves; leave it out: with held-out probes and "
                    "probes.every each arm is also reported at its best point"
                )
        return self

    @model_validator(mode="after")
    def _arms_can_be_trained(self) -> "Suite":
        for arm in self.overrides:
            try:
                cell_run(self, arm, 0, 1, self.output)
            except ValidationError as error:
                message = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"arm {arm}, with its settings in overrides: {message}") from None
        return self

    def of_arm(self, arm: str) -> Run:
        """Returns the settings with which an arm trains: the suite's, with its own of `overrides`."""
        own = self.overrides.get(arm, {})
        return self.model_copy(update={"train": changed(self.train, own), "adapter": own_adapter(self.adapter, own)})

    @property
    def baseline(self) -> str | None:
        """The arm that others are compared with: `plain`, else the first without methods, if there is one."""
        without = [arm for arm, methods in self.arms.items() if not methods]
        return PLAIN if PLAIN in self.arms else next(iter(without), None)


def kind_of(raw: Mapping[str, Any]) -> type[Run]:
    """Returns `Suite` for a file with a key that run files have not, such as `seeds`; else `Run`."""
    return Suite if raw.keys() & (Suite.model_fields.keys() - Run.model_fields.keys()) else Run


def load_suite(path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> Suite:
    """Reads a suite from a YAML file, with overrides such as `"seeds=[0]"`; errors as in `foci.config.run.load_run`."""
    return load(path, overrides, Suite)


def changed(train: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """Returns `train` with an arm's own settings. An arm has no length of its own: `match` decides it."""
    known = {name: info for name, info in fields().items() if name.startswith("train.")}
    changes = {key: value for key, value in changes.items() if key != "adapter"}
    for key in changes:
        if key in ("epochs", "steps"):
            raise ValueError(f"an arm cannot set {key!r} for itself: all arms are matched by `match`; set train.{key}")
        if f"train.{key}" not in known:
            raise ValueError(unknown_key(f"train.{key}", known))
    try:
        return TrainConfig(**{**train.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"train.{key}: {first['msg']}, got {shown(first['input'])}") from None


def own_adapter(adapter: Adapter | None, changes: dict[str, Any]) -> Adapter | None:
    """Returns an arm's adapter: the suite's where it has none for itself, None where it trains all weights.

    Settings that an arm's own adapter leaves out are the suite's if it is of the same type, else their defaults.
    """
    if "adapter" not in changes:
        return adapter
    own = changes["adapter"]
    if own is None:
        return None
    if not isinstance(own, dict):
        raise ValueError(  # noqa: TRY004
            f"an arm's adapter is its settings, such as {{type: osf}}, or null, got {shown(own)}"
        )
    known = {name: info for name, info in fields().items() if name.startswith("adapter.")}
    for key in own:
        if f"adapter.{key}" not in known:
            raise ValueError(unknown_key(f"adapter.{key}", known))
    same = adapter is not None and own.get("type", adapter.type) == adapter.type
    try:
        return Adapter(**{**(adapter.model_dump() if adapter is not None and same else {}), **own})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(("adapter", *(str(part) for part in first["loc"])))
        raise ValueError(f"{key}: {first['msg'].removeprefix('Value error, ')}") from None


def cell_run(suite: Suite, arm: str, seed: int, updates: int, output: Path) -> Run:
    """Returns the run of one cell: one arm, one seed, so many updates."""
    own = suite.of_arm(arm)
    train = TrainConfig(**{**own.train.model_dump(), "epochs": None, "steps": updates})
    return Run(
        name=f"{arm} seed {seed}",
        output=output,
        seed=seed,
        model=suite.model,
        corpus=suite.corpus,
        probes=suite.probes,
        adapter=own.adapter,
        train=train,
        arms={arm: suite.arms[arm]},
    )


def start_run(suite: Suite, seed: int, output: Path) -> Run:
    """Returns the run whose rows, questions and baseline all cells of a seed share; it is never trained."""
    probes = suite.probes.model_copy(update={"every": None})
    return Run(
        name=f"seed {seed}",
        output=output,
        seed=seed,
        model=suite.model,
        corpus=suite.corpus,
        probes=probes,
        arms={PLAIN: ()},
    )
