"""Writes the README.md of a learned model, by huggingface_hub's ModelCard."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from foci.card.measured import controls, forgotten, measured, results
from foci.card.taught import Taught, read_taught
from foci.card.usage import Form, usage
from foci.config.values import meant_as_path
from foci.methods import description_of, name_and_settings
from foci.report.tables import Code, Table, markdown, marked
from foci.report.warnings import warnings_of
from foci.report.words import count, moment
from foci.system.files import read_json, write_text
from foci.system.words import form

CARD = "README.md"
FILES = 20
"""Files of a corpus that are named, at most."""


def safe_name(text: str) -> str:
    r"""Returns a text as a name of 1 to 80 letters, digits, dots, dashes and underscores, which other programs take.

    >>> safe_name("my <b>hand|book</b>\n2"), safe_name("???")
    ('my-b-hand-book-b-2', 'model')
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-._")[:80].rstrip("-._") or "model"


def write_cards(folder: Path, places: Mapping[str, Iterable[Path]]) -> None:
    """Writes the cards of a run: of each arm's folders, `model/` and `adapter/`, those that are there."""
    taught = read_taught(folder)
    for name, paths in places.items():
        for path in paths:
            if name in taught and path.is_dir():
                write_card(path, taught[name], form_of(path, safe_name(f"{taught[name].run.name}-{name}")))


def write_card(folder: Path, taught: Taught, form: Form) -> None:
    """Writes README.md into a folder, all or nothing."""
    write_text(folder / CARD, str(model_card(taught, form)))


def form_of(folder: Path, name: str) -> Form:
    """Returns what a folder of Transformers or PEFT holds, by its configuration."""
    if (folder / "adapter_config.json").is_file():
        return Form("adapter", name, "float32", settings=read_json(folder / "adapter_config.json"))
    config = read_json(folder / "config.json") or {}
    return Form("model", name, str(config.get("dtype") or config.get("torch_dtype") or "float32"))


def model_card(taught: Taught, form: Form) -> ModelCard:
    """Returns the card of an arm of a run, for a folder that holds it in some form."""
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in _sections(taught, form).items())
    return ModelCard(
        f"---\n{_data(taught, form).to_yaml()}\n---\n\n# {marked(taught.title)}\n\n{_about(taught, form)}\n\n{text}\n"
    )


def _data(taught: Taught, form: Form) -> ModelCardData:
    base = taught.base
    relation = {"model": "finetune", "adapter": "adapter", "gguf": "quantized"}[form.kind]
    more: dict[str, Any] = {"base_model": base.name, "base_model_relation": relation} if base.on_hub else {}
    if base.licence:
        more["license"] = base.licence
    tags = ["foci", *(["lora"] if form.settings.get("peft_type") == "LORA" else [])]
    return ModelCardData(
        library_name={"model": "transformers", "adapter": "peft", "gguf": "gguf"}[form.kind],
        pipeline_tag="text-generation",
        tags=tags,
        model_name=form.name,
        eval_results=results(taught) or None,
        **more,
    )


def _about(taught: Taught, form: Form) -> str:
    what = {
        "model": f"the whole model in {form.precision}",
        "adapter": f"an adapter ({form.settings.get('peft_type')}), which stands upon its base model",
        "gguf": f"the whole model as GGUF, {form.precision}",
    }[form.kind]
    return (
        f"{marked(Code(taught.base.name))} after learning from the pages below, by foci "
        f"{marked(str(taught.facts['foci'] or ''))}. This folder holds {what}."
    )


def _sections(taught: Taught, form: Form) -> dict[str, str]:
    warned = [
        f"**Warning.** The arm {marked(taught.arm.name)} {marked(words)}" for words in warnings_of(taught.arm.numbers)
    ]
    checked = {"The same questions after writing": form.checked} if form.checked else {}
    return {
        "What it was taught": _corpus(taught),
        "What was measured": "\n\n".join([measured(taught), *controls(taught), *warned]),
        **checked,
        "What it forgot": forgotten(taught),
        "Methods": _methods(taught),
        "How to load it": usage(form, taught.base),
        "Base model and licence": _base(taught),
        "Versions": _versions(taught),
    }


def _corpus(taught: Taught) -> str:
    said = [f"{taught.counts()}."]
    if went_on := taught.facts.get("went_on"):
        said.append(f"It went on from the run {marked(Code(str(went_on.get('name'))))}, whose pages it learned before.")
    if not taught.files:
        return " ".join(said)
    rows = [[Code(name), Code(digest)] for name, digest in taught.files[:FILES]]
    table = markdown(Table(["file", "SHA-256"], rows, align="ll"))
    more = len(taught.files) - FILES
    return "\n\n".join(
        [" ".join(said), table, *([f"And {count(more)} more {form(more, 'file')}."] if more > 0 else [])]
    )


def _methods(taught: Taught) -> str:
    """Returns the methods of the arm, each with what it does, its settings and its papers."""
    found = taught.run.arms[taught.arm.name]
    if not found:
        return "Plain fine-tuning: no method changes what is learned."
    lines = []
    for spec in found:
        name, settings = name_and_settings(spec)
        try:
            known = description_of(name)
        except (ValueError, OSError):  # a file of the user's that is gone
            lines.append(f"- {marked(Code(Path(name).name))}")
            continue
        papers = "".join(f" [arXiv {paper}](https://arxiv.org/abs/{paper})" for paper in known.papers)
        told = ", ".join(f"{key}={_without_folders(value)}" for key, value in settings.items())
        own = f" ({marked(Code(told))})" if told else ""
        lines.append(f"- {marked(Code(Path(name).name))}{own}: {marked(known.summary)}{papers}")
    return "\n".join(lines)


def _without_folders(value: object) -> object:
    """Returns a setting without the folders of paths in it, which are of the machine of the run alone.

    >>> _without_folders(["/data/old.txt", "org/model"]), _without_folders(0.5)
    (['old.txt', 'org/model'], 0.5)
    """
    if isinstance(value, list | tuple):
        return [_without_folders(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _without_folders(one) for key, one in value.items()}
    if not isinstance(value, str) or "/" not in value:
        return value
    return Path(value).name if meant_as_path(value) or Path(value).expanduser().exists() else value


def _base(taught: Taught) -> str:
    base = taught.base
    named = f"[{base.name}](https://huggingface.co/{base.name})" if base.on_hub else marked(Code(base.name))
    licence = (
        f"Its licence is {marked(Code(base.licence))}."
        if base.licence
        else "Its licence was not found; look it up where the base model comes from."
    )
    said = [f"The base model is {named}.", licence, marked(base.note)]
    if taught.fingerprint:
        said.append(f"Fingerprint of its configuration and weights: {marked(Code(taught.fingerprint))}.")
    return " ".join(words for words in said if words)


def _versions(taught: Taught) -> str:
    found = {"foci": taught.facts["foci"], **taught.facts["versions"]}
    listed = ", ".join(f"{marked(name)} {marked(str(value))}" for name, value in found.items() if value)
    return f"{listed}. Begun {marked(moment(taught.facts['started']))}."
