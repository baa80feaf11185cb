"""Makes the probes to learn of a run that names none: by rule, from the rows that it trains on."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from foci import models
from foci.config.run import MADE, Run
from foci.corpus.sentences import one_line, sentences
from foci.focus import Row
from foci.probes import Probe, answer, line_of
from foci.probes.encode import encode
from foci.probes.making.make import HELD_OUT, Made, make_probes
from foci.system.files import write_text
from foci.system.run_folder import RunFolder

KNOWN = math.log(2)
"""Mean nats per answer token below which the untouched model as good as knows an answer: half of the probability."""
TOO_LONG, UNSPELLED, IS_KNOWN = "too long for the model", "no token for it", "known to the model"


def made_probes(run: Run, loaded: models.Loaded, rows: Sequence[Row]) -> Made | None:
    """Returns the probes that are made of the rows; None where the run file names probes, or asks for none."""
    if run.probes.learn != MADE:
        return None
    share = run.probes.held_out_share or HELD_OUT
    return make_probes(rows, lambda probes: _reasons(probes, loaded, run.probes.batch_size), run.seed, held_out=share)


def _reasons(probes: Sequence[Probe], loaded: models.Loaded, batch_size: int) -> list[str]:
    """Returns why each probe is not asked: the model knows it, or cannot read it; "" where it is asked."""
    reasons = [_unreadable(replace(probe, kind="cloze"), loaded) for probe in probes]
    asked = [replace(p, kind="cloze") for p, reason in zip(probes, reasons, strict=True) if not reason]
    said = iter(answer(loaded.model, loaded.tokenizer, asked, batch_size=batch_size) if asked else [])
    for number, reason in enumerate(reasons):
        if not reason:
            found = next(said)
            reasons[number] = IS_KNOWN if found.correct or found.nll < KNOWN else ""
    return reasons


def _unreadable(probe: Probe, loaded: models.Loaded) -> str:
    """Returns why a model cannot read a probe; "" where it can. Two tokens of room are for what it may say more."""
    try:
        (row,) = encode([probe], loaded.tokenizer)
    except ValueError:
        return UNSPELLED
    return TOO_LONG if len(row) + 2 > loaded.max_length else ""


def rows_with_evidence(probes: Sequence[Probe], rows: Sequence[Row]) -> dict[str, list[str]]:
    """Returns the ids of the rows that hold a sentence of a probe's evidence, by the ids of probes that have any."""
    wanted: dict[str, set[str]] = {}
    found: dict[str, list[str]] = {}
    for probe in probes:
        if probe.role == "learn" and probe.evidence:
            found[probe.id] = []
            for begin, end in sentences(probe.evidence):
                wanted.setdefault(one_line(probe.evidence[begin:end]), set()).add(probe.id)
    for row in rows if found else ():
        lines = {one_line(row.text[begin:end]) for begin, end in sentences(row.text)}
        for name in sorted(set().union(*(wanted[line] for line in lines & wanted.keys()))):
            found[name].append(row.row_id)
    return found


def write_made(made: Made | None, folder: RunFolder) -> None:
    """Writes the made probes as a probe file that people may edit and name as `probes.learn`; none where none is."""
    folder.made.unlink(missing_ok=True)
    if made is not None and made.probes:
        lines = (json.dumps(line_of(probe), ensure_ascii=False) for probe in made.probes)
        write_text(folder.made, "".join(f"{line}\n" for line in lines))
