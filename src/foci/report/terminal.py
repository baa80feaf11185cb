"""The table of a run, before and after training: on the terminal and in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from foci.report import tables
from foci.report.batches import MOST, NOTE, batch_table, batches_of
from foci.report.warnings import warnings_of
from foci.report.words import Pair, count, decimal, number, percent

ASCII = {ord("→"): "->", ord("\N{EN DASH}"): "-", ord("\N{NARROW NO-BREAK SPACE}"): ","}
"""Replacements for the table's characters on a console that cannot show them."""
NO_QUESTIONS = (
    "What was learned was not asked, because there are no probes to learn. Write questions with answers, one JSON "
    'object a line, such as {"kind": "cloze", "prompt": "The capital of Wales is", "answer": "Cardiff"}, and name '
    "the file: probes.learn=FILE.jsonl. Until then bits per byte of your text say how well the model predicts it."
)

Arms = Mapping[str, Mapping[str, Any]]


def print_table(summary: Mapping[str, Any], console: Console) -> None:
    """Prints one line per arm, before -> after, in 80 columns; plain text where the console is not a terminal.

    Columns that a narrow terminal has no room for are left out, the least needed first. What is wrong with an arm
    follows.
    """
    ascii_only = not console.encoding.lower().startswith("utf")

    def shown(words: str) -> str:
        return words.translate(ASCII) if ascii_only else words

    arms = _arms(summary)
    columns = _columns(arms)
    while True:
        heads = ["arm\n", *(column.head for column in columns)]
        rows = [[str(name), *(column.cell(arm).replace(" ", "") for column in columns)] for name, arm in arms.items()]
        table = tables.terminal(tables.Table(heads, [[shown(cell) for cell in row] for row in rows]), fold=6)
        least = min(columns, key=lambda column: column.rank)
        if (
            len(columns) <= 3
            or Measurement.get(console, console.options.update(width=1000), table).maximum <= console.width
        ):
            break
        columns.remove(least)
    table.columns[0].style = "bold"
    console.print(table)
    console.print(Text(shown(_caption(arms, summary.get("continues") or {})), style="dim"))
    for name, arm in arms.items():
        if wrong := arm.get("not_learned"):
            each = "; ".join(f"{count(many)} {reason}" for reason, many in wrong.items())
            console.print(Text(shown(f"not learned, {name}: {each}."), style="dim"))
    if not _asked(arms, "learned"):
        console.print(Text.assemble(("\nnote: ", "bold"), shown(NO_QUESTIONS)))
    for name, arm in arms.items():
        if (found := batches_of(arm)) is not None:
            of = f", {name}" if len(arms) > 1 else ""
            small = batch_table(found, MOST)
            rows = [[shown(cell) for cell in row] for row in small.rows]
            console.print(Text(f"\nbatches of pages{of}", style="bold"))
            console.print(tables.terminal(tables.Table(small.heads, rows), fold=10))
            console.print(Text(shown(NOTE), style="dim"))
    for name, arm in arms.items():
        for warning in warnings_of(arm):
            console.print(Text.assemble(("\nwarning: ", "bold yellow"), shown(f"{name} {warning}")))


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Returns the same table in Markdown, one line per arm."""
    arms = _arms(summary)
    columns = _columns(arms)
    heads = ["arm", *(_on_one_line(column.head) for column in columns)]
    rows = [[str(name), *(column.cell(arm) for column in columns)] for name, arm in arms.items()]
    return tables.markdown(tables.Table(heads, rows)) + "\n"


def _arms(summary: Mapping[str, Any]) -> Arms:
    arms = summary.get("arms")
    if not isinstance(arms, Mapping) or not arms:
        raise ValueError(f"a summary needs 'arms' with at least one arm, got {arms!r}; give the summary.json of a run")
    return arms


class Column(NamedTuple):
    """A column: its head, the key of an arm that it shows, how much it is needed, and what gives an arm's cell."""

    head: str
    key: str
    rank: int
    cell: Callable[[Mapping[str, Any]], str]


def _columns(arms: Arms) -> list[Column]:
    """Returns the columns that at least one arm has."""
    wanted = [
        Column("learned\n%", "learned_whole", 9, lambda arm: _shares(arm.get("learned_whole"))),
        Column("retained\n%", "retained_whole", 8, lambda arm: _shares(arm.get("retained_whole"))),
        Column("learned\ntokens", "learned", 5, lambda arm: _shares(arm.get("learned"))),
        Column("retained\ntokens", "retained", 1, lambda arm: _shares(arm.get("retained"))),
        Column("bits per\nbyte", "bits_per_byte", 6, lambda arm: _bits(arm.get("bits_per_byte"))),
        Column("steps", "steps", 3, lambda arm: count(arm.get("steps"))),
        Column("sec.", "seconds", 2, _seconds),
    ]
    if not _asked(arms, "learned"):
        of_text = Column(
            "your text,\nbits/byte", "corpus_bits_per_byte", 9, lambda arm: _bits(arm.get("corpus_bits_per_byte"))
        )
        wanted = [of_text, *wanted]
    shown = {"steps", "seconds", "retained_whole" if _any_to_retain(arms) else ""}
    return [column for column in wanted if column.key in shown or _asked(arms, column.key)]


def _on_one_line(head: str) -> str:
    """Returns a head on one line, with its unit."""
    return f"{head.replace(chr(10), ' ')}, %" if "tokens" in head else head.replace("\n", ", " if "%" in head else " ")


def _asked(arms: Arms, key: str) -> bool:
    """Returns whether at least one arm has a number of this name, before or after."""
    return any(number(value) is not None for arm in arms.values() for value in _values(arm.get(key)))


def _any_to_retain(arms: Arms) -> bool:
    """Returns whether probes to retain were asked, even where the untouched model answers none of them."""
    return any(number(arm.get("retain_asked")) for arm in arms.values())


def _values(pair: Any) -> Sequence[Any]:
    return list(pair.values()) if isinstance(pair, Mapping) else [pair]


def _shares(pair: Pair | None) -> str:
    pair = pair or {}
    return f"{percent(pair.get('before'))} → {percent(pair.get('after'))}"


def _bits(pair: Pair | None) -> str:
    pair = pair or {}
    return f"{decimal(pair.get('before'))} → {decimal(pair.get('after'))}"


def _seconds(arm: Mapping[str, Any]) -> str:
    seconds = number(arm.get("seconds"))
    return decimal(seconds, 1 if seconds is not None and seconds < 10 else 0)


def _caption(arms: Arms, went_on: Mapping[str, Any]) -> str:
    """Says in words what the columns are."""
    arm = next(iter(arms.values()))
    learn, known, asked = (count(arm.get(k)) for k in ("learn_probes", "retained_probes", "retain_asked"))
    majority = (arm.get("controls") or {}).get("majority")
    said = ["before → after."]
    if _asked(arms, "learned"):
        said.append(f"learned: whole answers that are right, of {learn} probes to learn.")
    if _asked(arms, "retained") or _any_to_retain(arms):
        who = f"the model of {went_on['name']}" if went_on else "the untouched model"
        said.append(f"retained: the same, of the {known} of {asked} probes to retain that {who} answers.")
    if _asked(arms, "learned") or _asked(arms, "retained"):
        said.append("tokens: answer tokens predicted, in %, given the true words before them.")
    if held := {name: arm["held_out"] for name, arm in arms.items() if arm.get("held_out")}:
        each = ", ".join(f"{name} {_shares(found.get('learned_whole'))} %" for name, found in held.items())
        asked_of = count(next(iter(held.values())).get("learn_probes"))
        said.append(f"Of {asked_of} more that are held out (no method makes a row of their sentences): {each}.")
    if number(majority) is not None:
        said.append(f"Always giving the commonest answer would be right for {percent(majority)} % of those to learn.")
    if _asked(arms, "bits_per_byte"):
        said.append("bits per byte: of general text; lower is better.")
    return " ".join(said)
