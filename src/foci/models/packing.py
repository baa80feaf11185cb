"""Whether a model keeps the rows of a long row apart (`foci.models.long_rows`), proved by reading some.

A model that does not (recurrent layers, positions by place) gets its rows apart.
"""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foci.focus import Batch, Row
from foci.models.architecture import base_of, equal_logits, evaluating, max_length, precision_of, sample_ids
from foci.models.balancing import is_balanced
from foci.models.head import head_of
from foci.models.long_rows import packed
from foci.models.losses import hidden_states
from foci.models.padding import neighbour_limits

WIDTH = 256
"""Tokens of a long row, where no row is longer. Attention in a long row costs by the square of its width."""
LEAST = 16
"""Tokens of a long row, at least."""

_REASONS: WeakKeyDictionary[PreTrainedModel, dict[tuple[int, int], str | None]] = WeakKeyDictionary()


def why_not(model: nn.Module, width: int, tokens: int | None = None) -> str | None:
    """Returns in words why rows cannot stand in long rows of `width` tokens (at least `LEAST`); None where they can.

    `tokens`: the most positions of a pass, at least `width`; None: no limit. A model is asked once for both: rows that
    fill two long rows are read in these, and each alone, in evaluation mode and without autocast. Where a pass takes
    one long row alone, rows that fill one are read, and others in two shorter ones together. Tolerance: 1e-4 of the
    largest logit, in half precision 2e-2.
    """
    base = base_of(model)  # type: ignore[arg-type]
    known, most = _REASONS.setdefault(base, {}), 2 * width if tokens is None else min(tokens, 2 * width)
    if (width, most) not in known:
        known[width, most] = _why_not(model, base, width, most)
    return known[width, most]


def _why_not(model: nn.Module, base: PreTrainedModel, width: int, tokens: int) -> str | None:
    name = f"{type(base).__name__} (model type {base.config.model_type!r})"
    if is_balanced(base):
        return f"{name} has a balancing loss of its routers, which is one of a whole batch"
    for limit, changed, _ in neighbour_limits(base):
        if limit < width:
            return f"{name} changes {changed} in rows of more than {limit} tokens, and long rows have {width}"
    together = min(width, tokens // 2)
    if not (_agrees(model, together, 2) and (together == width or _agrees(model, width, 1))):
        return f"{name} mixes rows that are packed: its logits differ from those of each row alone"
    return None


def _agrees(model: nn.Module, width: int, count: int) -> bool:
    """Compares logits at the end of each row and at some places before; the rows fill `count` long rows, 1 or 2."""
    base = base_of(model)  # type: ignore[arg-type]
    most = min(width - 5, max_length(base))
    ids = sample_ids(base)
    several = (width - 5) // most
    lengths = [*([most, most - 2] * several), 5, 4] if count == 2 else [*([most] * several), 5]
    batch = _batch(ids, lengths)
    places = [sorted({*range(max(0, n - 8), n), *range(0, n, max(1, n // 16))}) for n in lengths]
    head = head_of(model)  # type: ignore[arg-type]

    def asked(states: Tensor, row: int) -> Tensor:
        return head.logits(states[places[row]]).float().nan_to_num()

    with torch.no_grad(), evaluating(model), torch.autocast(ids.device.type, enabled=False):
        alone = [hidden_states(model, _alone(batch, n, most))[0] for n, most in enumerate(lengths)]
        theirs = torch.cat([asked(states, n) for n, states in enumerate(alone)])
        try:
            with packed(width):
                hidden = hidden_states(model, batch)
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError):
            return False  # it takes no positions, or not these
        ours = torch.cat([asked(hidden[n], n) for n in range(len(lengths))])
    dtype: torch.dtype = base.get_input_embeddings().weight.dtype  # type: ignore[union-attr, assignment]
    return equal_logits(ours, theirs, precision_of(dtype))


def _batch(ids: Tensor, lengths: list[int]) -> Batch:
    """Returns rows of these lengths, no two with the same tokens."""
    known = ids[0].tolist()
    rows = [
        Row(str(n), tuple(known[(place + n * (1 + place // 8)) % len(known)] for place in range(length)))
        for n, length in enumerate(lengths)
    ]
    return Batch.of(rows, pad_id=0).to(ids.device)


def _alone(batch: Batch, row: int, length: int) -> Batch:
    ids = batch.input_ids[row : row + 1, :length]
    return Batch(ids, torch.ones_like(ids), ids)
