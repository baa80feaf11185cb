"""foci teaches a language model new knowledge from a small corpus, and measures what it learned and forgot."""

from foci.focus import Batch, EditsTokens, GuidesHeads, HoldsWeights, MixesRows, Plan, Row, ScalesLayers, WeighsTokens
from foci.losses import token_nll, weighted_mean
from foci.train import FocusMixin, FocusTrainer

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "EditsTokens",
    "FocusMixin",
    "FocusTrainer",
    "GuidesHeads",
    "HoldsWeights",
    "MixesRows",
    "Plan",
    "Row",
    "ScalesLayers",
    "WeighsTokens",
    "token_nll",
    "weighted_mean",
]
