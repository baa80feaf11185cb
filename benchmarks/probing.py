"""Probing SmolLM2: LAMA facts one by one, what `foci learn` asks row by row, and the lm-evaluation-harness.

The facts are those of LAMA-ckl where its published files are (../shared/data/lama_ckl beside the repository), else
foci's own general facts; the row says which. `foci learn` asks the questions of `make demo`: 80 about made-up people,
375 general facts, `binding`, and two texts.
"""

import importlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.side_by_side import Allowance, Result, in_turns
from foci import models
from foci.corpus import read_corpus
from foci.data import lama_ckl
from foci.data.biographies import Biographies, Document, generate
from foci.data.suite import LeftOut
from foci.focus import Row
from foci.learn.questions import Questions, random_rows, rows_bits_per_byte
from foci.models.forward import answering, buckets, device_of, pad_id, padded
from foci.models.losses import token_nll
from foci.probes import Probe, answer, bits_per_byte, general, kind_of, read_probes
from foci.probes.binding import pairs_of, share
from foci.probes.encode import encode
from foci.probes.export import export_lm_eval
from foci.probes.probe import parse_probe

GOAL = 0.5
PROBES, HARNESS, QUICK = 100, 60, 40
PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "lama_ckl"
TOLERANCE = 1e-3
"""Nats per token between two orders of float32 sums."""


@dataclass(frozen=True)
class Said:
    """Returns a model's first choices as text, the share of them that are right, and mean nats per answer token."""

    predicted: str
    accuracy: float
    nll: float


def run(allowed: Allowance) -> list[Result]:
    """Raises AssertionError unless all ways give the same answers."""
    loaded = models.load("smollm2-135m")
    return [alone(loaded, allowed), learning(loaded, allowed.part(0.5)), harness(loaded, allowed.part(0.25))]


def alone(loaded: models.Loaded, allowed: Allowance) -> Result:
    """LAMA facts, beside one forward pass each."""
    known, name = facts()
    probes = spread(known, min(QUICK if allowed.quick else PROBES, len(known)))
    said: dict[str, list[Said]] = {}

    def ours() -> None:
        made = answer(loaded.model, loaded.tokenizer, probes)
        said["foci"] = [Said(a.predicted, a.accuracy, a.nll) for a in made]

    def theirs() -> None:
        said["rival"] = one_by_one(loaded.model, loaded.tokenizer, probes)

    spent = in_turns({"foci": ours, "rival": theirs}, 3, allowed.part(0.2), warmup=0)
    worst = assert_same(said["foci"], said["rival"])
    note = f"the same first choices; NLL within {worst:.0e} nats"
    what = f"probing, {len(probes)} {name}, SmolLM2-135M, float32"
    return Result.timed(what, spent["foci"], spent["rival"], rival="one by one, all logits", goal=GOAL, note=note)


def learning(loaded: models.Loaded, allowed: Allowance) -> Result:
    """What a run of `foci learn` asks each time, beside every row read on its own in batches of like length."""
    documents, probes = demo()
    if allowed.quick:
        probes = spread(probes, 2 * QUICK)
    rows = rows_of(loaded, documents)
    asked = Questions(tuple(probes), general.general_text(), random_rows(rows, 0))
    found: dict[str, Any] = {}

    def ours() -> None:
        found["foci"] = asked.ask(loaded.model, loaded.tokenizer)

    def theirs() -> None:
        found["rival"] = row_by_row(loaded, asked)

    spent = in_turns({"foci": ours, "rival": theirs}, 3, allowed, warmup=0)
    (answers, texts), (nll, before) = found["foci"], found["rival"]
    worst = max(abs(a.nll - n) for a, n in zip(answers, nll, strict=True))
    assert worst <= TOLERANCE, f"NLL differ by {worst} nats, expected at most {TOLERANCE}"
    assert texts["binding"] == before["binding"], f"binding is {texts['binding']} and {before['binding']}"
    off = max(abs(texts[name] - before[name]) for name in before)
    note = f"NLL within {worst:.0e} nats, bits per byte within {off:.0e}"
    what = f"asking {len(probes)} probes, binding and two texts, SmolLM2-135M"
    return Result.timed(what, spent["foci"], spent["rival"], rival="rows apart, float32", goal=0.4, note=note)


def demo() -> tuple[list[Document], list[Probe]]:
    """The corpus of `make demo`, and its probes to learn and to retain."""
    documents, lines = generate(Biographies(people=8, texts=6, names="always", asides=5))
    learn = [parse_probe(json.dumps(line)) for line in lines]
    return documents, [*learn, *read_probes(general.general_facts_path(), "retain")]


def rows_of(loaded: models.Loaded, documents: Sequence[Document]) -> list[Row]:
    """The documents as rows of at most 256 tokens."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.jsonl"
        path.write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
        return list(read_corpus(path, loaded.tokenizer, max_length=256).rows)


def row_by_row(loaded: models.Loaded, asked: Questions) -> tuple[list[float], dict[str, float]]:
    """Mean NLL of every answer, and the further measures, as foci computed them before it shared anything."""
    model, tokenizer = loaded.model, loaded.tokenizer
    learn = [probe for probe in asked.probes if probe.role == "learn"]
    pairs = pairs_of(learn)
    swapped = {(p.id, a): replace(p, answer=a, aliases=()) for one, other in pairs for p in (one, other)
               for a in (one.answer, other.answer)}  # fmt: skip
    nll = [sum(line) / len(line) for line in forced(loaded, asked.probes)]
    qa = [probe for probe in asked.probes if probe.kind == "qa"]
    bits = {}
    with answering(model, torch.float32):
        kind_of("qa").ask(model, tokenizer, qa, 32, None)
    if asked.text is not None:
        bits["bits_per_byte"] = bits_per_byte(model, tokenizer, asked.text)
    bits["corpus_bits_per_byte"] = rows_bits_per_byte(model, tokenizer, asked.rows)
    scores = {key: -sum(line) for key, line in zip(swapped, forced(loaded, list(swapped.values())), strict=True)}
    return nll, {**bits, "binding": share(pairs, scores)}


def forced(loaded: models.Loaded, probes: Sequence[Probe]) -> list[list[float]]:
    """The NLL of every answer token, each probe in a row of its own, in batches of like length."""
    rows, found = encode(probes, loaded.tokenizer), dict[int, list[float]]()
    with answering(loaded.model, torch.float32):
        for indices in buckets([len(row) for row in rows], 32):
            batch = padded([rows[n] for n in indices], pad_id(loaded.tokenizer), "right", device_of(loaded.model))
            wanted = batch.predicted() & (batch.columns["answer"] > 0)
            nll = token_nll(loaded.model, batch, wanted)
            found |= {n: line[where].tolist() for n, line, where in zip(indices, nll, wanted, strict=True)}
    return [found[n] for n in range(len(rows))]


def harness(loaded: models.Loaded, allowed: Allowance) -> Result:
    """The same exported tasks by the lm-evaluation-harness, if it is installed, at its own batch size."""
    probes = spread(demo()[1], QUICK // 2 if allowed.quick else HARNESS)
    what = f"asking {len(probes)} exported probes, SmolLM2-135M, float32"
    try:
        lm_eval = importlib.import_module("lm_eval")
        hf, manager = importlib.import_module("lm_eval.models.huggingface"), importlib.import_module("lm_eval.tasks")
    except ImportError:
        return Result.absent(what, rival="lm-evaluation-harness", goal=0.1)
    answers: list[Any] = []
    numbers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(folder) / "tasks"
        name = export_lm_eval(probes, tasks, source="benchmark")
        loaded.tokenizer.save_pretrained(Path(folder) / "tokenizer")
        named = {"tokenizer": str(Path(folder) / "tokenizer")}
        loader = manager.TaskManager(include_path=str(tasks), include_defaults=False, metadata=named)
        lm = hf.HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=1)

        def ours() -> None:
            answers[:] = answer(loaded.model, loaded.tokenizer, probes)

        def theirs() -> None:
            numbers.update(lm_eval.evaluate(lm=lm, task_dict=loader.load([name]), bootstrap_iters=0))

        sides: dict[str, Callable[[], object]] = {"foci": ours, "rival": theirs}
        spent = in_turns(sides, 2, allowed, warmup=0)
    said = {one["doc"]["id"]: one for some in numbers["samples"].values() for one in some}
    worst = max(abs(said[a.probe_id]["nll"] - a.nll) for a in answers)
    assert worst <= TOLERANCE, f"NLL differ by {worst} nats, expected at most {TOLERANCE}"
    rival = f"lm-evaluation-harness {lm_eval.__version__}, batch size 1"
    note = f"NLL within {worst:.0e} nats"
    return Result.timed(what, spent["foci"], spent["rival"], rival=rival, goal=0.1, note=note)


def facts() -> tuple[list[Probe], str]:
    """The probes there are, and their name in the row."""
    files = [PUBLISHED / name for name in lama_ckl.FILES]
    if not all(file.is_file() for file in files):
        return read_probes(general.general_facts_path(), "retain"), "of foci's own general facts (no LAMA-ckl here)"
    found = lama_ckl.read_facts(files, LeftOut())
    return [fact.probe("learn" if fact.variant else "retain") for fact in found], "LAMA-ckl facts"


def spread(probes: Sequence[Probe], count: int) -> list[Probe]:
    """`count` probes from all over the file."""
    return [probes[n * len(probes) // count] for n in range(count)]


def one_by_one(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probes: Sequence[Probe]) -> list[Said]:
    """Each probe in a forward pass of its own, as an evaluation loop in plain Transformers has it."""
    found = []
    model.eval()
    for row in encode(probes, tokenizer):
        ids = torch.tensor([row.input_ids], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, :-1].float()
        where = torch.tensor(row.columns["answer"], device=model.device)[1:] > 0
        truth, at = ids[0, 1:][where], logits[where]
        chosen = at.argmax(-1)
        found.append(
            Said(
                tokenizer.decode(chosen).strip(),
                float((chosen == truth).float().mean()),
                float(F.cross_entropy(at, truth)),
            )
        )
    return found


def assert_same(ours: Sequence[Said], theirs: Sequence[Said]) -> float:
    """The largest difference of an NLL, where everything else is the same."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        assert a.predicted == b.predicted, f"first choices differ: {a} and {b}"
        assert abs(a.accuracy - b.accuracy) < 1e-6, f"accuracies differ: {a} and {b}"
        worst = max(worst, abs(a.nll - b.nll))
    assert worst <= TOLERANCE, f"NLL differ by {worst} nats, expected at most {TOLERANCE}"
    return worst
