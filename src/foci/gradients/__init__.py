"""Gradient norms of single examples, and the influence of a token's weight on a later loss."""

from foci.gradients.influence import gradient_alignment, token_influence
from foci.gradients.norms import block_norms

__all__ = ["block_norms", "gradient_alignment", "token_influence"]
