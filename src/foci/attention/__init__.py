"""Measures and guides attention without storing a whole (query, key) map.

    share = received(model, input_ids, attention_mask)        # how much attention each token receives
    pair_attention(model, input_ids, attention_mask, pairs)   # A[query, key] of single pairs, per layer and head
    attention_maps(model, input_ids, attention_mask, heads)   # whole maps of a few heads, for pictures
    pattern_loss(query, key, "previous", real)                # ||A - P||^2 of a pattern, with its gradient
    head_distances(model, input_ids, attention_mask, heads)   # the same of a model's heads, measured

Attention is computed for one slice of queries at a time, inside the model's own forward pass (`watching`). `logits`
supports grouped queries, sliding windows, soft-capped logits and learned sinks.
"""

from foci.attention.distances import head_distances
from foci.attention.guiding import Guide, guided
from foci.attention.logits import QUERIES_AT_A_TIME
from foci.attention.patterns import pattern_loss
from foci.attention.received import attention_maps, pair_attention, received
from foci.attention.targets import AHEAD, Targets, pattern_targets
from foci.attention.watching import NAME, check_watched

__all__ = [
    "AHEAD",
    "NAME",
    "QUERIES_AT_A_TIME",
    "Guide",
    "Targets",
    "attention_maps",
    "check_watched",
    "guided",
    "head_distances",
    "pair_attention",
    "pattern_loss",
    "pattern_targets",
    "received",
]
