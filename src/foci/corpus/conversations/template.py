"""Writes conversations with a model's chat template, and finds the answers in what it wrote.

A control word in a message (`<|im_end|>`) must not become a control token. So before a template is asked, a code point
that no text has is put into each such word of a message: what is whole afterwards was written by the template.

An answer is what the model would write after the prompt: where the template marks it (`{% generation %}`), that; else
what follows the rendering of the messages before it, with the template's own beginning of an answer, up to and with the
word that ends a turn.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from foci.corpus.conversations.samples import Unusable
from foci.corpus.plain import control_words
from foci.corpus.split import Span

BREAK = "\U0010fffe"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
CURE = (
    "mark the answers in it with {% generation %} ... {% endgeneration %} and name that file as corpus.chat_template, "
    "or give 'prompt' and 'completion' as texts"
)

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Written:
    """A rendered conversation: its text, in which control words of messages are broken, and what is learned of it.

    `spans` are characters [start, end) of the text with the message that they belong to.
    """

    text: str
    spans: tuple[tuple[Span, int], ...]


@dataclass(frozen=True)
class Template:
    """A chat template and the tokenizer whose control words it writes."""

    tokenizer: PreTrainedTokenizerBase
    source: str

    @cached_property
    def words(self) -> dict[str, int]:
        """The ids of the control words, by word."""
        return control_words(self.tokenizer)

    @cached_property
    def marked(self) -> bool:
        """Whether the template marks the answers."""
        return bool(_GENERATION.search(self.source))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Finds the control words."""
        return alternatives(self.words)

    @cached_property
    def _own(self) -> re.Pattern[str]:
        """The words that no message may write: all but those that a model writes itself, such as `<think>`."""
        return alternatives({word for word in self.words if self._ends_turns(word)})

    def _ends_turns(self, word: str) -> bool:
        special = self.tokenizer.added_tokens_decoder[self.words[word]].special
        return special or re.fullmatch(r"<[|｜].+[|｜]>", word) is not None  # noqa: RUF001

    def safe(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a message as the template is given it: its control words broken, its role one that it knows.

        In an answer the words that a model writes itself (`<think>`) stay whole: many templates look for them.
        """
        pattern = self._own if message["role"] == "assistant" else self.pattern
        made = {key: _broken(value, pattern) for key, value in message.items()}
        if made["role"] == "developer" and "developer" not in self.source:
            made["role"] = "system"
        return made

    def render(self, messages: Messages, tools: Messages = (), *, prompt: bool = False) -> str:
        """Returns the text of messages; `prompt` adds the beginning of an answer.

        Raises Unusable where the template refuses them, ValueError where it is no Jinja template.
        """
        return self._render(messages, tools, prompt=prompt)[0]

    def _render(self, messages: Messages, tools: Messages, *, prompt: bool = False) -> tuple[str, list[Span]]:
        try:
            texts, marks = render_jinja_template(
                [list(messages)],
                tools=list(tools) or None,
                chat_template=self.source,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=self.marked,
                **self.tokenizer.special_tokens_map,
            )
        except TemplateSyntaxError as error:
            raise ValueError(
                f"the chat template has an error in line {error.lineno} ({error.message}); correct the file that "
                "corpus.chat_template names, or the model's own template"
            ) from None
        except TemplateError as error:
            said = str(error).strip() or type(error).__name__
            raise Unusable(f"the model's chat template refuses it: {said[:200]!r}; change the messages so") from None
        except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
            raise Unusable(f"the model's chat template cannot read it ({type(error).__name__}: {error})") from None
        return texts[0], list(marks[0]) if marks else []

    def whole(self, messages: Messages, tools: Messages) -> Written:
        """Returns all messages, every character learned."""
        text = self.render(messages, tools)
        return Written(text, (((0, len(text)), len(messages) - 1),))

    def answers(self, messages: Messages, weights: Sequence[float], tools: Messages) -> list[Written]:
        """Returns rows that hold each answer of a weight above 0 once, as the model would write it at its place.

        Most templates give one row. An answer that the template writes otherwise once the conversation goes on (its
        reasoning is dropped) has a row of its own, which ends with it. Raises Unusable where an answer is not found.
        """
        left = [n for n, weight in enumerate(weights) if weight]
        if self.marked:
            return [self._by_marks(messages, left, tools)]
        asked = {n: self._last(messages[: n + 1], tools) for n in left}
        made = []
        while left:
            text = asked[left[-1]][0]
            here = [n for n in left if text.startswith(asked[n][0][: asked[n][1][1]])]
            made.append(Written(text, tuple((asked[n][1], n) for n in here)))
            left = [n for n in left if n not in here]
        return made[::-1]

    def _by_marks(self, messages: Messages, learned: Sequence[int], tools: Messages) -> Written:
        text, spans = self._render(messages[: learned[-1] + 1], tools)
        answers = [n for n, message in enumerate(messages[: learned[-1] + 1]) if message["role"] == "assistant"]
        spans = [(start, end) for start, end in spans if end > start]
        if not spans:
            raise Unusable("the model's chat template marks no answer in it ({% generation %}); " + CURE)
        if len(spans) == len(answers):
            return Written(text, tuple((span, n) for span, n in zip(spans, answers, strict=True) if n in learned))
        if list(learned) != answers:
            raise Unusable(
                f"the model's chat template marks {len(spans)} parts in {len(answers)} answers, of which "
                f"{len(learned)} are to be learned: foci cannot tell which; give answers the same weight"
            )
        return Written(text, tuple((span, answers[-1]) for span in spans))

    def _last(self, messages: Messages, tools: Messages) -> tuple[str, Span]:
        """Returns the messages' text, and the characters of the last one, which is an answer."""
        text = self.render(messages, tools)
        before = self.render(messages[:-1], tools, prompt=True)
        number = len(messages)
        if not text.startswith(before):
            raise Unusable(
                f"message {number} (assistant): the model's chat template asks for this answer with "
                f"{before[-40:].replace(BREAK, '')!r} and writes something else before it, so it does not show where "
                f"the answer begins; {CURE}"
            )
        start, content = len(before), str(messages[-1].get("content", "")).strip()
        at = text.find(content, start) if content else -1
        if at > start and text[start:at].strip() and before == self.render(messages[:-1], tools):
            start = at  # the template has no beginning of an answer, so what stands before the content is no answer
        end = self._turn_end(text, start, last="tool_calls" in messages[-1])
        if end <= start:
            raise Unusable(f"message {number} (assistant): the model's chat template leaves this answer out; {CURE}")
        return text, (start, end)

    def _turn_end(self, text: str, start: int, *, last: bool) -> int:
        """Returns where the turn ends: behind the first control word (or the `last`) after the answer's text."""
        words = [word for word in self.words if self._ends_turns(word)]
        ends, at = list[int](), len(text.rstrip())
        while found := max((word for word in words if text.endswith(word, start, at)), key=len, default=""):
            ends.append(at)
            at = len(text[: at - len(found)].rstrip())
        if not ends:
            return len(text)
        return ends[0] if last else ends[-1]


def alternatives(words: Mapping[str, Any] | set[str]) -> re.Pattern[str]:
    """Returns a pattern that finds any of the words, the longest first; none where there are no words."""
    ordered = sorted(words, key=lambda word: (-len(word), word))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def _broken(value: Any, pattern: re.Pattern[str]) -> Any:
    """Returns a value with a `BREAK` behind the first character of each word, in its strings at any depth."""
    if isinstance(value, str):
        return pattern.sub(lambda match: match[0][0] + BREAK + match[0][1:], value)
    if isinstance(value, Mapping):
        return {key: _broken(one, pattern) for key, one in value.items()}
    return [_broken(one, pattern) for one in value] if isinstance(value, list | tuple) else value


def template_of(tokenizer: PreTrainedTokenizerBase, first: str) -> Template:
    """Returns the model's chat template. Raises ValueError where it has none; `first` names a conversation."""
    try:
        source = tokenizer.get_chat_template()
    except ValueError:
        source = None
    if not source:
        raise ValueError(
            f"corpus {first} holds a conversation, and the model has no chat template, which says how one is written. "
            "Name a template file (corpus.chat_template=FILE.jinja), train a model that has one, or give plain texts: "
            "'text', or 'prompt' and 'completion'"
        )
    return Template(tokenizer, source)
