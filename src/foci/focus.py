"""The design on one screen: what a run can decide, and how decisions combine. Read this file first.

A method is a frozen dataclass that plays one or more roles. The trainer knows roles, never methods.

| role           | question it answers             | abstract method             | several combine by      | neutral  |
|----------------|---------------------------------|-----------------------------|-------------------------|----------|
| `EditsTokens`  | which tokens does it read?      | `edit(row, rng) -> Row`     | one after another       | the row  |
| `WeighsTokens` | how much does each token count? | `weigh(batch) -> (b, s)`    | product, one normaliser | 1        |
| `GuidesHeads`  | what should a head look at?     | `targets(layer) -> {head:}` | sum of losses           | 0        |
| `ScalesLayers` | how fast may each layer move?   | `scale(block) -> float`     | product                 | 1        |
| `MixesRows`    | which old text is rehearsed?    | `mix(epoch, rng) -> rows`   | union                   | no rows  |
| `HoldsWeights` | what pulls back to the start?   | `pull(step) -> {block:}`    | sum                     | 0        |
| `Imitates`     | which tokens keep to a teacher? | `hold(batch, w) -> (b, s)`  | sum, each normalised    | 0        |

A method that must first look at the model or the corpus is two dataclasses: one with the settings, which only
`Prepares`, and one that `prepare` returns, which plays the roles. In a `Batch` (`foci.rows`), what belongs to token t
(its label, NLL, weight) stands at position t; a row's first token has no NLL. Losses are in nats, blocks are named by
`foci.models.block_of`. Whatever only one method does is a Protocol beside the code that calls it (`training.anchor`,
`training.dataset`, `learn.offline`, `learn.score`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from jaxtyping import Bool, Float
from numpy.random import Generator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foci.rows import DELIMITER, ENTROPY, IGNORED, LOSS_WEIGHT, REHEARSED, UNWEIGHTED, Batch, Row, SoftTargets

__all__ = ["DELIMITER", "ENTROPY", "IGNORED", "LOSS_WEIGHT", "REHEARSED", "ROLES", "UNWEIGHTED", "Batch", "Context",
           "EditsTokens", "GuidesHeads", "HoldsWeights", "Imitates", "LiveTeacher", "Method", "MixesRows", "Pattern",
           "Plan", "Prepares", "Row", "ScalesLayers", "SoftTargets", "StoredTeacher", "WeighsTokens"]  # fmt: skip

Pattern = Literal["same", "previous", "previous-2", "next", "first", "delimiter"]
"""A head's target: the key that every query should look at (arXiv 2010.02399, section 3). "delimiter" is the last
one at or before the query; "next" needs attention in both directions."""


class EditsTokens(ABC):
    """Decides which tokens of a row are read."""

    @abstractmethod
    def edit(self, row: Row, rng: Generator) -> Row:
        """Returns the row to train on. `rng` is a function of (seed, epoch, copy, row_id) alone."""


class WeighsTokens(ABC):
    """Decides how much each token counts."""

    def needs(self) -> frozenset[str]:
        """Names the columns that `weigh` reads.

        Two columns are computed from the learner in every update, in nats: `"nll"` and `ENTROPY`.
        """
        return frozenset()

    @abstractmethod
    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns weights >= 0 of all tokens of one whole update.

        Their scale does not matter, but beside rehearsed rows, whose tokens have weight 1.
        """


class GuidesHeads(ABC):
    """Decides what attention heads should look at."""

    @abstractmethod
    def targets(self, layer: int) -> Mapping[int, Pattern]:
        """Returns the pattern of each guided head of a layer, both counted from 0; an empty mapping guides nothing."""

    @abstractmethod
    def strength(self, step: int, steps: int) -> int | float:
        """Returns the factor of each layer's and pattern's loss at update `step` (from 0) of `steps`; 0 = off."""


class ScalesLayers(ABC):
    """Decides how fast each block may move."""

    def blocks(self) -> frozenset[str]:
        """Names the blocks that the method is about; each must exist in the model."""
        return frozenset()

    @abstractmethod
    def scale(self, block: str) -> int | float:
        """Returns the multiplier of the block's learning rate, >= 0; 0 freezes it."""


class MixesRows(ABC):
    """Decides which old rows are rehearsed."""

    @abstractmethod
    def mix(self, epoch: int, rng: Generator) -> Sequence[Row]:
        """Returns old rows to add to the new ones in this epoch, counted from 0."""


class HoldsWeights(ABC):
    """Decides what pulls the weights back to where they started."""

    @abstractmethod
    def pull(self, step: int) -> Mapping[str, int | float | Tensor]:
        """Returns the strength of the pull at update `step` (from 0): theta moves by -lr * strength * (theta - start).

        Keys: a block (or `"*"`, every block) with a number, or a parameter with a tensor (names without adapter).
        """


@dataclass(frozen=True)
class LiveTeacher:
    """The untouched model, asked in every update on the rows that the learner reads; keeps the `k` likeliest tokens."""

    k: int = 20
    temperature: float = 1.0


@runtime_checkable
class StoredTeacher(Protocol):
    """A teacher that was asked before training."""

    def targets(self, batch: Batch, where: Bool[Tensor, "batch seq"]) -> SoftTargets:
        """Returns the distributions at the positions in `where`, row by row. Rows must be as the teacher read them."""
        ...


class Imitates(ABC):
    """Decides which tokens are trained to match a teacher's predictions.

    Adds strength * sum(a * soft) / sum(a over the update) to the loss. `a` is what `hold` returns, and soft is
    T^2 KL(teacher || learner) in nats, over the teacher's k likeliest tokens and one bucket for the rest.
    """

    @abstractmethod
    def teacher(self) -> LiveTeacher | StoredTeacher:
        """Returns who says the distributions."""

    @abstractmethod
    def hold(self, batch: Batch, weights: Float[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
        """Returns how much each token is held, >= 0, for one whole update; the scale does not matter.

        `weights` are the token weights of the same update, scaled so that the largest is 1.
        """

    @abstractmethod
    def strength(self, step: int, steps: int) -> int | float:
        """Returns the factor of this loss at update `step` (from 0) of `steps`; 0 = off."""


ROLES = (EditsTokens, WeighsTokens, GuidesHeads, ScalesLayers, MixesRows, HoldsWeights, Imitates)
Role = EditsTokens | WeighsTokens | GuidesHeads | ScalesLayers | MixesRows | HoldsWeights | Imitates


@dataclass(frozen=True)
class Context:
    """The things that an offline stage may look at, once, before the first update.

    `model` is the untouched model (no adapter, evaluation mode), `rows` the rows to learn. `folder` is the method's own
    and is kept for a resume. `asked` are the questions that the run will ask: no offline stage may learn from them.
    `held_out` are sentences of the rows, each on one line, that held-out probes ask about: no row may be made of them.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rows: Sequence[Row]
    folder: Path
    seed: int = 0
    asked: frozenset[str] = frozenset()
    held_out: frozenset[str] = frozenset()


class Prepares(ABC):
    """Holds the settings of a method that must look at the model or the corpus first; plays no role itself."""

    grows: ClassVar[bool] = True
    """Whether the offline stage takes longer for more new rows; False where it reads other text alone."""

    @abstractmethod
    def prepare(self, context: Context) -> tuple[Role, Sequence[Row]]:
        """Runs the offline stage: returns the method that plays in training, and its rows with the columns it reads."""


Method = Role | Prepares
R = TypeVar("R")


def cure_of(wrong: object) -> str:
    """Says what to write in place of something that is no plan or no method."""
    if isinstance(wrong, Method):
        return f"write Plan([{wrong!r}])"
    if isinstance(wrong, str | Mapping):
        return f"names are for run files; in Python write Plan([foci.methods.build({wrong!r})])"
    if isinstance(wrong, type):
        return f"make an object of the class: Plan([{wrong.__name__}(...)])"
    if wrong is None:
        return "write Plan() for plain fine-tuning"
    return f"derive it from a role ({', '.join(role.__name__ for role in ROLES)}) or from Prepares"


@dataclass(frozen=True)
class Plan:
    """Methods, sorted by the roles they play and combined by the laws of the table above.

    `normalise` says over what weights sum to 1: `"update"` (every weighted token of the update counts alike) or `"row"`
    (every row counts alike).
    """

    methods: Sequence[Method] = ()
    normalise: Literal["update", "row"] = "update"

    def __post_init__(self) -> None:
        if isinstance(self.methods, str | Mapping | Method) or not isinstance(self.methods, Iterable):
            raise TypeError(f"a plan takes a list of methods, got {self.methods!r}; {cure_of(self.methods)}")
        object.__setattr__(self, "methods", tuple(self.methods))
        if wrong := [method for method in self.methods if not isinstance(method, Method)]:
            raise TypeError(f"a plan takes methods, got {wrong[0]!r}; {cure_of(wrong[0])}")
        if self.normalise not in ("update", "row"):
            raise ValueError(f"normalise is 'update' or 'row', got {self.normalise!r}")

    def of(self, role: type[R]) -> list[R]:
        """Returns the methods that play a role, in their order."""
        return [method for method in self.methods if isinstance(method, role)]
