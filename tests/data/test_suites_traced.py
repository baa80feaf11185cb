"""Probes to trace through a model: what a suite sets apart for it is asked nowhere else."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from foci.bench.config import load_suite
from foci.data import ecbd, templama
from foci.data.ecbd import Ecbd
from foci.data.suite import Suite, set_apart
from foci.data.templama import TempLama
from foci.learn.offline import plan_of
from foci.methods.grad_profile.method import GradProfile
from foci.probes import Probe, read_probes
from paths import ROOT

PUBLISHED = ROOT.parent / "shared" / "data"
RUNS = sorted(path.name for path in (ROOT / "runs").glob("*_grad_profile*.yaml"))
MODES = ["plain", "frozen", "adaptive", "auto_rgn", "reversed", "random"]


def probe(id: str, prompt: str) -> Probe:
    return Probe(id, "learn", "cloze", prompt, "x")


def lived(fact: str, year: int, *names: str, query: str, relation: str = "P54") -> dict:
    answer = [{"wikidata_id": f"Q{name}", "name": name} for name in names]
    return {
        "query": query,
        "answer": answer,
        "date": str(year),
        "id": f"{fact}_{relation}_{year}",
        "relation": relation,
    }


def asked(suite: Suite) -> set[str]:
    return {probe.prompt.strip() for probe in (*suite.learn, *suite.retain, *suite.held_out)}


def test_templama_traces_the_newest_change_of_facts_that_are_not_asked(tmp_path):
    """A is asked in 2020; B changed in 2012 and 2014; C only ended; D is C's sentence's subject in another relation
    that a causal model cannot fill; E changed in 2013 under the sentence of A.
    """
    lines = [
        *(lived("A", year, str(year), query="Ada plays for _X_.") for year in (2012, 2013, 2019, 2020)),
        *(lived("B", year, name, query="Bo plays for _X_.") for year, name in
          [(2011, "K"), (2012, "L"), (2013, "L"), (2014, "M"), (2015, "M")]),
        *(lived("C", 2012, "K", "L", query="Cy plays for _X_."), lived("C", 2013, "K", query="Cy plays for _X_.")),
        *(lived("D", year, str(year), query="_X_ heads Rome.", relation="P6") for year in (2012, 2013)),
        *(lived("E", year, str(year), query="Ada plays for _X_.") for year in (2012, 2013)),
    ]  # fmt: skip
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    suite = templama.convert(tmp_path, TempLama(held_out=0, trace=9))
    assert [(p.id, p.prompt, p.answer) for p in suite.trace] == [("B_P54_2014", "Bo plays for", "M")]
    assert templama.convert(tmp_path, TempLama(held_out=0)).trace == ()
    with pytest.raises(ValueError, match="trace must be at least 0, got -1"):
        TempLama(trace=-1)


def test_a_question_that_is_asked_cannot_be_traced():
    suite = Suite("x", {}, (), learn=(probe("a", "Ada is"),), trace=(probe("b", "Bo is"),))
    for field in ("learn", "retain", "held_out"):
        both = {"learn": (probe("a", "Ada is"),)} | {field: (probe("c", "Bo is "),)}
        with pytest.raises(ValueError, match="1 trace probes are also asked, such as 'b'"):
            replace(suite, **both)


@pytest.mark.parametrize("count", [0, 1, 5, 12, 100])
def test_what_is_set_apart_shares_nothing_with_the_rest(count):
    """Whole things, at most `count` probes and at most half of all."""
    probes = [probe(f"{thing}/{n}", f"{thing} {n}") for n in range(4) for thing in "abcdefg"[: 7 - n]]
    traced, rest = set_apart(probes, count, 0, lambda p: p.id[0])
    assert not {p.id[0] for p in traced} & {p.id[0] for p in rest}
    assert Counter(p.id for p in (*traced, *rest)) == Counter(p.id for p in probes)
    assert len(traced) <= min(count, len(probes) // 2)
    assert (count < 2) or traced
    assert (traced, rest) == set_apart(list(probes), count, 0, lambda p: p.id[0])


def published(name: str) -> Path:
    if not (PUBLISHED / name).is_dir():
        pytest.skip(f"the published files of {name} are not at ../shared/data/{name}")
    return PUBLISHED / name


def test_published_templama_traces_no_fact_that_is_asked(tmp_path):
    """Neither a sentence, nor a subject with its relation, nor a document of the corpus."""
    suite = templama.convert(published("templama"), TempLama(trace=64))
    keys = {p.id.rsplit("_", 1)[0] for p in (*suite.learn, *suite.retain, *suite.held_out)}
    assert len(suite.trace) == 64
    assert not {p.id.rsplit("_", 1)[0] for p in suite.trace} & keys
    assert not {p.prompt.strip() for p in suite.trace} & asked(suite)
    assert not [p.id for p in suite.trace if any(p.prompt in d.text for d in suite.documents)]
    without = templama.convert(published("templama"), TempLama())
    assert (without.learn, without.retain, without.held_out) == (suite.learn, suite.retain, suite.held_out)
    written = read_probes(suite.write(tmp_path / "out") / "trace.jsonl")
    assert tuple(written) == suite.trace


def test_published_ecbd_traces_no_entity_that_is_asked():
    suite = ecbd.convert(published("ecbd"), Ecbd(trace=64, held_out=32))
    entities = [{p.id.rpartition("/")[0].rsplit("_", 2)[0] for p in part} for part in
                (suite.trace, (*suite.learn, *suite.held_out))]  # fmt: skip
    assert len(suite.trace) == 64
    assert not entities[0] & entities[1]
    assert not {p.prompt.strip() for p in suite.trace} & asked(suite)
    assert len(suite.trace) + len(suite.learn) + len(suite.held_out) == 492


@pytest.mark.parametrize("name", RUNS)
def test_the_run_files_are_suites(name):
    """Plain and five profiles, alone and on top of others, which all trace the set that is kept apart."""
    suite = load_suite(ROOT / "runs" / name)
    kinds = [""] if "lora" in name else ["", "replay", "rec_adam"]
    arms = [f"{kind}_{mode}".strip("_").replace("_plain", "") or "plain" for kind in kinds for mode in MODES]
    beside = ["third_rate", "tenth_rate", *(["mlp"] if "lora" in name else []), "osf"]  # what needs no method
    assert list(suite.arms) == ["plain", *beside, *arms[1:]]
    assert (suite.baseline, len(suite.seeds)) == ("plain", 3)
    for arm in suite.arms:
        methods = [m for m in plan_of(suite, arm).methods if isinstance(m, GradProfile)]
        assert len(methods) == (not arm.endswith(("plain", "replay", "rec_adam", *beside)))
        assert all(Path(str(m.spans)).name == "trace.jsonl" for m in methods)


def test_there_are_run_files():
    assert len(RUNS) == 4
