"""Pulls all weights back to their start with the same strength: L2-SP (arXiv 1802.01483).

The penalty (strength / 2) ||theta - theta0||^2, taken as a step of its own after the optimiser's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from foci.focus import HoldsWeights


@dataclass(frozen=True)
class L2Sp(HoldsWeights):
    """After each step, moves every weight toward its start by the same fraction of its distance.

    The fraction is learning rate * `strength`. Under an adapter the pull acts on what the adapter adds to the weights.
    """

    strength: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf"):
            raise ValueError(f"l2_sp's strength is finite and above 0, got {self.strength!r}; 0.1 is the usual choice")

    def pull(self, step: int) -> Mapping[str, float]:
        """Returns `strength` for every block, at every update."""
        return {"*": self.strength}
