"""Trains the layers that hold the change and freezes the others: gradient localisation (arXiv 2411.04448).

Before training, the untouched model's gradient norms are measured layer by layer, on spans that hold what is new and on
ordinary text; their quotient decides how fast each layer learns.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foci.corpus import read_corpus
from foci.focus import Context, Prepares, Row, ScalesLayers
from foci.methods._prepared import Prepared
from foci.methods.grad_profile import profile
from foci.methods.grad_profile.spans import (
    Span,
    asked_spans,
    marked_spans,
    random_spans,
    rare_spans,
    spans_key,
    unasked,
    whole,
)
from foci.models import blocks, fingerprint
from foci.models.forward import pad_id
from foci.models.quantised import check_whole
from foci.probes import read_probes
from foci.probes.general import general_text_path
from foci.seeds import drawn, generator
from foci.system.cache import kept
from foci.system.files import replacing, write_json

FILE = "profile.json"
"""The file in the method's folder that holds the profile; the report draws it."""
LEAST = 2
"""Spans, and reference rows, below which there is no interval."""
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "mode": ("frozen", "adaptive", "auto_rgn"),
    "order": ("measured", "reversed", "random"),
}


@dataclass(frozen=True)
class GradProfile(Prepares):
    """Trains, or trains faster, the layers whose gradients on new text are large compared with ordinary text.

    `mode`: "frozen" trains the layers whose R exceeds the mean of R; "adaptive" multiplies the rate by R over its
    maximum; "auto_rgn" by ||gradient|| / ||weights|| over its maximum. Embeddings, norm and head move like a layer of
    mean R. `order` "reversed" and "random" are controls: the same rates on other layers.
    `spans`: a probe file, "answers" (the corpus' answer_spans), "rare" (rare words and numbers of the corpus), None:
    answers where the corpus marks any, else rare. At most `count` of them, and `references` rows of `length` tokens of
    the text `reference` (files as in `corpus.path`, None = the general page of foci), are drawn by the seed.
    Norms are kept with the run, or in the folder `shared`, where arms and runs of the same model and text find them.
    """

    mode: profile.Mode = "frozen"
    order: profile.Order = "measured"
    spans: str | None = None
    count: int = 64
    reference: str | tuple[str, ...] | None = None
    references: int = 64
    length: int = 128
    shared: str | None = None

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"grad_profile's {name} is one of {', '.join(known)}, got {getattr(self, name)!r}")
        if min(self.count, self.references, self.length) < LEAST:
            raise ValueError(
                f"grad_profile needs count, references and length of at least {LEAST}, got {self.count}, "
                f"{self.references} and {self.length}"
            )

    def prepare(self, context: Context) -> tuple["GradProfileRates", Sequence[Row]]:
        """Measures the profile, or reads the norms that were kept, and writes `profile.json`; rows stay as they are.

        Raises ValueError where the run asks what is to be traced, spans or reference text are too few, or what was
        kept is of another model or text, where no layer would train, and for weights in few bits.
        """
        check_whole(context.model, "grad_profile")
        rates, found = self._profiled(context)
        if not any(rates.values()):
            raise ValueError(
                f"grad_profile freezes layers that are not above the mean of all, which leaves none of {len(rates)} "
                "blocks to train (all layers are alike, or there is one); set mode: adaptive"
            )
        words = _words(rates, found["shape"], self.order)
        write_json(context.folder / FILE, {"method": repr(self), "told": words, **found})
        return GradProfileRates(self, rates, words), context.rows

    def _profiled(self, context: Context) -> tuple[profile.Values, dict[str, Any]]:
        """Returns the rate of every block, and the content of profile.json."""
        source, spans = self._spans(context)
        rows = self._reference(context)
        rng = generator("grad_profile", context.seed)
        sets = {"spans": spans, "random": random_spans(rows, [len(s) for s in spans], rng), "reference": whole(rows)}
        norms, gradient = self._norms(context, sets)
        columns: dict[str, profile.Values] = {}
        for name, prefix in {"spans": "relative", "random": "control"}.items():
            columns[prefix] = profile.relative(norms[name], norms["reference"])
            low, high = profile.bootstrap(norms[name], norms["reference"], rng)
            columns |= {f"{prefix}_low": low, f"{prefix}_high": high}
        measured = gradient if self.mode == "auto_rgn" else columns["relative"]
        ordered = profile.reordered(measured, self.order, rng)
        scales = profile.rates_of(ordered, self.mode)
        columns |= {"rate": scales, **({"relative_gradient": gradient} if gradient else {})}
        return scales, {
            "spans": {"from": source, "count": len(spans), "tokens": sum(map(len, spans))},
            "reference": {"rows": len(rows), "tokens": sum(map(len, rows))},
            "shape": profile.thirds(measured),
            "blocks": [{"block": b} | {name: column[b] for name, column in columns.items()} for b in scales],
        }

    def _spans(self, context: Context) -> tuple[str, list[Span]]:
        """Returns the source of the spans in words, and at most `count` of them, which the seed draws."""
        rows = list(unasked(context.rows, context.asked))
        marked = marked_spans(rows) if self.spans in (None, "answers") else []
        if marked or self.spans == "answers":
            source, found = "answer spans of the corpus", marked
        elif self.spans in (None, "rare"):
            source, found = "rare words and numbers of the corpus: a guess, nobody marked them", rare_spans(rows)
        else:
            source = f"probes of {self.spans}"
            found = asked_spans(read_probes(str(self.spans), "learn"), context.tokenizer, context.asked)
        if len(found) < LEAST:
            left = f"{len(context.rows) - len(rows)} of {len(context.rows)} rows were left out"
            raise ValueError(
                f"grad_profile found {len(found)} spans ({source}) and needs {LEAST}; {left} because they hold "
                "questions of the run. Set spans to a probe file, or to rare"
            )
        return source, drawn(found, context.seed, repr)[: self.count]

    def _reference(self, context: Context) -> list[Row]:
        """Returns ordinary sequences, which the seed draws, without the run's questions."""
        paths = str(general_text_path()) if self.reference is None else self.reference
        found = list(unasked(read_corpus(paths, context.tokenizer, max_length=self.length).rows, context.asked))
        if len(found) < LEAST:
            raise ValueError(
                f"grad_profile found {len(found)} reference rows in {paths} and needs {LEAST}; name more text"
            )
        return drawn(found, context.seed, lambda row: row.row_id)[: self.references]

    def _norms(
        self, context: Context, sets: Mapping[str, Sequence[Span]]
    ) -> tuple[dict[str, dict[str, Tensor]], profile.Values]:
        """Returns every span's norms, by set and block, and auto-RGN's relative gradient (empty in other modes)."""
        model, pad, order = context.model, pad_id(context.tokenizer), blocks(context.model)

        def norms() -> dict[str, Tensor]:
            found = {name: profile.span_norms(model, spans, pad) for name, spans in sets.items()}
            return {f"{name}/{block}": of for name, by_block in found.items() for block, of in by_block.items()}

        def gradient() -> dict[str, Tensor]:
            return {b: torch.tensor(g) for b, g in profile.mean_gradient(model, sets["spans"], pad).items()}

        key = {"model": fingerprint(model), **{name: spans_key(spans) for name, spans in sets.items()}}
        flat = kept(self._place(context, "norms", key), key, norms, _save, load_file)
        own = {"model": key["model"], "spans": key["spans"]}
        rgn = self.mode == "auto_rgn"
        drift = kept(self._place(context, "gradient", own), own, gradient, _save, load_file) if rgn else {}
        by_set = {name: {block: flat[f"{name}/{block}"] for block in order} for name in sets}
        return by_set, {block: float(drift[block]) for block in order if block in drift}

    def _place(self, context: Context, name: str, key: Mapping[str, str]) -> Path:
        """Returns the file for norms: in the method's folder, or in the shared one under a hash of the key."""
        if self.shared is None:
            return context.folder / f"{name}.safetensors"
        digest = hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:16]
        return Path(self.shared).expanduser() / f"{name}-{digest}.safetensors"


@dataclass(frozen=True, repr=False)
class GradProfileRates(Prepared, ScalesLayers):
    """Multiplies each block's learning rate by its rate in `rates`; `words` say in one line what was measured."""

    settings: GradProfile
    rates: Mapping[str, float] = field(repr=False)
    words: str = field(default="", repr=False)

    def summary(self) -> str:
        """Says the shape of the profile and how many layers move."""
        return self.words

    def blocks(self) -> frozenset[str]:
        """Names the blocks of the model that was profiled."""
        return frozenset(self.rates)

    def scale(self, block: str) -> float:
        """Returns the block's rate; 1 for a block that the untouched model does not have (an adapter beside it)."""
        return self.rates.get(block, 1.0)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a whole file or none: another run may make the same norms at the same time."""
    with replacing(path, shared=True) as part:
        save_file(tensors, part)


def _words(scales: profile.Values, shape: Mapping[str, float] | None, order: profile.Order) -> str:
    """Says in one line the measured shape, how many layers move, and whether it is a control."""
    layers = [rate for block, rate in scales.items() if block.startswith("layers.")]
    parts = [] if shape is None else [", ".join(f"{part} {value:.2f}" for part, value in shape.items())]
    parts = [f"{part} of the mean layer" for part in parts]
    parts.append(f"{sum(rate > 0 for rate in layers)} of {len(layers)} layers move")
    words = f"profile: {'; '.join(parts)}, rates {min(layers):.2f} to {max(layers):.2f}"
    return words if order == "measured" else f"{words}, {order} over the layers"
