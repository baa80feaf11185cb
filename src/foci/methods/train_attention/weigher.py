"""A weigher: a causal language model's body, one number per token in place of the vocabulary, made a weight.

The weight for predicting token t is read *at* t: the weigher sees the token and what stands to its left (arXiv
2407.16920, section 3.2), by a sigmoid, or by a softplus (arXiv 2305.15076). Saved as an adapter, the head and the base
model's name.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from foci import models
from foci.config.values import Output
from foci.corpus import tokenizer_fingerprint
from foci.corpus.characters import retokenised, to_characters, to_tokens
from foci.focus import Batch, Row
from foci.methods._prepared import check_lengths
from foci.models.forward import answering, buckets, device_of, pad_id, padded
from foci.models.gguf import EMBEDDED, embedded_file
from foci.models.locate import folder_of
from foci.models.losses import hidden_states
from foci.models.saved_adapter import with_adapter
from foci.models.whole import check_safetensors, check_weights, read_json

SETTINGS, HEAD, ADAPTER = "weigher.json", "head.safetensors", "adapter"
READY_MADE = "ready-made"
"""The name of the weigher that comes with foci."""
NEAR_ONE: dict[Output, float] = {"sigmoid": 4.0, "softplus": math.log(math.e - 1)}
"""Bias of a new head: all weights begin at sigmoid(4) = .982 or softplus(.541) = 1."""


class Weigher(nn.Module):
    """Body and head. `body` is a causal LM, usually with an adapter; its own LM head is not used.

    `bias` is where the head begins; None: where all weights are near 1.
    """

    def __init__(
        self, body: PreTrainedModel | PeftModel, bias: float | None = None, output: Output = "sigmoid"
    ) -> None:
        super().__init__()
        self.body, self.output = body, output
        width = models.head_of(body).module.weight.shape[1]  # type: ignore[union-attr, index]
        self.head = nn.Linear(int(width), 1, device=device_of(body))
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, NEAR_ONE[output] if bias is None else bias)

    def logits(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns the head's number for each token, before it is made a weight."""
        hidden: Tensor = hidden_states(self.body, batch)
        return self.head(hidden.to(self.head.weight.dtype)).squeeze(-1)  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Returns weights above 0, those of a sigmoid below 1; on padding and on first tokens they mean nothing."""
        logits = self.logits(batch).float()
        return logits.sigmoid() if self.output == "sigmoid" else F.softplus(logits)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Returns the trainable parameters, head and adapter, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


@dataclass(frozen=True)
class Loaded:
    """A weigher and the tokenizer that its body reads."""

    weigher: Weigher
    tokenizer: PreTrainedTokenizerFast
    fingerprint: str


def new(
    model: str, *, r: int, alpha: int | float, seed: int = 0, bias: float | None = None, output: Output = "sigmoid"
) -> Loaded:
    """Makes a weigher that weighs all tokens alike, over a fresh LoRA adapter of a model's body."""
    loaded = models.load(model, dtype="float32")
    torch.manual_seed(seed)
    body = models.add_adapter(loaded.model, models.Adapter(r=r, alpha=alpha))
    made = Weigher(body, bias, output)
    return Loaded(made, loaded.tokenizer, fingerprint(made))


def save(weigher: Weigher, folder: Path, *, base: str, made_by: dict[str, Any], half: bool = False) -> None:
    """Writes `folder`: adapter/, head.safetensors, weigher.json. `half` stores float16, half the bytes."""
    if not isinstance(weigher.body, PeftModel):
        raise TypeError(f"a weigher is saved as an adapter of its base model, got {type(weigher.body).__name__}")
    folder.mkdir(parents=True, exist_ok=True)
    for settings in weigher.body.peft_config.values():
        settings.base_model_name_or_path = base
    weigher.body.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)
    stored = folder / ADAPTER / "adapter_model.safetensors"
    if half:
        save_file({name: t.half() for name, t in load_file(stored).items()}, stored, metadata={"format": "pt"})
    (folder / ADAPTER / "README.md").unlink(missing_ok=True)
    save_file(
        {name: p.detach().float().cpu().contiguous() for name, p in weigher.head.state_dict().items()}, folder / HEAD
    )
    written = {"base": base, "output": weigher.output, **made_by}
    (folder / SETTINGS).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def check(name: str) -> None:
    """Raises ValueError where there is no such weigher, one of its files is missing, cut or something else, its weights
    are made in a way that is unknown here, or its body is an embedded model that is not installed.
    """
    folder = _folder(name)
    settings = _settings_of(folder)
    _output(name, settings)
    base = _base(folder, settings)
    if base in EMBEDDED:
        embedded_file(base)
    check_safetensors(folder / HEAD)
    if not (folder / ADAPTER / "adapter_config.json").is_file():
        raise ValueError(f"the weigher {name!r} has no {ADAPTER}/adapter_config.json in {folder}; get the files again")
    check_weights(folder / ADAPTER, "adapter_model")


def load(name: str) -> Loaded:
    """Loads the weigher in a folder, or "ready-made", over its base model. Raises ValueError where it is none."""
    check(name)
    folder = _folder(name)
    settings = _settings_of(folder)
    base = models.load(str(_base_folder(name, folder, settings)), dtype="float32")
    if settings.get("fingerprint") not in (None, base.fingerprint):
        raise ValueError(
            f"the weigher {name!r} was made over {settings['base']!r} with fingerprint {settings['fingerprint']}, "
            f"found {base.fingerprint}; its adapter fits that model alone"
        )
    weights, written = load_file(folder / HEAD), f"'base' of {folder / SETTINGS}"
    body = with_adapter(base.model, folder / ADAPTER, str(folder / ADAPTER), (settings["base"], written))
    weigher = Weigher(body, output=_output(name, settings)).to(device_of(base.model))
    expected, got = ({key: tuple(t.shape) for key, t in some.items()} for some in (weigher.head.state_dict(), weights))
    if got != expected:
        raise ValueError(
            f"the head of the weigher {name!r} should have {expected}, {folder / HEAD} has {got}; get it again"
        )
    weigher.head.load_state_dict(weights)
    return Loaded(weigher.eval(), base.tokenizer, fingerprint(weigher))


def _base(folder: Path, settings: dict[str, Any]) -> str:
    base = settings.get("base")
    if not isinstance(base, str):
        raise ValueError(  # noqa: TRY004
            f"{folder / SETTINGS} should name in 'base' the model that the weigher stands on, got {base!r}; get it "
            "again, or write the model's name there"
        )
    return base


def _base_folder(name: str, folder: Path, settings: dict[str, Any]) -> Path:
    """Returns the folder of the base model. Raises ValueError where it is not on this machine."""
    base = _base(folder, settings)
    try:
        return folder_of(base, fetches=False)
    except ValueError as error:
        raise ValueError(
            f"the weigher {name!r} needs its base model {base!r} ('base' of {folder / SETTINGS}): {error}"
        ) from None


def _folder(name: str) -> Path:
    folder = weigher_path() if name == READY_MADE else Path(name).expanduser()
    if not (folder / SETTINGS).is_file():
        raise ValueError(
            f"no weigher at {name!r}: expected a folder with {SETTINGS}, as `foci meta` writes, or {READY_MADE!r}"
        )
    return folder


def _settings_of(folder: Path) -> dict[str, Any]:
    return read_json(folder / SETTINGS)


def _output(name: str, settings: dict[str, Any]) -> Output:
    found: Output = settings.get("output")  # type: ignore[assignment]
    if found not in get_args(Output):
        raise ValueError(
            f"the weigher {name!r} makes its weights by {found!r}, expected one of {', '.join(get_args(Output))}; load "
            "it with the foci that wrote it, or train it again"
        )
    return found


def fingerprint(weigher: Weigher) -> str:
    """Returns 16 hex digits: the hash of all parameters, and of the output function where it is no sigmoid."""
    digest = hashlib.sha256(models.fingerprint(weigher.body).encode())  # type: ignore[arg-type]
    for value in weigher.head.state_dict().values():
        digest.update(value.detach().float().cpu().numpy().tobytes())
    digest.update(b"" if weigher.output == "sigmoid" else weigher.output.encode())
    return digest.hexdigest()[:16]


def weigh_rows(
    loaded: Loaded, rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, *, batch_size: int = 32
) -> list[tuple[float, ...]]:
    """Returns one weight per token of every row, in order; computed in float32.

    Rows of another tokenizer are read as text, and weights go from token to token through characters; a token that
    stands for no text, such as the end of a row, has the mean weight of those that do. Raises ValueError where such a
    row has no text, or a row is longer than the weigher's model reads.
    """
    same = tokenizer_fingerprint(loaded.tokenizer) == tokenizer_fingerprint(tokenizer)
    read = list(rows) if same else [retokenised(row, loaded.tokenizer, "the weigher") for row in rows]
    check_lengths(read, models.max_length(loaded.weigher.body), "the weigher's model")
    found: list[list[float]] = [[]] * len(rows)
    with answering(loaded.weigher.body, torch.float32):
        for bucket in buckets([len(row) for row in read], batch_size):
            batch = padded([read[i] for i in bucket], pad_id(loaded.tokenizer), "right", device_of(loaded.weigher.body))
            for i, line in zip(bucket, loaded.weigher(batch).tolist(), strict=True):
                found[i] = line[: len(read[i])]
    if same:
        return [tuple(line) for line in found]
    return [_carried(line, theirs, ours) for line, theirs, ours in zip(found, read, rows, strict=True)]


def _carried(line: Sequence[float], theirs: Row, ours: Row) -> tuple[float, ...]:
    """Returns the weights of the weigher's tokens on those of another tokenizer."""
    said = [weight for weight, (start, end) in zip(line[1:], theirs.offsets[1:], strict=True) if start < end]
    mean = sum(said) / len(said) if said else 1.0
    return tuple(to_tokens(to_characters(line, theirs.offsets, len(ours.text), mean), ours.offsets, mean))


def weigher_path() -> Path:
    """Returns the folder of the ready-made weigher: adapter, head and settings, over the embedded model."""
    return Path(str(files("foci.methods.train_attention").joinpath("ready_made")))
