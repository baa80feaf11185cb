"""Trains some attention heads toward simple patterns: attention guidance (arXiv 2010.02399).

L = nats of the tokens + sum over guided layers and patterns of alpha(step) * mean of ||A_i - P_i||^2

The mean is over the pattern's heads and queries i. A is a head's attention before dropout, P_i the pattern: all of it
on one key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foci.attention import AHEAD, check_watched
from foci.focus import DELIMITER, Context, GuidesHeads, Pattern, Prepares, Row
from foci.methods._prepared import Prepared, add_column
from foci.models import base_of, layer_count

BOTH_WAYS: tuple[Pattern, ...] = ("next", "previous", "first")
CAUSAL: tuple[Pattern, ...] = ("previous", "previous-2", "first")
INSTEAD: Mapping[Pattern, Pattern] = {"next": "previous-2"}
"""The pattern that a causal model can follow in place of one that looks ahead."""


def fading(step: int, steps: int, hold: float = 0.0, until: float = 1.0) -> float:
    """Returns 1 for the share `hold` of the `steps`, then falls in a straight line to 0 at the share `until`.

    >>> [fading(step, 4) for step in range(5)], fading(1, 10, hold=0.2, until=0.6), fading(4, 10, hold=0.2, until=0.6)
    ([1.0, 0.75, 0.5, 0.25, 0.0], 1.0, 0.5)
    """
    begin, end = hold * steps, until * steps
    if step >= end:
        return 0.0
    return 1.0 if step <= begin else (end - step) / (end - begin)


def dealt(patterns: Sequence[Pattern], heads: int) -> dict[int, Pattern]:
    """Deals patterns to the first `heads` heads: equal runs, in order.

    >>> dealt(("next", "previous", "first"), 4)
    {0: 'next', 1: 'next', 2: 'previous', 3: 'first'}
    """
    return {head: patterns[head * len(patterns) // heads] for head in range(heads)}


@dataclass(frozen=True)
class Guidance(Prepares):
    """Trains some attention heads toward simple patterns, such as the previous token, by a loss that fades out.

    The first `share` of each layer's heads is guided by a loss of strength `alpha`. The heads are dealt to `patterns`
    in equal runs, in order; None is next, previous, first, or in a causal model previous, previous-2, first. `layers`
    are all, the lower half, or numbers from 0. The strength is constant for the share `hold` of the updates and falls
    to 0 in a straight line until the share `until`. Queries to which a pattern gives no key do not count. `delimiters`
    are what tokens must be, white space apart; separators always are.
    """

    patterns: tuple[Pattern, ...] | None = None
    share: float = 0.5
    layers: Literal["all", "lower"] | tuple[int, ...] = "all"
    alpha: float = 1.0
    hold: float = 0.0
    until: float = 1.0
    delimiters: tuple[str, ...] = (".", ",")

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and 0 < self.alpha < float("inf") and self.patterns != () and self.layers != ()):
            raise ValueError(
                "guidance expected 0 < share <= 1, a finite alpha above 0, and at least one pattern and layer, got "
                f"share {self.share}, alpha {self.alpha}, patterns {self.patterns} and layers {self.layers}"
            )
        if not 0 <= self.hold <= self.until <= 1 or self.until == 0:
            raise ValueError(
                "guidance holds its strength up to one share of the run and fades until another, got hold "
                f"{self.hold} and until {self.until}; expected 0 <= hold <= until <= 1, until above 0"
            )

    def prepare(self, context: Context) -> tuple["GuidanceHeads", Sequence[Row]]:
        """Chooses heads of this model, and marks delimiters in the rows where a pattern looks at them.

        Raises ValueError where `check_model` does, and for rows without a delimiter.
        """
        heads = self._chosen(context.model)
        looks = any(pattern == "delimiter" for named in heads.values() for pattern in named.values())
        return GuidanceHeads(self, heads), marked(
            context.rows, context.tokenizer, self.delimiters
        ) if looks else context.rows

    def check_model(self, model: PreTrainedModel) -> None:
        """Raises ValueError for layers that have no attention, more patterns than guided heads, patterns that a causal
        model cannot meet, and a model that cannot be watched.
        """
        self._chosen(model)

    def needs_rows_apart(self) -> bool:
        """Says that heads look at places of a row."""
        return True

    def _chosen(self, model: PreTrainedModel) -> dict[int, dict[int, Pattern]]:
        causal = check_watched(model)
        count = max(1, round(self.share * base_of(model).config.get_text_config().num_attention_heads))
        return {
            layer: dealt(self._patterns(count, causal=causal[layer]), count)
            for layer in self._layers(sorted(causal), layer_count(model))
        }

    def _layers(self, known: Sequence[int], depth: int) -> Sequence[int]:
        if isinstance(self.layers, str):
            return [layer for layer in known if self.layers == "all" or layer < depth / 2]
        if absent := sorted(set(self.layers) - set(known)):
            raise ValueError(f"guidance names layers {absent}, the model has attention in layers {list(known)}")
        return self.layers

    def _patterns(self, count: int, *, causal: bool) -> tuple[Pattern, ...]:
        if self.patterns is None:
            return (CAUSAL if causal else BOTH_WAYS)[:count]
        if causal and (ahead := [pattern for pattern in self.patterns if pattern in AHEAD]):
            cures = ", ".join(f"{INSTEAD[pattern]!r} in place of {pattern!r}" for pattern in dict.fromkeys(ahead))
            raise ValueError(f"guidance: a causal model sees nothing that comes later; ask for {cures}")
        if len(self.patterns) > count:
            raise ValueError(
                f"guidance has {len(self.patterns)} patterns for {count} guided heads a layer; raise share (now "
                f"{self.share}) or name fewer"
            )
        return self.patterns


@dataclass(frozen=True, repr=False)
class GuidanceHeads(Prepared, GuidesHeads):
    """Guides `heads`, patterns by layer and head."""

    settings: Guidance
    heads: Mapping[int, Mapping[int, Pattern]] = field(repr=False)

    def targets(self, layer: int) -> Mapping[int, Pattern]:
        """Returns the guided heads of a layer."""
        return self.heads.get(layer, {})

    def strength(self, step: int, steps: int) -> float:
        """Returns `alpha`, held and faded."""
        return self.settings.alpha * fading(step, steps, self.settings.hold, self.settings.until)


def marked(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, delimiters: Sequence[str]) -> Sequence[Row]:
    """Adds a column that is 1 on delimiters and separators, else 0. Raises ValueError where there is none."""
    apart = {tokenizer.sep_token_id, tokenizer.eos_token_id} - {None}
    ids = {token for row in rows for token in row.input_ids}
    stops = {token for token in ids if token in apart or tokenizer.decode([token]).strip() in delimiters}
    if not stops:
        raise ValueError(
            f"guidance looks at delimiters {list(delimiters)} and separators, which none of {len(rows)} rows holds; "
            "name others or take another pattern"
        )
    return add_column(rows, DELIMITER, ([float(token in stops) for token in row.input_ids] for row in rows))
