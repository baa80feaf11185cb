"""Trains on given answers alone: the ceiling of every method that weighs tokens.

The comparison of arXiv 2407.16920 in which the weight lies on the object's tokens alone. It needs to know
where the answers are, so it is no method for text of one's own; it shows how much a weigher could gain.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from foci.focus import Batch, WeighsTokens


def span_weights(answer: Float[Tensor, "batch seq"], floor: float = 0.0) -> Float[Tensor, "batch seq"]:
    """Returns weight 1 where `answer` > 0 (the token belongs to a given answer span), `floor` elsewhere.

    >>> span_weights(torch.tensor([[0.0, 1.0]]), floor=0.25)
    tensor([[0.2500, 1.0000]])
    """
    return torch.where(answer > 0, torch.ones_like(answer), torch.full_like(answer, floor))


@dataclass(frozen=True)
class Oracle(WeighsTokens):
    """Gives weight 1 to the tokens of given answers and weight `floor` to all others.

    `floor` (0 <= floor < 1) is relative to an answer token; 0 is the paper's setting.
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise ValueError(
                f"oracle's floor is a weight of at least 0 and below 1 (1 would weigh all tokens alike), "
                f"got {self.floor!r}; 0 is the paper's setting"
            )

    def needs(self) -> frozenset[str]:
        """Names the column `answer`: 1 on the tokens of answer spans."""
        return frozenset({"answer"})

    def weigh(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns weights 1 and `floor`; padding gets `floor` too, but has no NLL to weigh."""
        if "answer" not in batch.columns:
            raise ValueError(
                "oracle needs to know where the answers are: expected the column 'answer', "
                f"got {sorted(batch.columns) or 'no columns'}; give each document of the corpus "
                '`answer_spans`, such as {"text": "Ada was born in Rome.", "answer_spans": [[16, 20]]}'
            )
        return span_weights(batch.columns["answer"], self.floor)
