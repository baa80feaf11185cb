"""The untouched and the learned model: one copy of the weights with an adapter on or off, or two models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from foci.chat.adapted import LEARNED, UNTOUCHED, Adapted
from foci.config.run import ModelConfig
from foci.learn.chosen import Chosen
from foci.models.architecture import max_length
from foci.models.decoding import decodes_from_cache
from foci.models.loading import compute_dtype, load_tokenizer, load_weights
from foci.models.locate import check_folder
from foci.models.padding import neighbour_limits
from foci.models.saved_adapter import with_adapter
from foci.models.whole import read_json
from foci.system.texts import read_text

SIDES = ("untouched", "learned")
"""The names of the two models, the untouched one first."""
SWITCHED = ("LORA",)
"""Types of adapter that leave the weights below them as they are, so that they can be switched off."""


@dataclass(frozen=True)
class Sides:
    """Both models, by `SIDES`, with their tokenizer; `limit` is in tokens.

    With one copy of the weights, `layers` are those that the adapter sits in, and `adapted` lets both answer in one
    pass where that is possible. Two models have neither.
    """

    models: tuple[PreTrainedModel, PreTrainedModel]
    tokenizer: PreTrainedTokenizerFast
    limit: int
    layers: Sequence[BaseTunerLayer] = ()
    adapted: Adapted | None = None

    def use(self, who: int) -> None:
        """Makes one model the one that answers now (`UNTOUCHED`, `LEARNED`), or both, in two rows (`BOTH`)."""
        if self.adapted is not None:
            self.adapted.use(who)
            return
        for layer in self.layers:
            if layer.disable_adapters == (who == LEARNED):
                layer.enable_adapters(who == LEARNED)

    def answer_together(self, lengths: Sequence[int], more: int) -> bool:
        """Returns whether two prompts of these lengths, and `more` tokens after each, are read in one batch as alone.

        Where lengths differ the shorter prompt is padded on the left, which not every model can read.
        """
        if self.adapted is None:
            return False
        longest, uneven = max(lengths) + more, len(set(lengths)) > 1
        if uneven and any(longest > limit for limit, *_ in neighbour_limits(self.models[0])):
            return False
        self.use(UNTOUCHED)  # a row that is asked alone must be the same model as in a batch of two
        return decodes_from_cache(self.models[0], uneven=uneven)


def load_sides(chosen: Chosen) -> Sides:
    """Loads both models of an arm in the format of the forward pass, bfloat16 where the machine has it in hardware.

    Raises ValueError, with the cure, where the untouched model is gone, or what was saved is damaged.
    """
    check_folder(chosen.saved, str(chosen.saved))
    chosen.check_weights(chosen.saved)
    base, device = chosen.run.model, "cuda" if torch.cuda.is_available() else "cpu"
    dtype = compute_dtype(base.dtype, device)
    tokenizer, untouched = _untouched(chosen, dtype, device)
    if chosen.is_adapter and _is_switched(chosen.saved):
        adapted = with_adapter(untouched, chosen.saved, str(chosen.saved))
        model = adapted.requires_grad_(False).get_base_model().to(device).eval()
        layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        together = Adapted.of(model, layers)
        _cast(adapted, dtype)
        return Sides((model, model), tokenizer, max_length(model), layers, together)
    learned = _learned(chosen, dtype)
    both = untouched.to(device).eval(), learned.to(device).eval()
    return Sides(both, tokenizer, min(map(max_length, both)))


def _untouched(chosen: Chosen, dtype: torch.dtype, device: str) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    base: ModelConfig = chosen.run.model
    try:
        tokenizer = load_tokenizer(base.name, trust_remote_code=base.trust_remote_code)
        model = load_weights(
            base.name, trust_remote_code=base.trust_remote_code, dtype=dtype, bits=base.bits, device=device
        )
    except ValueError as error:
        raise ValueError(
            f"the untouched model of run {chosen.folder} cannot be loaded: {error}; if it lies elsewhere now, write "
            f"its place into model.name of {chosen.folder / 'run.yaml'}"
        ) from None
    if chosen.run.corpus.chat_template is not None:
        tokenizer.chat_template = _template_of(chosen)
    return tokenizer, model


def _template_of(chosen: Chosen) -> str:
    """Returns the chat template that the run learned with: its tokenizer has kept it, else its file has it.

    Raises ValueError where neither is there.
    """
    kept = chosen.saved.parent / "model"
    if (kept / "tokenizer_config.json").is_file():
        found = load_tokenizer(str(kept), trust_remote_code=chosen.run.model.trust_remote_code).chat_template
        if isinstance(found, str):
            return found
    file = Path(str(chosen.run.corpus.chat_template))
    if not file.is_file():
        raise ValueError(
            f"run {chosen.folder} learned with the chat template {file}, which is not there, and {kept} keeps no copy "
            "of it; put the file back, or start from the directory the run was begun in"
        )
    return read_text(file, "corpus.chat_template: the file")


def _learned(chosen: Chosen, dtype: torch.dtype) -> PreTrainedModel:
    """Returns the learned model as one of its own: what was saved whole, or an adapter upon weights of its own."""
    base, whole = chosen.run.model, chosen.saved.parent / "model"
    if (whole / "config.json").is_file():
        chosen.check_weights(whole)
        return load_weights(str(whole), trust_remote_code=base.trust_remote_code, dtype=dtype)
    below = load_weights(base.name, trust_remote_code=base.trust_remote_code)
    return with_adapter(below, chosen.saved, str(chosen.saved)).merge_and_unload().to(dtype)  # type: ignore[operator]


def _is_switched(adapter: Path) -> bool:
    return read_json(adapter / "adapter_config.json").get("peft_type") in SWITCHED


def _cast(adapted: PeftModel, dtype: torch.dtype) -> None:
    """Gives the adapter's own weights the format of the model's, so that no layer converts numbers at each token."""
    for name, parameter in adapted.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.to(dtype)
