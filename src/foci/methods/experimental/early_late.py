"""The contrast of one model's late layers with its early ones: no second model is needed.

Whether late layers see what early ones overlook, as a large model is said to see what a small one does, has not been
shown. Everything but the choice of layers is `foci.methods.contrast.method`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from foci.focus import Context, Prepares, Row
from foci.methods.contrast.method import Contrast, ContrastEdits
from foci.models import layer_count


@dataclass(frozen=True)
class EarlyLate(Prepares):
    """Randomly drops tokens, preferring those that the model's late layers attend to no more than its early layers.

    The model is the one that learns; the settings are those of contrast.
    """

    alpha: float = 0.6
    beta: float = 0.03
    copies: int = 0
    scores: str | None = None

    def contrast(self, context: Context) -> Contrast:
        """Returns the same as a contrast; a middle layer belongs to the late layers."""
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

    def prepare(self, context: Context) -> tuple[ContrastEdits, Sequence[Row]]:
        """Prepares as contrast does; the repr of what it returns names the layers."""
        return self.contrast(context).prepare(context)

    def fill(self, context: Context, number: int = 0, count: int = 1) -> Iterator[tuple[int, float]]:
        """Does a part of the work, as contrast does."""
        return self.contrast(context).fill(context, number, count)
