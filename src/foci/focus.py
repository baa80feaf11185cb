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

In a `Batch` (`foci.rows`), what belongs to token t (its label, its NLL, its weight) stands at position t; a row's first
token has no NLL. Losses are in nats. Blocks are named by `foci.models.block_of`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from numpy.random import Generator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foci.rows import DELIMITER, IGNORED, REHEARSED, Batch, Row

__all__ = [
    "DELIMITER",
    "IGNORED",
    "REHEARSED",
    "ROLES",
    "Batch",
    "Context",
    "EditsTokens",
    "GuidesHeads",
    "HoldsWeights",
    "Method",
    "MixesRows",
    "Pattern",
    "Plan",
    "Prepares",
    "Row",
    "ScalesLayers",
    "WeighsTokens",
]

Pattern = Literal["same", "previous", "previous-2", "next", "first", "delimiter"]
"""A head's target: the key every query should look at (arXiv 2010.02399, section 3).
"delimiter" is the last one so far; "next" needs attention in both directions."""


class EditsTokens(ABC):
    """Decides which tokens of a row are read."""

    @abstractmethod
    def edit(self, row: Row, rng: Generator) -> Row:
        """The row to train on. `rng` is a function of (seed, epoch, copy, row_id) alone."""

    def draw(self, epoch: int, copy: int) -> tuple[int, int] | None:
        """Whose random numbers this reading uses, by default its own (fixed copies repeat a few); None: no edit."""
        return epoch, copy


class WeighsTokens(ABC):
    """Decides how much each token counts."""

    def needs(self) -> frozenset[str]:
        """Columns this method reads. `"nll"` is the learner's current NLL, computed when asked for."""
        return frozenset()

    @abstractmethod
    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Weights >= 0 of all tokens of one whole update; their scale does not matter."""


class GuidesHeads(ABC):
    """Decides what attention heads should look at."""

    @abstractmethod
    def targets(self, layer: int) -> Mapping[int, Pattern]:
        """Pattern by head number for one layer, both counted from 0; an empty mapping guides nothing."""

    @abstractmethod
    def strength(self, step: int, steps: int) -> int | float:
        """What the loss of one layer and pattern is multiplied by at update `step` (from 0) of `steps`; 0 = off."""


class ScalesLayers(ABC):
    """Decides how fast each block may move."""

    def blocks(self) -> frozenset[str]:
        """Blocks this method names itself; each must exist in the model."""
        return frozenset()

    @abstractmethod
    def scale(self, block: str) -> int | float:
        """Multiplier of the block's learning rate, >= 0; 0 freezes it."""


class MixesRows(ABC):
    """Decides which old rows are rehearsed."""

    @abstractmethod
    def mix(self, epoch: int, rng: Generator) -> Sequence[Row]:
        """Old rows to add to the new ones in this epoch."""


class HoldsWeights(ABC):
    """Decides what pulls the weights back to where they started."""

    def check(self, steps: int) -> None:  # noqa: B027
        """Raises ValueError where this method cannot work in a run of so many updates."""

    @abstractmethod
    def pull(self, step: int) -> Mapping[str, int | float | Tensor]:
        """Strength: theta moves by -lr * strength * (theta - start).

        By block (`"*"` = every block), a number; or by parameter name, a tensor of the parameter's shape (of an adapted
        weight, the name it has in the model without adapter).
        """

    def pace(self, step: int) -> int | float:
        """Multiplier of the optimiser's own learning rate at this update (RecAdam's lambda); product."""
        return 1.0


@dataclass(frozen=True)
class Context:
    """What the offline half of a method may look at, once, before the first update.

    `model` is the untouched model (no adapter, evaluation mode), `rows` the rows to learn. `folder` is the method's
    own, kept with the run: what is stored there is found again after a resume. `asked` are the questions (prompts) that
    the run will ask: no offline half may learn from them.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rows: Sequence[Row]
    folder: Path
    seed: int = 0
    asked: frozenset[str] = frozenset()


class Prepares(ABC):
    """The offline half of a method. Not a role of its own: the online half it returns plays the roles."""

    def check(self, model: PreTrainedModel) -> None:  # noqa: B027
        """Raises ValueError where this method cannot work with a model. Quick: asked before anything is trained."""

    @abstractmethod
    def prepare(self, context: Context) -> "tuple[Method, Sequence[Row]]":
        """The online half (often the method itself) and the rows to train on, with the columns it will read."""

    def fill(self, context: Context, number: int = 0, count: int = 1) -> Iterator[tuple[int, float]]:
        """Does a part of the heavy work, which `prepare` completes: yields tokens read and seconds, piece by piece."""
        return iter(())

    def premise(self, context: Context) -> Sequence[Mapping[str, str | int | float | None]]:
        """What can be measured of the assumption behind the method: rows of a table; none where nothing can be."""
        return ()

    def told(self) -> str:
        """What the offline half found, in one line for people; the online half knows it. Empty says nothing."""
        return ""


ROLES = (EditsTokens, WeighsTokens, GuidesHeads, ScalesLayers, MixesRows, HoldsWeights)
Method = EditsTokens | WeighsTokens | GuidesHeads | ScalesLayers | MixesRows | HoldsWeights | Prepares


@dataclass(frozen=True)
class Plan:
    """Methods, sorted by the roles they play and combined by the laws of the table above.

    `normalise` says over what weights sum to one: `"update"` (every weighted token of the update counts
    alike, the default) or `"row"` (weights of a row sum to 1, so every row counts alike).
    """

    methods: Sequence[Method] = ()
    normalise: Literal["update", "row"] = "update"

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(self.methods))
        for method in self.methods:
            if not isinstance(method, (*ROLES, Prepares)):
                raise TypeError(
                    f"a plan takes objects that play a role ({', '.join(r.__name__ for r in ROLES)}), "
                    f"got {method!r}; derive it from the role whose method it implements"
                )
        if self.normalise not in ("update", "row"):
            raise ValueError(f"normalise is 'update' or 'row', got {self.normalise!r}")

    @property
    def replaces_loss(self) -> bool:
        """Whether the plan needs another loss than a trainer's own mean over tokens."""
        return bool(self.weighers or self.guides or self.normalise != "update")

    @property
    def edits(self) -> list[EditsTokens]:
        return [m for m in self.methods if isinstance(m, EditsTokens)]

    @property
    def weighers(self) -> list[WeighsTokens]:
        return [m for m in self.methods if isinstance(m, WeighsTokens)]

    @property
    def guides(self) -> list[GuidesHeads]:
        return [m for m in self.methods if isinstance(m, GuidesHeads)]

    @property
    def scalers(self) -> list[ScalesLayers]:
        return [m for m in self.methods if isinstance(m, ScalesLayers)]

    @property
    def mixers(self) -> list[MixesRows]:
        return [m for m in self.methods if isinstance(m, MixesRows)]

    @property
    def holders(self) -> list[HoldsWeights]:
        return [m for m in self.methods if isinstance(m, HoldsWeights)]
