"""How others load what a folder holds: Transformers, PEFT, vLLM, Ollama and llama.cpp."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from foci.card.base import Base
from foci.card.vllm import rank_flag, why_refused

PLACE = "PATH"
"""Stands in a card for the folder, or for its name on the hub."""
FEW_BITS = {
    4: 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True',
    8: "load_in_8bit=True",
}
"""The settings of bitsandbytes that store a base model in so many bits as foci does (`foci.models.quantised`)."""


@dataclass(frozen=True)
class Form:
    """The content of a folder that has a card.

    `precision` is that of the weights, as the format names it. `settings` are those of an adapter (PEFT's), `file` is
    the name of a GGUF file, `name` what other programs may call the model. `checked` is Markdown on what the folder
    answered when it was loaded again, "" where it was not asked.
    """

    kind: Literal["model", "adapter", "gguf"]
    name: str
    precision: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    checked: str = ""


def usage(form: Form, base: Base) -> str:
    """Returns the section of a card that says how to load the folder, in Markdown."""
    parts = {"model": _model, "adapter": _adapter, "gguf": _gguf}[form.kind](form, base)
    where = f"`{PLACE}` is this folder, or its name on the hub."
    blocks = [f"**{program}**\n\n{text}" for program, text in parts.items()]
    return "\n\n".join([where, *blocks])


def vllm_command(form: Form, base: str, place: str) -> str:
    """Returns the command by which vLLM serves an adapter upon its base model; "" where vLLM does not take it."""
    if why_refused(form.settings):
        return ""
    rank = rank_flag(int(form.settings.get("r") or 1))
    return (
        f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {rank} --lora-modules "
        f"{shlex.quote(f'{form.name}={place}')}"
    )


def _model(form: Form, _: Base) -> dict[str, str]:
    code = (
        "from transformers import pipeline\n\n"
        f'write = pipeline("text-generation", model="{PLACE}")\n'
        'print(write("The beginning of a sentence of your text", max_new_tokens=40)[0]["generated_text"])'
    )
    return {
        "Transformers": _block("python", code),
        "vLLM": _block("sh", f"vllm serve {PLACE} --served-model-name {form.name}"),
        "Ollama and llama.cpp": "They read GGUF. `foci export RUN --gguf q8_0` writes it, with a Modelfile.",
    }


def _adapter(form: Form, base: Base) -> dict[str, str]:
    below = base.name if base.on_hub else "BASE"
    named = "" if base.on_hub else f"`BASE` is the folder of the base model, {base.name}.\n\n"
    names, settings, given = "AutoModelForCausalLM, AutoTokenizer", "", ""
    if base.bits is not None:
        names, given = f"{names}, BitsAndBytesConfig", ", quantization_config=bits"
        settings = f"bits = BitsAndBytesConfig({FEW_BITS[base.bits]})\n"
    code = (
        f"from peft import PeftModel\nfrom transformers import {names}\n\n{settings}"
        f'base = AutoModelForCausalLM.from_pretrained("{below}"{given})\n'
        f'model = PeftModel.from_pretrained(base, "{PLACE}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{below}")'
    )
    command = vllm_command(form, below, PLACE)
    refused = (
        f"vLLM does not take this adapter: {why_refused(form.settings)}. `foci export RUN` writes the merged model."
    )
    note = f"\n\n{base.note}" if base.on_hub and base.note else ""
    return {
        "PEFT": named + _block("python", code) + note,
        "vLLM": _block("sh", command) if command else refused,
        "Ollama and llama.cpp": "They read GGUF. `foci export RUN --gguf q8_0` merges the adapter and writes it.",
    }


def _gguf(form: Form, _: Base) -> dict[str, str]:
    code = (
        "from transformers import AutoModelForCausalLM\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{PLACE}", gguf_file="{form.file}")'
    )
    name = form.name.lower()
    return {
        "Ollama": _block("sh", f"cd {PLACE}\nollama create {name} -f Modelfile\nollama run {name}"),
        "llama.cpp": _block("sh", f"llama-cli -m {PLACE}/{form.file}"),
        "Transformers": _block("python", code),
    }  # fmt: skip


def _block(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"
