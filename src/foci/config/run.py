"""The run file: one YAML document with all settings of a run.

Paths are relative to the current directory (not to the run file); a leading `~` is the home directory. A method of
one's own, `./mine.py:Mine`, is looked for beside the run file first.
Every key has a default but `corpus.path`. `fields()` lists all keys with their meaning.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    field_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from foci.config import strict_yaml
from foci.config.adapter import Adapter, Count, Section
from foci.config.continuing import Continues
from foci.config.patience import HELD_OUT_FACTS, HELD_OUT_ROWS, without_other_defaults
from foci.config.train import TrainConfig
from foci.config.values import (
    arm_name,
    as_method,
    as_methods,
    as_path,
    as_paths,
    beside,
    expand_home,
    explain,
    with_overrides,
)
from foci.errors import shown

_ENDINGS = r"(\.(txt|md|jsonl?|parquet|csv|tsv|pdf|docx|pptx|xlsx|epub|html?|xhtml|zip))?(\.(gz|zst))?\Z"
"""Endings of a corpus file, which are no part of the run's name."""

Text = Annotated[str, Field(min_length=1)]
PathText = Annotated[str, BeforeValidator(expand_home), Field(min_length=1)]
PathTexts = Annotated[tuple[Text, ...], BeforeValidator(as_paths), Field(min_length=1)]
ArmName = Annotated[str, AfterValidator(arm_name)]
MethodSpec = Annotated[str | dict[str, dict[str, Any]], PlainValidator(as_method)]
"""A method in a run file, `"oracle"` or `{"oracle": {"floor": 0.1}}`; `foci.methods.build` makes the object."""
SHARED_ADAPTERS = ("lora", "rslora", "dora")
"""Types of adapters that processes can share (`train.fsdp`), and that train upon weights in few bits."""
MADE = "made"
"""The value of `probes.learn` for probes that are made from the corpus by rule."""
Methods = Annotated[tuple[MethodSpec, ...], BeforeValidator(as_methods)]


FOCUSED: tuple[Any, ...] = (
    "train_attention",
    "study",
    {"lwf": {"strength": 3.0}},
    {"replay": {"path": "encyclopedia", "anchor": "kl", "strength": 3.0}},
)
"""The arm that `foci learn` compares with plain fine-tuning (docs/results/soft_targets.md)."""


class ModelConfig(Section):
    """The model that learns."""

    name: PathText = Field(
        default="smollm2-135m",
        description="smollm2-135m (embedded), a hub id, a model folder or a .gguf file",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="number format of the forward pass; auto = bfloat16 where the machine has it",
    )
    bits: Literal[4, 8] | None = Field(
        default=None,
        description="bits of linear layers, 4 or 8 (bitsandbytes), for an adapter to train upon; null = as they are",
    )
    on_disk: bool = Field(
        default=False,
        description="map the base weights from files in TMPDIR, for a model larger than memory; CPU and adapter only",
    )
    trust_remote_code: bool = Field(default=False, description="run Python code that comes with the model")


class CorpusConfig(Section):
    """The text to learn."""

    path: PathTexts = Field(
        description="file or folder of text (.txt, .md, .jsonl, .pdf, .docx, .html, .zip, ...), or a list"
    )
    max_length: int = Field(default=256, ge=2, description="longest row, in tokens; longer documents are split")
    max_bad: float = Field(
        default=0.01, ge=0, le=1, description="largest share of bad lines (0 to 1) with which a run goes on"
    )
    text_field: Text = Field(
        default="text", description="field or column that holds the text (.jsonl, .json, .csv, .parquet)"
    )
    loss: Literal["answers", "all"] = Field(
        default="answers", description="what is learned of conversations and completions: the answers, or all tokens"
    )
    chat_template: PathText | None = Field(
        default=None, description="file (Jinja) that says how conversations are written; null = the model's own"
    )
    control_words: bool = Field(
        default=False, description="plain text holds a chat template already: its control words become control tokens"
    )
    held_out_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the rows (0 to 1) not trained on; 0.05 with train.patience, unless a probe file is given",
    )

    @field_serializer("path")
    def _one_or_list(self, path: tuple[str, ...]) -> str | list[str]:
        return path[0] if len(path) == 1 else list(path)


class ProbesConfig(Section):
    """The questions that measure what was learned and what was forgotten."""

    learn: PathText | None = Field(
        default=MADE,
        description="probe file (.jsonl) on what the corpus says; made = by rule from the corpus; null = none",
    )
    retain: PathText | None = Field(
        default="general",
        description="probe file on what must stay; general = the facts in foci; null = none",
    )
    text: PathText | None = Field(
        default="general", description="text file for bits per byte; general = the page in foci; null = none"
    )
    held_out: PathText | None = Field(
        default=None,
        description="probe file with both roles, asked too but not counted in learned and retained; null = none",
    )
    held_out_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of facts (0 to 1) held out of learn, retain; made probes: 0 = 0.2; 0.2 with patience",
    )
    corpus_text: bool = Field(default=True, description="also measure bits per byte on a sample of the corpus")
    every: Count | None = Field(
        default=None,
        description="probe after every so many updates; null = only before the first and after the last",
    )
    batch_size: Count = Field(default=32, description="probes per forward pass; changes speed, not answers")


class Run(Section):
    """One run: a model, a corpus, probes, and arms that differ only in their methods."""

    name: Text = Field(default="", description="name of the run in tables; default: the name of the corpus")
    output: Annotated[Path, BeforeValidator(as_path)] = Field(
        default=Path("out"),
        description="folder of the run, relative to the current directory; default: out/<name>",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of everything random")
    model: ModelConfig = Field(default_factory=ModelConfig, description="the model that learns")
    corpus: CorpusConfig = Field(description="the text to learn, at least {path: FILE_OR_FOLDER}")
    probes: ProbesConfig = Field(default_factory=ProbesConfig, description="what is asked before, during and after")
    adapter: Adapter | None = Field(default_factory=Adapter, description="what trains; null = all weights")
    train: TrainConfig = Field(default_factory=TrainConfig, description="the optimisation")
    continues: Continues | None = Field(
        default=None,
        description="a finished run whose trained model goes on learning; null = the model of `model`",
    )
    arms: dict[ArmName, Methods] = Field(
        default={"plain": (), "focused": FOCUSED},
        min_length=1,
        description="methods by arm, names or ./FILE.py:CLASS beside the run file; [] = plain fine-tuning",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_and_output(cls, data: Any) -> Any:
        """Sets the defaults of `name` (the corpus' first path) and `output` (out/<name>)."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        corpus = data.get("corpus")
        paths = as_paths(corpus.get("path") if isinstance(corpus, dict) else getattr(corpus, "path", None))
        if "name" not in data and isinstance(paths, tuple) and paths and isinstance(paths[0], str):
            data["name"] = re.sub(_ENDINGS, "", Path(os.path.realpath(paths[0])).name) or "run"
        if "output" not in data and isinstance(data.get("name"), str):
            folder = re.sub(r"[^A-Za-z0-9._-]+", "-", data["name"]).strip("-.")
            data["output"] = Path("out") / (folder or "run")
        return data

    @model_validator(mode="before")
    @classmethod
    def _patience_holds_out(cls, data: Any) -> Any:
        """Holds something out for `train.patience` to judge by, where the run file does not say what."""
        train = data.get("train") if isinstance(data, dict) else None
        if not isinstance(train, dict) or train.get("patience") is None:
            return data
        probes, corpus = data.get("probes") or {}, data.get("corpus")
        if not isinstance(probes, dict) or not isinstance(corpus, dict) or probes.get("held_out") is not None:
            return data
        learn = probes.get("learn", MADE)
        if learn is not None:
            probes = {"held_out_share": HELD_OUT_FACTS, **probes}
        if learn in (None, MADE):  # where no probes can be made, the rows decide
            corpus = {"held_out_share": HELD_OUT_ROWS, **corpus}
        return {**data, "probes": probes, "corpus": corpus}

    @model_validator(mode="after")
    def _patience_has_something_to_judge_by(self) -> "Run":
        shares, made = (self.probes.held_out_share, self.corpus.held_out_share), self.probes.learn == MADE
        if self.train.patience is not None and self.probes.held_out is None and not made and not any(shares):
            raise ValueError(
                f"train.patience is {self.train.patience}, but nothing is held out that could say what is best; give "
                "probes.held_out, probes.held_out_share or corpus.held_out_share, or leave out train.patience"
            )
        return self

    @model_validator(mode="after")
    def _adapter_can_be_shared(self) -> "Run":
        if self.train.fsdp and self.adapter is not None and self.adapter.type not in SHARED_ADAPTERS:
            raise ValueError(
                f"train.fsdp shares adapters of the types {', '.join(SHARED_ADAPTERS)}, and models without an adapter, "
                f"got adapter.type {self.adapter.type}; change it, or set train.fsdp: false"
            )
        return self

    @model_validator(mode="after")
    def _few_bits_can_be_trained_upon(self) -> "Run":
        if self.model.bits is None:
            return self
        told = f"model.bits: {self.model.bits}"
        if self.adapter is None or self.adapter.type not in SHARED_ADAPTERS:
            raise ValueError(
                f"{told} freezes the weights of linear layers, so an adapter of the types {', '.join(SHARED_ADAPTERS)} "
                f"must train, got adapter: {'null' if self.adapter is None else self.adapter.type}; change it, or "
                "leave model.bits out"
            )
        if self.train.fsdp:
            raise ValueError(f"train.fsdp shares weights in float32, got {told}; leave one of them out")
        if self.continues is not None:
            raise ValueError(
                f"a run goes on from a merged model in float32, got {told} with continues; write the model of the run "
                "before by foci export, and name its folder as model.name of a new run"
            )
        return self

    @model_validator(mode="after")
    def _weights_on_disk_stay(self) -> "Run":
        if not self.model.on_disk:
            return self
        told = "model.on_disk: true"
        if self.adapter is None or self.adapter.type not in SHARED_ADAPTERS:
            raise ValueError(
                f"{told} is for weights that do not train, so an adapter of the types {', '.join(SHARED_ADAPTERS)} "
                f"must train, got adapter: {'null' if self.adapter is None else self.adapter.type}; change it, or "
                "leave model.on_disk out"
            )
        if self.model.bits is not None or self.train.fsdp:
            other = "train.fsdp: true" if self.train.fsdp else f"model.bits: {self.model.bits}"
            raise ValueError(f"{told} does not go with {other}, got both; leave one of them out")
        return self

    @model_validator(mode="after")
    def _keeps_the_run_before(self) -> "Run":
        """Refuses to write over the run that this one goes on from, before anything could be deleted."""
        if self.continues is not None and Path(self.continues.run).resolve() == self.output.resolve():
            raise ValueError(
                f"output {self.output} is the run to go on from, which must stay; name another one with --out"
            )
        return self

    def of_arm(self, arm: str) -> "Run":
        """Returns the settings with which an arm trains: in a run those of all arms."""
        return self

    @staticmethod
    def of_flags(
        corpus: str | Path | Sequence[str | Path],
        model: str | None = None,
        output: str | Path | None = None,
        overrides: Sequence[str] = (),
    ) -> "Run":
        """Returns a run without a run file; arguments that are None keep their defaults.

        >>> run = Run.of_flags(corpus="texts/manual.md", overrides=["train.epochs=2"])
        >>> run.name, str(run.output), run.train.epochs, list(run.arms)
        ('manual', 'out/manual', 2, ['plain', 'focused'])
        """
        paths = [str(corpus)] if isinstance(corpus, str | Path) else [str(path) for path in corpus]
        raw: dict[str, Any] = {"corpus": {"path": paths}}
        if model is not None:
            raw["model"] = {"name": model}
        if output is not None:
            raw["output"] = str(output)
        places: dict[strict_yaml.Place, str] = {(key,): f"--{key}" for key in raw}
        return _validated(raw, overrides, places, "command line", Run)


def of_settings(settings: Mapping[str, Any], overrides: Sequence[str] = ()) -> Run:
    """Returns the run of plain settings, as a run file would hold them, with overrides; errors as in `load`."""
    return _validated(dict(settings), overrides, {}, "command line", Run)


RunType = TypeVar("RunType", bound=Section)


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Reads a run from a YAML file, or from a run's folder (its run.yaml), with overrides; see `load`."""
    return load(path, overrides, Run)


def load(
    path: str | Path, overrides: Sequence[str], kind: type[RunType] | Callable[[Mapping[str, Any]], type[RunType]]
) -> RunType:
    """Reads a run of the given kind (such as `Run`) from a YAML file, or from a run's folder, with overrides.

    `kind` is a class of runs, or a function that chooses one by the file's keys.
    An override is `key=value` with a dotted key and a YAML value: `"train.epochs=2"`, `"arms.plain=[]"`.

    Raises FileNotFoundError if there is no such file, and ValueError for wrong content. Its message lists all errors,
    one per line, each with its line in the file, what was expected, and the cure.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path /= "run.yaml"
    if not path.is_file():
        what = kind.FILE if isinstance(kind, type) and issubclass(kind, Section) else f"{Run.FILE} or suite file"
        cure = ", or name the text itself: foci learn my_texts/" if kind is Run else ""
        raise FileNotFoundError(f"{path}: expected a {what} (YAML), found none; check the path{cure}")
    raw, lines = strict_yaml.parse(path.read_bytes(), str(path))
    chosen: type[RunType] = kind if isinstance(kind, type) else kind(raw if isinstance(raw, dict) else {})
    if not isinstance(raw, dict):
        raise ValueError(  # noqa: TRY004
            f"{path}: a {chosen.FILE} is a mapping of keys to values, got {shown(raw)}; "
            f"the shortest one is: {chosen.SHORTEST}"
        )
    raw = {key: beside(value, path.parent) if key == "arms" else value for key, value in raw.items()}
    return _validated(raw, overrides, {place: f"{path}:{line}" for place, line in lines.items()}, str(path), chosen)


def dump_run(run: Section) -> str:
    """Returns the run as YAML with all defaults written out; `load_run` reads the same run back."""
    return strict_yaml.dump(run.model_dump(mode="json"))


def fields(kind: type[Section] = Run) -> dict[str, FieldInfo]:
    """Returns every key of a run file by its dotted name, in order, with `.description`, `.default`, `.annotation`.

    >>> fields()["train.accumulation"].description
    'batches of rows per update'
    """
    found: dict[str, FieldInfo] = {}
    for name, info in kind.model_fields.items():
        found[name] = info
        for section in (info.annotation, *get_args(info.annotation)):
            if isinstance(section, type) and issubclass(section, BaseModel):
                found |= {f"{name}.{key}": inner for key, inner in section.model_fields.items()}
    return found


def _validated(
    raw: dict[str, Any],
    overrides: Sequence[str],
    places: dict[strict_yaml.Place, str],
    source: str,
    kind: type[RunType],
) -> RunType:
    """Returns the run of plain data. `places` says where each value was written, `source` names the file in errors."""
    known = fields(kind)
    raw = dict(without_other_defaults(raw, overrides, known))
    raw, places = with_overrides(raw, places, overrides, known)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ValueError(explain(error.errors(), known, places, source)) from None
