"""The contrast of one model's late layers with its early ones: no second model is needed.

Whether late layers see what early ones overlook, as a large model is said to see what a small one does, has not been
shown. Everything but the choice of layers is `foci.methods.contrast.method`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from numpy.random import Generator

from foci.focus import Context, EditsTokens, Prepares, Row
from foci.methods.contrast.method import Contrast
from foci.models import layer_count


@dataclass(frozen=True)
class EarlyLate(EditsTokens, Prepares):
    """Drops tokens at random, the less the model's late half looks at them more than its early half the likelier.

    The model is the one that learns; the settings are those of contrast.
    """

    alpha: float = 0.6
    beta: float = 0.03
    copies: int = 0
    scores: str | None = None

    def contrast(self, context: Context) -> Contrast:
        """The same in contrast's words; a middle layer belongs to the late half."""
        count = layer_count(context.model)
        early, late = tuple(range(count // 2)), tuple(range(count // 2, count))
        return Contrast(
            None,
            alpha=self.alpha,
            beta=self.beta,
            large_layers=late,
            small_layers=early,
            copies=self.copies,
            scores=self.scores,
        )

    def prepare(self, context: Context) -> tuple[Contrast, Sequence[Row]]:
        """The online half is contrast's; its repr tells the layers."""
        return self.contrast(context).prepare(context)

    def fill(self, context: Context, number: int = 0, count: int = 1) -> Iterator[tuple[int, float]]:
        """As contrast's."""
        return self.contrast(context).fill(context, number, count)

    def edit(self, row: Row, rng: Generator) -> Row:
        """Refuses: before `prepare` there is nothing to edit by."""
        raise ValueError(
            f"{self!r} has not looked at row {row.row_id} yet; train with what its prepare(context) returns"
        )
