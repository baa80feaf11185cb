"""Probes (questions with known answers), their kinds, and the file that holds them: JSONL, one probe per line."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from torch import nn
from transformers import PreTrainedTokenizerBase

from foci.errors import shown, suggest
from foci.probes.forced import Forced
from foci.probes.spacing import space_between
from foci.system.registry import members
from foci.system.texts import read_text, why_no_string

Role = Literal["learn", "retain"]
"""`learn`: the corpus teaches it. `retain`: the model should know it still."""

KINDS = "foci.probes.kinds"
"""The folder that holds the kinds of probes."""

KEYS: Mapping[str, type] = {
    "id": str, "role": str, "kind": str, "group": str, "prompt": str, "answer": str, "suffix": str,
    "aliases": list, "text": str, "answer_start": int, "evidence": str, "source": str, "made": str, "held_out": bool,
    "verbatim": bool,
}  # fmt: skip
"""The keys that a line may have, and the types of their values."""

_JSON_NAMES = {str: "a string", list: "a list of strings", int: "an integer", bool: "true or false"}


@dataclass(frozen=True)
class Probe:
    """One question with a known answer.

    `group` holds probes that share a set of answers (a relation, a field); controls compare within it.
    `kind` names a file of `foci.probes.kinds`. `suffix` follows the answer in the text. `aliases` are right answers
    too, where the kind compares words. `verbatim`: prompt, answer and suffix were cut from one text, so that nothing is
    put between them. `held_out`: it is asked to choose a point of training, and has no part in learned and retained.
    `evidence` is the sentence that answers it, `source` where that stands, `made` the rule that made it ("": none).
    Answer and aliases must hold a character that is not white space.
    """

    id: str
    role: Role
    kind: str
    prompt: str
    answer: str
    suffix: str = ""
    group: str = ""
    aliases: tuple[str, ...] = ()
    verbatim: bool = False
    held_out: bool = False
    evidence: str = ""
    source: str = ""
    made: str = ""

    def __post_init__(self) -> None:
        one_of("role", self.role, get_args(Role))
        kind_of(self.kind)
        for answer in (self.answer, *self.aliases):
            if not answer.strip():
                raise ValueError(f"probe {self.id!r}: answer and aliases must hold text, got {answer!r}; give one")

    @property
    def text(self) -> str:
        """The whole text: prompt, a space where one is due, answer, suffix.

        >>> Probe("1", "learn", "cloze", "Bern is in", "Switzerland", ".").text
        'Bern is in Switzerland.'
        """
        return kind_of(self.kind).write(self).text

    @property
    def span(self) -> tuple[int, int]:
        """The characters [start, end) of the answer in `text`."""
        return kind_of(self.kind).write(self).span


class Written(NamedTuple):
    """A probe as text, and the characters [start, end) of the answer in it."""

    text: str
    span: tuple[int, int]


class Verdict(NamedTuple):
    """The judgement of one answer: the words that count as the model's, and whether they are right.

    The other numbers, 0 to 1, are None for kinds whose answers are not generated; `squad_exact_match` and `squad_f1`
    count by SQuAD's rule.
    """

    predicted: str
    correct: bool
    exact_match: float | None = None
    f1: float | None = None
    squad_exact_match: float | None = None
    squad_f1: float | None = None


class Kind(ABC):
    """A kind of probe: how it is written as text, asked and judged.

    Every probe is read once with its answer (teacher forcing), which gives accuracy and nats per token for every kind.
    `generated`: the model's own words (`ask`) are judged, by exact match and F1. `exported`: the lm-evaluation-harness
    can ask it, by teacher forcing and, if generated, as `foci.probes.kinds.qa` does.
    """

    generated: ClassVar[bool] = False
    exported: ClassVar[bool] = False

    @abstractmethod
    def write(self, probe: Probe) -> Written:
        """Returns the text that the model reads, and where the answer stands in it."""

    def ask(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        probes: Sequence[Probe],
        batch_size: int,
        max_new_tokens: int | None,
    ) -> list[str | None]:
        """Returns the model's own words for each probe; None where a kind asks for none.

        `max_new_tokens` limits generation; None = as many as the kind chooses. Called under `answering`.
        """
        return [None] * len(probes)

    @abstractmethod
    def judge(self, probe: Probe, forced: Forced, said: str | None, tokenizer: PreTrainedTokenizerBase) -> Verdict:
        """Judges one answer from the model's first choices (`forced`) and its own words (`said`)."""


def kind_of(name: str) -> Kind:
    """Returns the kind of this name. Raises ValueError with the nearest right name where there is none."""
    known = kinds()
    one_of("kind", name, tuple(known))
    return known[name]


def kinds() -> Mapping[str, Kind]:
    """Returns every kind by its name, in alphabetical order."""
    return members(KINDS, Kind)  # type: ignore[type-abstract]


def joined(probe: Probe, space: str = "") -> Written:
    """Puts prompt, `space`, answer and suffix together."""
    start = len(probe.prompt) + len(space)
    return Written(probe.prompt + space + probe.answer + probe.suffix, (start, start + len(probe.answer)))


def spaced(probe: Probe) -> Written:
    """Puts prompt, answer and suffix together, with a space before the answer where one is due (`space_between`).

    No space is put after an empty prompt or in a verbatim probe.
    """
    bare = probe.verbatim or not probe.prompt
    return joined(probe, "" if bare else space_between(probe.prompt, probe.answer))


def first_choices(forced: Forced, tokenizer: PreTrainedTokenizerBase) -> Verdict:
    """Judges by the model's first choices: right where each is the answer's token."""
    return Verdict(tokenizer.decode(forced.chosen).strip(), forced.truth == forced.chosen)


def one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raises `ValueError` with the nearest right name where `value` is not in `known`."""
    if value not in known:
        nearest = suggest(str(value), known)
        cure = f"did you mean {nearest!r}?" if nearest else "use one of these"
        raise ValueError(f"unknown {what} {value!r}, expected one of {', '.join(known)}; {cure}")


def read_probes(path: str | Path, role: Role | None = None) -> list[Probe]:
    """Reads a JSONL file of probes, UTF-8 with or without a byte-order mark; blank lines are skipped.

    `role` is the role of lines that have none; a line of the other role is refused, so that a mixed file is
    never counted on one side. A line without `id` is called "<file stem>:<line>". Every problem is a
    `ValueError` that begins with file:line and says what was expected, what was got, and the cure.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no probe file {path}; give the path of a JSONL file with one probe a line")
    lines = read_text(path, "probe file").split("\n")
    probes: list[Probe] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            probe = parse_probe(line, role, default_id=f"{path.stem}:{number}")
            _check_new(probe.id, seen)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        seen[probe.id] = number
        probes.append(probe)
    if not probes:
        raise ValueError(f"{path}: expected at least one probe, got an empty file; write one JSON object a line")
    return probes


def _check_new(name: str, seen: Mapping[str, int]) -> None:
    if name in seen:
        raise ValueError(f"id {name!r} stands in line {seen[name]} too; give every probe its own id")


def parse_probe(line: str, role: Role | None = None, default_id: str = "") -> Probe:
    """One probe from one line of JSON; see `read_probes`. Raises `ValueError` without the place."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"broken JSON ({error}), got {line[:60]!r}; write one object a line") from None
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, got {line[:60]!r}; write one object a line")  # noqa: TRY004 - the file's fault
    record = {key: value for key, value in record.items() if value is not None}
    _check_types(record)
    for key in ("kind", "answer"):
        if key not in record:
            raise ValueError(f"no key {key!r}, got only {', '.join(record) or 'none'}; add it")
    kind_of(record["kind"])
    prompt, suffix = _around(record)
    return Probe(
        id=record.get("id", default_id),
        role=_role(record.get("role"), role),
        kind=record["kind"],
        prompt=prompt,
        answer=record["answer"],
        suffix=suffix,
        group=record.get("group", ""),
        aliases=tuple(record.get("aliases", ())),
        verbatim=record.get("verbatim", "text" in record),
        **{key: record[key] for key in ("held_out", "evidence", "source", "made") if key in record},
    )


def line_of(probe: Probe) -> dict[str, Any]:
    """Returns a probe as a line of a probe file, without what is empty. `read_probes` gives the same probe back."""
    line: dict[str, Any] = {"id": probe.id, "role": probe.role, "kind": probe.kind, "group": probe.group}
    if probe.verbatim:
        line |= {"text": probe.text, "answer": probe.answer, "answer_start": probe.span[0]}
    else:
        line |= {"prompt": probe.prompt, "answer": probe.answer, "suffix": probe.suffix}
    line |= {"aliases": list(probe.aliases), "made": probe.made, "held_out": probe.held_out}
    line |= {"evidence": probe.evidence, "source": probe.source}
    return {key: value for key, value in line.items() if value or key in ("prompt", "answer_start")}


def _check_types(record: Mapping[str, object]) -> None:
    for key, value in record.items():
        one_of("key", key, tuple(KEYS))
        right = isinstance(value, KEYS[key]) and isinstance(value, bool) == (KEYS[key] is bool)
        if isinstance(value, list):
            right = right and all(isinstance(item, str) for item in value)
        if not right:
            raise ValueError(f"{key!r} must be {_JSON_NAMES[KEYS[key]]}, got {value!r:.80}; write it so")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and (reason := why_no_string(text)) is not None:
                raise ValueError(f"{key!r} is {reason}, got {shown(text)}; correct it")


def _role(stated: str | None, given: Role | None) -> Role:
    if stated is not None:
        one_of("role", stated, get_args(Role))
    if stated is None and given is None:
        raise ValueError("no role, expected learn or retain; add the key 'role' to each probe")
    if stated is not None and given is not None and stated != given:
        raise ValueError(
            f"role {stated!r} in a file that is read as {given!r} probes; split the file by role or drop the key"
        )
    return stated or given  # type: ignore[return-value]


def _around(record: Mapping[str, Any]) -> tuple[str, str]:
    """Prompt and suffix of a record, cut from its text where it has one."""
    answer = record["answer"]
    if "text" not in record:
        if "prompt" not in record:
            raise ValueError("neither 'prompt' nor 'text'; give the words before the answer, or the whole text")
        if "answer_start" in record:
            raise ValueError("'answer_start' goes with 'text', got 'prompt'; drop it or give 'text'")
        return record["prompt"], record.get("suffix", "")
    if "verbatim" in record:
        raise ValueError("'verbatim' goes with 'prompt', and a 'text' is verbatim as it is; drop it")
    if both := {"prompt", "suffix"} & record.keys():
        raise ValueError(f"'text' and {', '.join(sorted(both))!r} exclude each other; drop one of them")
    text = record["text"]
    if not answer.strip():
        raise ValueError(f"the answer must hold text, got {answer!r}; give one")
    if answer not in text:
        raise ValueError(f"the answer {answer!r} is not in the text {text[:80]!r}; correct one of them")
    start = record.get("answer_start")
    if start is None:
        start = text.index(answer)
        if (second := text.find(answer, start + 1)) >= 0:
            raise ValueError(
                f"the answer {answer!r} stands at characters {start} and {second} of the text; give 'answer_start'"
            )
    if start < 0 or text[start : start + len(answer)] != answer:
        got = text[max(start, 0) : max(start, 0) + len(answer)]
        raise ValueError(f"answer_start {start} points at {got!r}, expected {answer!r}; correct the offset")
    return text[:start], text[start + len(answer) :]
