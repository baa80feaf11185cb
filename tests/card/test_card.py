"""The README.md of a learned model: valid for the hub, true to the run's numbers, harmless whatever the texts say."""

import dataclasses
import io
import json
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard
from rich.console import Console
from scipy.stats import binomtest
from transformers import AutoModelForCausalLM

import runs
import tiny
from foci import models
from foci.card.base import base_named
from foci.card.measured import share_interval
from foci.card.taught import read_taught
from foci.card.usage import Form, vllm_command
from foci.card.vllm import why_refused
from foci.card.write import form_of, model_card, write_card
from foci.config.run import load_run
from foci.learn.run import learn
from foci.learn.save import _write_adapter

EVIL = "<img src=x onerror=alert(1)>|`` [a](https://evil.example) \x1b[2J\u202e\n# Heading\n---\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    read = load_run(runs.run_file(folder, runs.material(folder), train={"epochs": 1}))
    learn(read, console=Console(file=io.StringIO()))
    return read.output


def loaded(path):
    """A card by huggingface_hub's own reader, with its YAML read back."""
    card = ModelCard.load(path / "README.md")
    assert yaml.safe_load(card.content.split("---\n")[1])["model-index"]
    return card


@pytest.mark.parametrize(("kind", "library"), [("model", "transformers"), ("adapter", "peft")])
@pytest.mark.parametrize("arm", ["plain", "oracle"])
def test_every_folder_of_a_run_has_a_card_with_the_runs_numbers(run, kind, library, arm):
    card = loaded(run / "arms" / arm / kind)
    numbers = json.loads((run / "arms" / arm / "arm.json").read_text())
    found = {one.metric_name: one.metric_value for one in card.data.eval_results}
    for key, name in {
        "learned_whole": "questions to learn, whole answers",
        "learned": "questions to learn, answer tokens",
        "retained": "what it knew before, answer tokens",
        "bits_per_byte": "general text, bits per byte",
    }.items():
        assert found[name] == round(numbers[key]["after"], 4)
    assert card.data.library_name == library
    assert card.data.pipeline_tag == "text-generation"
    assert "corpus.jsonl" in card.text
    assert str(run) not in card.content
    assert str(run.parent) not in card.content


def test_a_base_that_is_a_folder_is_no_name_on_the_hub(run):
    card = loaded(run / "arms" / "plain" / "adapter")
    assert card.data.base_model is None
    assert "`tiny`" in card.text
    assert base_named("smollm2-135m").name == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert base_named("smollm2-135m").licence == "apache-2.0"
    assert base_named("org/model").on_hub
    gone = base_named("/home/someone/models/gone")
    assert (gone.name, gone.on_hub) == ("gone", False)


def test_the_licence_is_that_of_the_bases_card(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    assert base_named(str(tmp_path / "base")).licence == "mit"
    (tmp_path / "base" / "README.md").write_text("---\nlicense: [a: b\n---\n# Base\n")
    assert not base_named(str(tmp_path / "base")).licence


def test_methods_have_their_papers(run):
    assert "[arXiv 2407.16920](https://arxiv.org/abs/2407.16920)" in loaded(run / "arms" / "oracle" / "model").text
    assert "Plain fine-tuning" in loaded(run / "arms" / "plain" / "model").text


def test_no_folder_of_the_machine_is_told(run):
    """The settings of a method may name files, and the last part of a path is enough."""
    taught = read_taught(run)["plain"]
    files = {"path": ["/home/me/old.txt", "~/more/pages"], "weigher": "../weigher", "anchor": "kl", "hub": "org/model"}
    known = taught.run.model_copy(update={"arms": {"plain": [{"replay": files}]}})
    card = model_card(dataclasses.replace(taught, run=known), Form("model", "x", "float32")).content
    assert "path=['old.txt', 'pages'], weigher=weigher, anchor=kl, hub=org/model" in card
    assert "/home" not in card


def test_hostile_texts_stay_texts(run, tmp_path):
    """Whatever stands in a name, a question or an answer, the card shows it and reads nothing of it."""
    copy = shutil.copytree(run, tmp_path / "run", symlinks=True)
    start = json.loads((copy / "start.json").read_text())
    start.pop("seal")
    start["inputs"] = {f"/somewhere/{EVIL.replace('/', '')}": "0" * 64}
    (copy / "start.json").write_text(json.dumps(start))
    summary = json.loads((copy / "summary.json").read_text())
    summary.pop("seal")
    summary["foci"], summary["versions"] = EVIL, {"torch": EVIL}
    (copy / "summary.json").write_text(json.dumps(summary))
    taught = read_taught(copy)["plain"]
    for one in taught.arm.before:
        one |= {"prompt": EVIL, "answer": EVIL, "correct": True, "counted": True, "role": "retain"}
    for one in taught.arm.after:
        one |= {"predicted": EVIL, "correct": False, "counted": True, "role": "retain"}
    for form in (form_of(copy / "model", "x"), form_of(copy / "adapter", "x")):
        write_card(tmp_path, taught, form)
        card = loaded(tmp_path)
        assert "\x1b" not in card.content
        assert "\u202e" not in card.content
        assert "\n# Heading" not in card.content
        assert card.content.count("\n---\n") == 1
        lines = [line for line in card.text.splitlines() if "onerror" in line]
        assert len(lines) >= 5
        for line in lines:
            assert "<img" not in without_code(line), line
            assert not re.search(r"(?<!\\)\]\(https://evil", without_code(line)), line


def without_code(line: str) -> str:
    """A line of Markdown without its code spans, by CommonMark's rule: they end at a run of as many backticks."""
    kept, rest = "", line
    while "`" in rest:
        before, _, after = rest.partition("`")
        fence = "`" * (1 + len(after) - len(after.lstrip("`")))
        after = after.lstrip("`")
        end = next((n for n in range(len(after)) if closes(after, n, fence)), None)
        kept, rest = kept + before, after if end is None else after[end + len(fence) :]
    return kept + rest


def closes(text: str, place: int, fence: str) -> bool:
    around = text[place - 1 : place] + text[place + len(fence) : place + len(fence) + 1]
    return text.startswith(fence, place) and "`" not in around


def test_intervals_by_hand():
    answers = [{"correct": n < 3, "accuracy": n / 4} for n in range(5)]
    low, high = share_interval(answers, whole=True)
    known = binomtest(3, 5).proportion_ci(method="wilson")
    assert (low, high) == (known.low, known.high)
    low, high = share_interval(answers, whole=False)
    half = 2.7764451 * (0.15625 / 5) ** 0.5  # t of 4 degrees of freedom, s^2 = 0.15625
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    assert share_interval(answers[:1], whole=True) is None


def test_vllm_is_told_only_what_it_takes():
    lora = {"peft_type": "LORA", "r": 20}
    form = Form("adapter", "mine", "float32", settings=lora)
    assert vllm_command(form, "org/base", "here") == (
        "vllm serve org/base --enable-lora --max-lora-rank 32 --lora-modules mine=here"
    )
    for more in ({"use_dora": True}, {"peft_type": "OFT"}, {"r": 999}, {"bias": "all"}, {"target_parameters": ["a"]}):
        assert why_refused(lora | more)
        assert not vllm_command(Form("adapter", "mine", "float32", settings=lora | more), "org/base", "here")


def test_an_adapter_has_no_card_of_pefts(tmp_path):
    """PEFT's own card is a form to fill in, and names paths of this machine."""
    below = tiny.build("llama")
    below.name_or_path = below.config.name_or_path = "/someone/.cache/foci/models/abc"
    _write_adapter(models.add_adapter(below, models.Adapter(r=2)), tmp_path / "adapter", "smollm2-135m")
    assert not (tmp_path / "adapter" / "README.md").exists()
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "smollm2-135m"


def test_a_card_says_how_the_embedded_model_differs(run):
    taught = read_taught(run)["plain"]
    base = base_named("smollm2-135m")
    card = str(model_card(type(taught)(**{**vars(taught), "base": base}), form_of(run / "adapter", "x")))
    assert f'from_pretrained("{base.name}")' in card
    assert card.count(base.note) == 2  # where it is loaded, and where the base is named
    assert ModelCard(card).data.base_model == base.name


def test_the_card_of_model_loads_with_the_model(run):
    """The README.md beside the weights disturbs nobody who loads them."""
    AutoModelForCausalLM.from_pretrained(run / "model")


def test_the_interval_of_tokens_is_never_a_point():
    right = [{"correct": True, "accuracy": 1.0}] * 5
    assert (
        share_interval(right, whole=False) == share_interval(right, whole=True) == pytest.approx((0.5655, 1), abs=1e-4)
    )
    assert share_interval([{"correct": False, "accuracy": 0.5}] * 5, whole=False) is None
