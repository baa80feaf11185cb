"""Holds the weights first and lets them learn later: RecAdam (arXiv 2004.12651).

theta <- theta - lr lambda Adam(g) - lr (1 - lambda) gamma (theta - theta0), lambda(t) = 1 / (1 + exp(-k (t - t0))).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from foci.focus import HoldsWeights


def annealing(t: int | float, k: int | float, t0: int | float) -> float:
    """Returns lambda(t) = 1 / (1 + exp(-k (t - t0))): 0 long before t0, 1/2 at t0, 1 long after.

    >>> annealing(250, 0.5, 250), round(annealing(254, 0.5, 250), 4)
    (0.5, 0.8808)
    """
    x = k * (t - t0)
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@dataclass(frozen=True)
class RecAdam(HoldsWeights):
    """Holds the weights at their start at first, and lets them learn from about update `t0` on.

    Lambda rises from 0 to 1 around `t0`: it multiplies the optimiser's step, and (1 - lambda) * `gamma` is the strength
    of the pull to the start. `k` is how fast it rises, per update. Under an adapter the pull acts on what the adapter
    adds to the weights.
    """

    k: float = 0.5
    t0: int = 250
    gamma: float = 5000.0

    def __post_init__(self) -> None:
        if not 0 < self.k < float("inf") or self.t0 < 1 or not 0 < self.gamma < float("inf"):
            raise ValueError(
                f"rec_adam expected k > 0, t0 >= 1 updates and gamma > 0, got k {self.k}, t0 {self.t0}, "
                f"gamma {self.gamma}; the paper's are 0.5, 250 and 5000"
            )

    def check_steps(self, steps: int) -> None:
        """Refuses a run of `steps` updates in which lambda never reaches 1/2: nothing would be learned."""
        if self.t0 >= steps:
            raise ValueError(
                f"rec_adam holds the weights until about t0 = {self.t0} updates, but this run has {steps}, after which "
                f"lambda is {annealing(steps, self.k, self.t0):.3g}: it would hardly learn; train longer, or set t0 "
                f"below {steps}, such as {{rec_adam: {{t0: {max(1, steps // 4)}}}}}"
            )

    def pull(self, step: int) -> Mapping[str, float]:
        """Returns (1 - lambda) gamma for every block. The paper counts updates from 1, `step` counts from 0."""
        return {"*": (1 - self.pace(step)) * self.gamma}

    def pace(self, step: int) -> float:
        """Returns lambda at this update."""
        return annealing(step + 1, self.k, self.t0)
