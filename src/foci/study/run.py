"""Runs a study: asks for questions, checks and parts them, asks for rewrites, checks these, writes the suite."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from foci.data.suite import LeftOut
from foci.seeds import drawn
from foci.study.asking import Asking, Tell
from foci.study.checks import Question, Rewrite, question_of, repeats, rewrite_of, without_repeats
from foci.study.cost import estimated
from foci.study.passages import LEAST, Passage, read_passages
from foci.study.prompts import Request, question_on_each, questions_on, rewrite_for
from foci.study.replies import questions_in, rewrite_in
from foci.study.settings import Settings
from foci.study.split import Split, Telling, parted
from foci.study.store import LOOP, opened
from foci.study.write import examples, write_suite
from foci.study.writers import local_writer_of, writer_of
from foci.study.writers.writer import Writer
from foci.system import launch
from foci.system.folder import FolderKind, claim
from foci.system.words import counted

REQUESTS = "requests.jsonl"
KIND = FolderKind("study", marker=REQUESTS)
CUT = {"length": "cut off by the writer's limit", LOOP: "goes round in a loop"}
"""Why a rewrite is dropped, by how its reply ended."""
SMALL = 10**9
"""Parameters below which a writer cannot copy from a passage what it asks about."""


@dataclass(frozen=True)
class Studied:
    """The result of a study: its run file (None where nothing was asked), and how its facts were parted."""

    run: Path | None
    split: Split | None
    rewrites: tuple[Rewrite, ...] = ()


def study(settings: Settings, tell: Tell, *, dry: bool = False) -> Studied:
    """Makes a suite of a corpus; `dry` says the cost alone. Lines for people go to `tell`.

    Replies are kept in the suite's folder, so that the same settings ask nothing twice. Raises ValueError where the
    writer refuses everything or nothing that it wrote passes, ConnectionError where a server answers nothing.

    Processes of a launcher answer as one local writer; the first of them does all else, and the others return nothing.
    """
    if launch.count() == 1:
        return _studied(settings, tell, partial(writer_of, settings), dry=dry)
    if settings.is_server:
        raise ValueError(
            f"the writer {settings.writer} is a server, got {launch.count()} processes (WORLD_SIZE, as torchrun sets "
            "it); start foci study without the launcher: --workers says how many requests the server gets at once"
        )
    from foci.study.writers.shared import with_others  # noqa: PLC0415 - needs torch

    found = with_others(lambda own: _studied(settings, tell, lambda: own, dry=dry), partial(local_writer_of, settings))
    return found or Studied(None, None)


def _studied(settings: Settings, tell: Tell, make_writer: Callable[[], Writer], *, dry: bool) -> Studied:
    """Reads, asks, checks and writes, as `study` says."""
    read = read_passages(settings.corpus, settings.words, settings.text_field)
    tell(read.words())
    chosen = _chosen(read.passages, settings)
    if len(chosen) < sum(passage.words >= LEAST for passage in read.passages):
        tell(f"--limit {settings.limit}: {len(chosen):,} of them are asked about, chosen by the seed")
    writer = None if dry and settings.is_server else make_writer()
    requests = _requests(chosen, settings, writer, tell)
    most = settings.rewrites * len(chosen)
    if dry or writer is None:
        tell(_cost_words(requests, most, settings, chosen))
        return Studied(None, None)
    with claim(settings.folder, KIND), opened(settings.folder / REQUESTS) as store:
        asking = Asking(writer, store, tell)
        if store.damaged:
            tell(
                f"{settings.folder / REQUESTS}: {counted(store.damaged, 'damaged line')}; what they held is asked again"
            )
        if answered := len(requests) - len(waiting := asking.waiting(requests)):
            tell(f"{answered:,} of {counted(len(requests), 'request')} for questions were answered before")
        tell(_cost_words(waiting, max(0, most - store.kinds["rewrite"]), settings, chosen))
        try:
            return _made(settings, asking, read.passages, requests)
        finally:
            tell(f"this run: {counted(asking.cost.requests, 'request')} answered, {asking.cost.words(settings)}")
            if asking.cost.unknown:
                tell(f"  {asking.cost.unknown:,} replies came without a number of tokens")
            if words := asking.left_words():
                tell(words)


def _chosen(passages: Sequence[Passage], settings: Settings) -> list[Passage]:
    """Returns the passages that are asked about, in their order."""
    long = [passage for passage in passages if passage.words >= LEAST]
    kept = {one.id for one in drawn(long, settings.seed, lambda one: f"study/{one.id}")[: settings.limit]}
    return [passage for passage in long if passage.id in kept]


def _requests(
    passages: Sequence[Passage], settings: Settings, writer: Writer | None, tell: Tell
) -> list[Request]:  # fmt: skip
    """Returns the requests for questions: one per passage, or of a small writer one per sentence."""
    size = None if writer is None else writer.size
    by = settings.by or ("sentence" if size is not None and size < SMALL else "passage")
    if by == "passage":
        return [questions_on(passage, settings.questions) for passage in passages]
    if settings.by is None and size is not None:
        tell(
            f"the writer is small ({size / 1e6:,.0f} million parameters), so it is asked about one sentence at a time, "
            f"at most {settings.questions} of a passage; --by passage asks about whole passages"
        )
    return [request for passage in passages for request in question_on_each(passage, settings.questions)]


def _cost_words(waiting: Sequence[Request], most: int, settings: Settings, chosen: Sequence[Passage]) -> str:
    """Says before a run how much will be asked, and what that will cost."""
    words = sum(passage.words for passage in chosen) / len(chosen)
    cost = estimated(waiting, settings, rewrites=most, words=words)
    return (
        f"to ask: {counted(len(waiting), 'request')} for questions and at most {most:,} for rewrites, about "
        f"{cost.words(settings)}"
    )


def _made(settings: Settings, asking: Asking, passages: Sequence[Passage], requests: Sequence[Request]) -> Studied:
    """Asks, checks and writes."""
    left_out, dropped = LeftOut(), Counter[str]()
    questions, written = _questions(asking, requests, dropped)
    split = parted(questions, settings.held_out, settings.seed, dropped) if questions else None
    asking.tell(_kept_words("questions", written, dropped))
    if split is None or not split.asked:
        raise ValueError(_nothing(settings, written, dropped, asking))
    texts, lost = _rewrites(asking, split, settings)
    asking.tell(_kept_words("rewrites", len(texts) + sum(lost.values()), lost))
    for what, counts in (("questions", dropped), ("rewrites", lost)):
        for reason, count in counts.most_common():
            left_out.add(what, reason, count)
    run = write_suite(settings, asking.writer.name, passages, split, texts, left_out)
    for line in _split_words(split, texts):
        asking.tell(line)
    return Studied(run, split, tuple(texts))


def _questions(asking: Asking, requests: Sequence[Request], dropped: Counter[str]) -> tuple[list[Question], int]:
    """Returns the questions that passed, and the number of those that were written; counts the others by reason."""
    replies = asking.ask(requests, "questions")
    found: list[Question] = []
    written = 0
    for request in requests:
        reply = replies.get(asking.key(request))
        if reply is None:
            continue
        items, wrong = questions_in(reply.text, request.evidence)
        written += len(items) + len(wrong)
        dropped.update(wrong)
        for item in items:
            made = question_of(item, request.passage)
            if isinstance(made, str):
                dropped[made] += 1
            else:
                found.append(made)
    return without_repeats(found, dropped), written


def _rewrites(asking: Asking, split: Split, settings: Settings) -> tuple[list[Rewrite], Counter[str]]:
    """Returns the rewrites that passed, and counts of the others; each focuses on a question to learn."""
    by_passage: dict[str, list[Question]] = {}
    for fact in split.learn:
        for one in fact.questions:
            by_passage.setdefault(one.passage.id, []).append(one)
    focus = [one for some in by_passage.values() for one in _spread(some, settings.rewrites)]
    requests = {id(one): rewrite_for(one.passage, one.question, one.answer) for one in focus}
    replies = asking.ask(list(requests.values()), "rewrites")
    found, lost = list[Rewrite](), Counter[str]()
    for one in focus:
        reply = replies.get(asking.key(requests[id(one)]))
        if reply is None:
            continue
        made = CUT.get(reply.finish) or rewrite_of(rewrite_in(reply.text), one)
        if isinstance(made, str):
            lost[made] += 1
        else:
            found.append(made)
    kept = Telling(split.held).without(repeats(found, lost), lost)
    probes = Telling(split.asked)
    spoken = [one for one in kept if not probes.quotes(one.text, one.passage.id)]
    lost["quotes a probe"] += len(kept) - len(spoken)
    return spoken, lost


def _spread(questions: Sequence[Question], count: int) -> list[Question]:
    """Returns `count` of a passage's questions, from its beginning to its end."""
    ordered = sorted(questions, key=lambda one: one.span)
    return [ordered[n * len(ordered) // count] for n in range(count)] if len(ordered) > count else ordered


def _kept_words(noun: str, written: int, dropped: Counter[str]) -> str:
    """Says how many lines were written and kept, and why the others were dropped."""
    lost = sum(dropped.values())
    why = ", ".join(f"{reason} {count:,}" for reason, count in dropped.most_common() if count)
    return f"{noun}: {written:,} written, {written - lost:,} kept" + (f"; dropped: {why}" if why else "")


def _split_words(split: Split, rewrites: Sequence[Rewrite]) -> list[str]:
    """Says how the facts were parted, what is trained on, and shows some probes."""
    facts = len(split.learn) + len(split.held_out)
    return [
        f"facts (questions whose evidence is the same): {facts:,}, {len(split.learn):,} to learn and "
        f"{len(split.held_out):,} held out; no question and no rewrite of a held-out fact is trained on",
        f"study rows: {counted(len(split.studied), 'question')} with answers and {counted(len(rewrites), 'rewrite')}",
        f"probes: {len(split.asked):,} to learn, in words that no row has, and {len(split.held):,} held out",
        *examples(split),
    ]


def _nothing(settings: Settings, written: int, dropped: Counter[str], asking: Asking) -> str:
    """Returns the error of a study in which no question can be asked."""
    why = ", ".join(f"{reason} {count:,}" for reason, count in dropped.most_common(4) if count)
    if not written:
        return f"the writer {settings.writer} answered nothing: {asking.left_words() or 'no request was made'}"
    return (
        f"of {counted(written, 'question')} that the writer {settings.writer} wrote, none can be asked "
        f"({why or 'too few'}); "
        f"name a larger writer, {'' if settings.by == 'sentence' else 'use --by sentence, '}or ask about more passages"
    )
