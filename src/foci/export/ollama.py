"""Writes the Modelfile by which Ollama makes a model of a GGUF file.

Ollama does not read Jinja. Where a chat template writes each message between a fixed beginning and a fixed end, the
same is written as a Go template, from what the template itself renders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from foci.export.source import Source
from foci.models.loading import load_tokenizer
from foci.system.files import read_json

_SYSTEM, _USER, _ANSWER, _NEXT = "System7q", "User7q", "Answer7q", "Next7q"
"""Messages by which a template shows what it writes around them."""
COMPLETES = "the model has no chat template, so it completes the text that it is given"
UNKNOWN = (
    "the chat template of the model cannot be written as one of Ollama's; Ollama looks whether it knows it itself, "
    "else write TEMPLATE here"
)


@dataclass(frozen=True)
class Layout:
    """The fixed texts of a chat template: what stands before and after each role's message, and before an answer.

    `default` is the system message that the template writes where none is given; "" for none.
    """

    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    ask: str
    default: str


def write_modelfile(source: Source, gguf: Path) -> str:
    """Writes a Modelfile beside a GGUF file; returns a note for people, "" where there is none."""
    tokenizer = load_tokenizer(source.run.model.name, trust_remote_code=source.trust)
    content, note = modelfile(gguf.name, tokenizer, _ends(source.base_folder(), tokenizer))
    (gguf.parent / "Modelfile").write_text(content, "utf-8")
    return note


def _ends(base: Path, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Returns the tokens that end an answer, by the tokenizer, the configuration and the settings of generation."""
    found = [tokenizer.eos_token_id]
    for name in ("config.json", "generation_config.json"):
        ids = (read_json(base / name) or {}).get("eos_token_id")
        found += ids if isinstance(ids, list) else [ids]
    return [str(tokenizer.convert_ids_to_tokens(one)) for one in dict.fromkeys(found) if isinstance(one, int)]


def modelfile(gguf: str, tokenizer: PreTrainedTokenizerBase, ends: Sequence[str]) -> tuple[str, str]:
    """Returns the content of a Modelfile beside a GGUF file, and a note for people; "" where there is none.

    `ends` are tokens at which an answer ends.
    """
    head = ["# ollama create NAME -f Modelfile; ollama run NAME", f"FROM ./{gguf}", "PARAMETER temperature 0"]
    stops = [f'PARAMETER stop "{token}"' for token in ends if not set('"\n') & set(token)]
    layout = layout_of(tokenizer)
    if layout is not None:
        system = [f'SYSTEM """{layout.default}"""'] if layout.default else []
        return "\n".join([*head, *stops, *system, f'TEMPLATE """{go_template(layout)}"""', ""]), ""
    if getattr(tokenizer, "chat_template", None):
        return "\n".join([*head, *stops, f"# {UNKNOWN}.", ""]), UNKNOWN
    return "\n".join([*head, *stops, f"# {COMPLETES}.", 'TEMPLATE """{{ .Prompt }}"""', ""]), COMPLETES


def go_template(layout: Layout) -> str:
    """Returns a layout as a template of Ollama."""
    (sys_a, sys_b), (user_a, user_b), (say_a, say_b) = layout.system, layout.user, layout.assistant
    return (
        f"{{{{ if .System }}}}{sys_a}{{{{ .System }}}}{sys_b}{{{{ end }}}}"
        f'{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{user_a}{{{{ .Content }}}}{user_b}'
        f'{{{{ else if eq .Role "assistant" }}}}{say_a}{{{{ .Content }}}}{say_b}{{{{ end }}}}{{{{ end }}}}{layout.ask}'
    )


def layout_of(tokenizer: PreTrainedTokenizerBase) -> Layout | None:
    """Returns the layout of a tokenizer's chat template; None where it has none, or one that is not of this form."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        made, first = _layout(tokenizer)
    except (ValueError, IndexError, TypeError, KeyError, TemplateError):  # it refuses such messages, or moves them
        return None
    sys_a, sys_b = made.system
    whole = (sys_a + made.default + sys_b if made.default else "") == first
    pieces = [*made.system, *made.user, *made.assistant, made.ask, made.default]
    odd = any(mark in piece for piece in pieces for mark in ("{{", "}}", '"""'))
    return made if whole and not odd else None


def _layout(tokenizer: PreTrainedTokenizerBase) -> tuple[Layout, str]:
    """Returns the layout of a template, and what it writes before the first message where no system message is given.

    Raises ValueError where messages do not stand between fixed texts.
    """
    user, answer = {"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}
    talk = [user, answer, {"role": "user", "content": _NEXT}]
    plain, asked = _rendered(tokenizer, talk, ask=False), _rendered(tokenizer, talk, ask=True)
    told = _rendered(tokenizer, [{"role": "system", "content": _SYSTEM}, *talk], ask=True)
    head, rest = asked.split(_USER)
    between, tail = rest.split(_ANSWER)
    after, end = tail.split(_NEXT)
    user_b = plain.split(_NEXT)[1]
    say_b = _rendered(tokenizer, [user, answer], ask=False).split(_ANSWER)[1]
    say_a, ask, user_a = _minus(between, user_b), _minus(end, user_b), _minus(after, say_b)
    sys_a, sys_rest = told.split(_USER)[0].split(_SYSTEM)
    first, sys_b = _without(head, user_a), _without(sys_rest, user_a)
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    start = str(tokenizer.bos_token) if begins else ""  # llama.cpp writes it itself, as the tokenizer does
    first, sys_a = first.removeprefix(start), sys_a.removeprefix(start)
    default = first.removeprefix(sys_a).removesuffix(sys_b) if sys_a and first.startswith(sys_a) else ""
    return Layout((sys_a, sys_b), (user_a, user_b), (say_a, say_b), ask, default), first


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, ask: bool) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))


def _minus(text: str, start: str) -> str:
    """Returns the text after `start`. Raises ValueError where it does not begin so."""
    if not text.startswith(start):
        raise ValueError(f"expected a text that begins with {start!r}, got {text!r}; the template has another form")
    return text.removeprefix(start)


def _without(text: str, end: str) -> str:
    """Returns the text before `end`. Raises ValueError where it does not end so."""
    if not text.endswith(end):
        raise ValueError(f"expected a text that ends with {end!r}, got {text!r}; the template has another form")
    return text.removesuffix(end)
