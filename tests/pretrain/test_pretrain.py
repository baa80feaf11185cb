"""Pretraining from scratch: what is read, what is hidden, what is measured, and arms that are never run twice."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

import runs
from foci.config import strict_yaml
from foci.config.run import CorpusConfig
from foci.corpus import Document
from foci.focus import Plan, Row
from foci.models.architecture import block_of, part_of
from foci.pretrain.config import TYPES, Pretraining, ScratchConfig, load_pretraining
from foci.pretrain.grid import over_grid, points
from foci.pretrain.masking import HIDDEN, ORIGINAL, MaskedCollator, Masking, masked_nll
from foci.pretrain.models import scratch
from foci.pretrain.run import pretrain
from foci.pretrain.table import markdown, share, table
from foci.pretrain.text import Material, documents, material, rows_of, split, token_bytes, trained_tokenizer
from foci.pretrain.trainer import Pretrainer
from foci.pretrain.validation import Validation
from foci.system.files import read_json, read_lines, write_json
from foci.training.dataset import edited

TEXT = "The town of Bern, in the north. She was born there; Größe 3 né ☕ <mask> and </s> stay text.\n" * 30
SMALL = ScratchConfig(type="bert", layers=2, width=32, heads=4, mlp=32)


def run_of(folder: Path, **changes: object) -> Pretraining:
    text = folder / "text.txt"
    text.write_text(TEXT + "".join(f"Line {n} ends here. " for n in range(60)), encoding="utf-8")
    raw = {
        "objective": "masked", "model": SMALL.model_dump(), "corpus": {"path": str(text), "max_length": 16},
        "tokenizer": {"vocab": 320}, "held_out": {"share": 0.2, "rows": 8, "every": 3}, "dtype": "float32",
        "train": {"steps": 5, "batch_size": 4, "checkpoint_every": 2}, "seeds": [0],
        "output": str(folder / "out"), "arms": {"plain": [], "guided": ["guidance"]},
    }  # fmt: skip
    file = folder / "run.yaml"
    file.write_text(strict_yaml.dump({**raw, **changes}))
    return load_pretraining(file)


def quiet() -> Console:
    return Console(quiet=True)


@pytest.fixture(scope="module")
def tokenizers():
    return {objective: trained_tokenizer([TEXT], 320, objective) for objective in ("causal", "masked")}


# ---- text ----


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_blocks_hold_every_token_once(objective, tokenizers):
    tokenizer = tokenizers[objective]
    document = Document(TEXT.strip(), "f.txt", 1, whole_file=True)
    rows = rows_of([document], tokenizer, 16, objective)
    special = set(tokenizer.all_special_ids)
    inner = [token for row in rows for token in row.input_ids if token not in special]
    assert tokenizer.decode(inner) == document.text
    assert all(len(row) == 16 for row in rows[:-1])
    assert all(row.input_ids[0] == tokenizer.bos_token_id for row in rows)
    ends = [row.input_ids[-1] == tokenizer.eos_token_id for row in rows]
    assert all(ends) if objective == "masked" else not any(ends[:-1])
    assert not any(token in special for row in rows for token in row.input_ids[1:-1])  # "<mask>" in the text is text
    for row in rows:
        start = sum(len(line) + 1 for line in document.text.split("\n")[: int(row.source.split(":")[1]) - 1])
        assert row.text in document.text[start : start + len(row.text) + 200]


def test_a_tokens_bytes_add_up_to_the_text(tokenizers):
    tokenizer = tokenizers["masked"]
    ids = tokenizer("Größe né ☕</s>")["input_ids"]
    sizes = token_bytes(tokenizer)
    assert sum(sizes[token] for token in ids) == len("Größe né ☕".encode())  # "</s>" was read as the special one
    assert all(sizes[token] == 0 for token in tokenizer.all_special_ids)


def test_the_end_of_the_text_is_held_out(tmp_path):
    for n in range(4):
        (tmp_path / f"{n}.txt").write_text(f"first {n}\nsecond {n}\n")
    learned, held_out = split(documents(CorpusConfig(path=(str(tmp_path),))), 0.3)
    assert [document.text for document in learned] == ["first 0\nsecond 0", "first 1\nsecond 1", "first 2"]
    assert [(document.text, document.line) for document in held_out] == [("second 2", 2), ("first 3\nsecond 3", 1)]
    learned, held_out = split([Document("a\nbb\nccc", "f", 5, whole_file=True)], 0.5)
    assert [(d.text, d.line) for d in (*learned, *held_out)] == [("a\nbb", 5), ("ccc", 7)]


@pytest.mark.parametrize("text", ["# Title\n" + "word " * 2000, ("word " * 600 + "\n") * 3, "word " * 2000 + "\nEnd."])
def test_a_long_line_is_split_before_a_word(text):
    """The nearest end of a line would hold out nearly all, a third, or nearly nothing."""
    learned, held_out = split([Document(text, "f", 1)], 0.1)
    assert sum(len(document.text) for document in held_out) == pytest.approx(0.1 * len(text), rel=0.02)
    assert learned[0].text.endswith("word")
    assert held_out[0].text.startswith("word")


# ---- masks ----


def test_masks_are_those_of_the_paper():
    """15 % of the tokens that are not special; of these 80 % the mask, 10 % any token, 10 % as they were."""
    masking = Masking(3, frozenset({0, 1, 2, 3}), 10000, 0.15)
    row = Row("a", (1, *range(100, 20100), 2), columns={"delimiter": (1.0,) * 20002})
    after = edited(row, [masking], (0, 0, 0))
    hidden = [t for t, one in enumerate(after.columns[HIDDEN]) if one]
    assert after.columns[ORIGINAL] == row.input_ids
    assert not {0, len(row) - 1} & set(hidden)
    assert len(hidden) / 20000 == pytest.approx(0.15, abs=0.01)
    kinds = [after.input_ids[t] == 3 for t in hidden], [after.input_ids[t] == row.input_ids[t] for t in hidden]
    assert [sum(kind) / len(hidden) for kind in kinds] == pytest.approx([0.8, 0.1], abs=0.02)
    assert all(after.input_ids[t] == row.input_ids[t] for t in set(range(len(row))) - set(hidden))
    assert [1 - d for d in after.columns["delimiter"]] == list(after.columns[HIDDEN])
    assert edited(row, [masking], (0, 0, 0)) == after
    for key in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert edited(row, [masking], key) != after


@pytest.mark.parametrize("name", [name for name, objective in TYPES.items() if objective == "masked"])
def test_the_loss_of_hidden_tokens_is_that_of_full_logits(name, tokenizers):
    tokenizer = tokenizers["masked"]
    model = scratch(SMALL.model_copy(update={"type": name}), tokenizer, 16, seed=0)
    rows = rows_of([Document(TEXT, "f", 1)], tokenizer, 16, "masked")
    masking = Masking(tokenizer.mask_token_id, frozenset(tokenizer.all_special_ids), len(tokenizer), 0.3)
    inputs = MaskedCollator(0)([edited(row, [masking], (0, 0, 0)) for row in [*rows[:3], rows[-1]]])
    ids, mask, labels = (inputs[key] for key in ("input_ids", "attention_mask", "labels"))
    assert set(inputs["columns"]) == set()
    assert 0 < int((labels >= 0).sum()) < labels.numel() / 2
    theirs = model(input_ids=ids, attention_mask=mask, labels=labels)
    from foci.training.dataset import batch_of

    ours = masked_nll(model, batch_of(inputs))
    torch.testing.assert_close(ours.sum() / (labels >= 0).sum(), theirs.loss, atol=1e-6, rtol=1e-5)
    flat = torch.nn.functional.cross_entropy(theirs.logits.transpose(1, 2), labels, reduction="none")
    torch.testing.assert_close(ours, flat, atol=1e-5, rtol=1e-5)
    bad = {**inputs, "labels": ids}
    with pytest.raises(ValueError, match="begins with a special token that is never predicted"):
        masked_nll(model, batch_of(bad))


@pytest.mark.parametrize("name", TYPES)
def test_blocks_and_parts_of_models_from_scratch(name, tokenizers):
    model = scratch(SMALL.model_copy(update={"type": name}), tokenizers[TYPES[name]], 16, seed=0)
    again = scratch(SMALL.model_copy(update={"type": name}), tokenizers[TYPES[name]], 16, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    have = {block_of(parameter) for parameter, _ in model.named_parameters()}
    assert {"embeddings", "layers.0", "layers.1"} <= have <= {"embeddings", "layers.0", "layers.1", "norm", "head"}
    parts = {part_of(parameter) for parameter, _ in model.named_parameters()}
    assert {"layers.1.attention", "layers.1.mlp"} <= parts


# ---- validation ----


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_bits_per_byte_of_a_model_that_knows_nothing(objective, tokenizers):
    """All logits 0: ln V nats a token, and V's bits over the bytes that are predicted."""
    tokenizer = tokenizers[objective]
    size = SMALL.model_copy(update={"type": "gpt2" if objective == "causal" else "bert"})
    model = scratch(size, tokenizer, 16, seed=0)
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    rows = tuple(rows_of([Document(TEXT.strip(), "f", 1)], tokenizer, 16, objective))
    masking = None
    if objective == "masked":
        masking = Masking(tokenizer.mask_token_id, frozenset(tokenizer.all_special_ids), len(tokenizer))
    found = Validation(Material(tokenizer, rows, rows), masking).measure(model)
    assert found["nats"] == pytest.approx(math.log(len(tokenizer)), rel=1e-6)
    if objective == "causal":  # every token of the text, and END where a last row has room for it
        tokens = sum(len(row) - 1 for row in rows)
        bits = tokens * math.log2(len(tokenizer))
        assert found["bits_per_byte"] == pytest.approx(bits / len(TEXT.strip().encode()), rel=1e-6)
    assert Validation(Material(tokenizer, rows, rows), masking).measure(model) == found


# ---- the table ----


def curve(*nats: float):
    return [{"step": 10 * n, "seconds": 2.0 * n, "nats": x, "bits_per_byte": x / 2} for n, x in enumerate(nats)]


def test_how_soon_is_a_share_of_the_baselines_own_steps(tmp_path):
    """Plain is at its last loss of 5 at step 20 already; guided at step 10, or never."""
    plain, guided = curve(8, 6, 5, 5.0), curve(8, 5, 4, 4)
    assert share(guided, plain, "step") == 10 / 20
    assert share(guided, plain, "seconds") == 2.0 / 4.0
    assert share(curve(8, 7, 6, 5.1), plain, "step") is None
    run = run_of(tmp_path, seeds=[0, 1])
    found = table(run, {"plain": {0: plain, 1: plain}, "guided": {0: guided, 1: curve(8, 7, 6, 5.5)}})
    of = found["arms"]["guided"]
    assert of["step_ratio"]["values"] == [0.5, None]
    assert of["nats"]["difference"]["mean"] == pytest.approx((4 - 5 + 5.5 - 5) / 2)
    assert found["arms"]["plain"]["step_ratio"]["values"] == []
    assert "| guided | 2 | 4.750 [" in markdown(found)
    assert "0.500 (1 of 2 never)" in markdown(found)


def test_a_baseline_that_learns_nothing_is_reached_before_the_first_update(tmp_path):
    """There is no share of its steps then; "never" was said of an arm that is 4 nats better."""
    run = run_of(tmp_path, seeds=[0])
    found = table(run, {"plain": {0: curve(8, 9)}, "guided": {0: curve(8, 5)}})
    assert found["arms"]["guided"]["step_ratio"]["values"] == []
    assert "| guided | 1 | 5.000 | −4.000 | 2.500 |  |  |" in markdown(found)  # noqa: RUF001


# ---- the whole ----


def test_every_arm_and_seed_once(tmp_path):
    run = run_of(tmp_path)
    found = pretrain(run, console=quiet())
    out = run.output
    lines = read_lines(out / "cells/plain/seed-0/validation.jsonl")
    assert [line["step"] for line in lines] == [0, 3, 5]
    guided = read_lines(out / "cells/guided/seed-0/validation.jsonl")
    assert guided[0]["nats"] == lines[0]["nats"]  # the same start
    assert guided[-1]["nats"] != lines[-1]["nats"]
    assert set(found["arms"]) == {"plain", "guided"}
    assert all((out / name).is_file() for name in ("loss.svg", "heads-guided.svg", "maps-guided.svg"))
    heads = read_lines(out / "cells/guided/seed-0/guided.jsonl")
    assert [line["step"] for line in heads] == [0, 3, 5]
    named = [(head["layer"], head["head"], head["pattern"]) for head in heads[0]["heads"]]
    assert named == [(0, 0, "next"), (0, 1, "previous"), (1, 0, "next"), (1, 1, "previous")]
    assert heads[0] != heads[2]
    maps = json.loads((out / "cells/guided/seed-0/maps.json").read_text())
    assert [len(maps[when]["maps"]) for when in ("before", "after")] == [4, 4]
    assert not (out / "cells/plain/seed-0/guided.jsonl").exists()
    assert "| guided |" in (out / "table.md").read_text()
    assert not (out / "cells/plain/seed-0/checkpoints").exists()
    key = read_json(cell := out / "cells/plain/seed-0/cell.json")
    assert key["train"].pop("batch_tokens", "no such key") is None  # an earlier version had none
    write_json(cell, key, sealed=True)
    before = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/*/*")}
    pretrain(run, console=quiet())
    assert {path: path.stat().st_mtime_ns for path in out.glob("cells/*/*/*")} == before
    other = run_of(tmp_path, masks=0.3)
    with pytest.raises(FileExistsError, match=r"plain, seed 0 .* was run with another masks"):
        pretrain(other, console=quiet())
    for name in ("arm.json", "cell.json"):
        whole = (file := out / "cells/plain/seed-0" / name).read_text()
        file.write_text(whole.replace("0.", "1.", 1))
        with pytest.raises(ValueError, match=f"{name} is damaged: its content is not what was written"):
            pretrain(run, console=quiet())
        file.write_text(whole)
    assert "seal" in json.loads((out / "table.json").read_text())
    pretrain(other, overwrite=True, console=quiet())
    assert json.loads((out / "cells/plain/seed-0/cell.json").read_text())["masks"] == 0.3


def test_a_torn_cell_goes_on_and_ends_in_the_same_bits(tmp_path, monkeypatch):
    run = run_of(tmp_path, arms={"guided": ["guidance"]})
    pretrain(run, console=quiet())
    whole = json.loads((run.output / "cells/guided/seed-0/arm.json").read_text())
    torn = run.model_copy(update={"output": tmp_path / "torn"})
    measure, calls = Validation.measure, []

    def stopped(self, model, batch_size=32):
        calls.append(1)
        if len(calls) == 2:  # at update 3, after the checkpoint of update 2
            raise ConnectionResetError("the cell is torn")
        return measure(self, model, batch_size)

    monkeypatch.setattr(Validation, "measure", stopped)
    with pytest.raises(ConnectionResetError, match="torn"):
        pretrain(torn, console=quiet())
    assert (torn.output / "cells/guided/seed-0/checkpoints/step-2").is_dir()
    pretrain(torn, console=quiet())
    again = json.loads((torn.output / "cells/guided/seed-0/arm.json").read_text())
    assert again["weights"] == whole["weights"]
    assert again["nats"] == whole["nats"]
    steps = [line["step"] for line in read_lines(torn.output / "cells/guided/seed-0/validation.jsonl")]
    assert steps == [0, 3, 5]


def test_the_command_tells_the_table(tmp_path, capsys):
    run_of(tmp_path)
    said = runs.told(["pretrain", tmp_path / "run.yaml", "train.steps=2"], capsys)
    assert "rows to learn (" in said
    assert re.search(r"guided +\d\.\d{3} +\S\d\.\d{3}", said), said
    assert f"table: {tmp_path / 'out' / 'table.md'}" in said
    assert "was run with another train" in runs.refused(["pretrain", tmp_path / "run.yaml"], capsys, 2)


def test_a_causal_model_that_is_kept_loads(tmp_path):
    from foci import models

    size = SMALL.model_copy(update={"type": "llama"}).model_dump()
    run = run_of(tmp_path, objective="causal", model=size, arms={"plain": []}, keep_models=True)
    pretrain(run, console=quiet())
    loaded = models.load(str(run.output / "cells/plain/seed-0/model"))
    assert loaded.tokenizer("Bern")["input_ids"][0] == loaded.tokenizer.bos_token_id


def test_the_loss_is_ours_in_every_arm(tmp_path):
    from foci.training.dataset import Collator
    from training import arguments

    tokenizer = trained_tokenizer([TEXT], 320, "causal")
    model = scratch(SMALL.model_copy(update={"type": "llama"}), tokenizer, 16, seed=0)
    rows = rows_of([Document(TEXT, "f", 1)], tokenizer, 16, "causal")
    trainer = Pretrainer(model, arguments(tmp_path), train_dataset=rows, data_collator=Collator(0), masked=False)
    assert trainer.replaces_loss


# ---- what is refused ----


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "causal"}, "a bert is trained by the masked objective, got causal"),
        ({"model": {"type": "bert", "width": 30}}, "got width 30 and 8 heads"),
        ({"seeds": [1, 1]}, "every value stands once, got 1 twice"),
        ({"held_out": {"share": 1.5}}, "held_out.share"),
        ({"modle": {}}, "modle"),
    ],
)
def test_a_file_that_cannot_work_is_refused(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        run_of(tmp_path, **changes)


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match="arm 'old' mixes old rows in"):
        pretrain(run_of(tmp_path, arms={"old": ["replay"]}), console=quiet())
    for method in (
        {"lwf": {"on": "all", "teacher": "live"}},
        "asft",
        {"rho": {"reference": "x"}},
        "ewc",
        "grad_profile",
    ):
        with pytest.raises(ValueError, match="asks what a model says of the next token"):
            pretrain(run_of(tmp_path, arms={"causal": [method]}), console=quiet())
    with pytest.raises(ValueError, match="3 patterns for 2 guided heads"):  # before the plain arm is trained
        many = {"plain": [], "many": [{"guidance": {"patterns": ["same", "next", "first"]}}]}
        pretrain(run_of(tmp_path, arms=many), console=quiet())
    assert not (tmp_path / "out/cells").exists()
    (tmp_path / "out2").mkdir()
    (tmp_path / "out2/mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match="holds something that is no pretraining"):
        pretrain(run_of(tmp_path, output=str(tmp_path / "out2")), console=quiet())
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe bad")
    with pytest.raises(ValueError, match=r"1 of 1 document \(100.0%\) is bad"):
        documents(CorpusConfig(path=(str(tmp_path / "bad.txt"),)))
    short = run_of(tmp_path)
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(ValueError, match="0 to validate on"):
        material(short)


# ---- the grid ----


def test_a_grid_compares_all_arms_at_every_rate_and_warm_up(tmp_path):
    run = run_of(tmp_path, grid={"learning_rate": [1e-3, 1e-2], "warmup": [0.4]})
    grid = over_grid(run, console=quiet())
    assert [(p["learning_rate"], p["warmup"]) for p in grid["points"]] == [(1e-3, 0.4), (1e-2, 0.4)]
    alone = pretrain(
        run.model_copy(
            update={
                "grid": None,
                "output": tmp_path / "alone",
                "train": run.train.model_copy(update={"learning_rate": 1e-2, "warmup": 0.4}),
            }
        ),
        console=quiet(),
    )
    at = grid["points"][1]["arms"]
    assert {arm: of["nats"] for arm, of in at.items()} == {arm: of["nats"] for arm, of in alone["arms"].items()}
    losses = [p["arms"]["guided"]["nats"]["mean"] for p in grid["points"]]
    gaps = [p["arms"]["guided"]["nats"]["mean"] - p["arms"]["plain"]["nats"]["mean"] for p in grid["points"]]
    told = grid["arms"]["guided"]
    assert (told["best"], told["worst"]) == (min(losses), max(losses))
    assert len(set(losses)) == 2
    assert told["below_baseline"] == sum(gap < 0 for gap in gaps)
    assert told["difference"] == pytest.approx(sum(gaps) / 2)
    assert grid["arms"]["plain"]["below_baseline"] is None
    table = (run.output / "grid.md").read_text()
    assert table.count("\n| 0.001 | 0.4 |") == 1
    assert f"| {losses[0]:.3f} |" in table
    assert all((run.output / name).stat().st_size > 1000 for name in ("grid.svg", "grid.png"))


def test_a_grid_goes_on_where_it_stopped(tmp_path):
    run = run_of(tmp_path, grid={"learning_rate": [1e-3], "warmup": [0.0]})
    first = over_grid(run, console=quiet())
    results = sorted(run.output.glob("points/*/cells/*/*/arm.json"))
    times = [path.stat().st_mtime_ns for path in results]
    wider = run.model_copy(update={"grid": run.grid.model_copy(update={"warmup": (0.0, 0.5)})})
    second = over_grid(wider, console=quiet())
    assert len(results) == 2
    assert [path.stat().st_mtime_ns for path in results] == times
    assert second["points"][0] == first["points"][0]
    assert len(second["points"]) == 2


def test_points_that_are_nearly_the_same_have_their_own_folders(tmp_path):
    run = run_of(tmp_path, grid={"learning_rate": [0.1234567, 0.1234568, 1e-3], "warmup": [0.0]})
    names = [point.output.name for point in points(run)]
    assert names == ["rate-0.1234567-warmup-0", "rate-0.1234568-warmup-0", "rate-0.001-warmup-0"]


def test_a_masked_row_has_room_for_text(tmp_path):
    with pytest.raises(ValueError, match=r"between two tokens, got corpus\.max_length 2; give at least 3"):
        run_of(tmp_path, corpus={"path": str(tmp_path / "text.txt"), "max_length": 2})


def test_a_pretraining_without_a_grid_has_no_points(tmp_path):
    with pytest.raises(ValueError, match=r"has no grid; write grid: \{learning_rate"):
        over_grid(run_of(tmp_path), console=quiet())
    with pytest.raises(ValueError, match="every value stands once"):
        run_of(tmp_path, grid={"learning_rate": [1e-3, 1e-3], "warmup": [0.0]})


# ---- arms of other sizes ----


def test_arms_may_have_models_of_other_sizes(tmp_path):
    sizes = {"large": {"width": 64, "layers": 3}}
    run = run_of(tmp_path, arms={"small": [], "large": []}, sizes=sizes, keep_models=True)
    found = pretrain(run, console=quiet())
    small, large = (run.output / "cells" / arm / "seed-0" for arm in ("small", "large"))
    widths = [json.loads((path / "model" / "config.json").read_text())["hidden_size"] for path in (small, large)]
    assert widths == [32, 64]
    assert json.loads((large / "cell.json").read_text())["model"]["layers"] == 3
    assert found["arms"]["small"]["nats"]["values"] != found["arms"]["large"]["nats"]["values"]
    alone = run_of(tmp_path, arms={"small": []}, output=str(tmp_path / "alone"))
    assert (
        pretrain(alone, console=quiet())["arms"]["small"]["nats"]["values"] == found["arms"]["small"]["nats"]["values"]
    )


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ({"big": {"width": 64}}, "sizes are of arms .plain, guided., got big; name an arm"),
        ({"plain": {"depth": 3}}, r"sizes\.plain\.depth: Extra inputs are not permitted"),
        ({"plain": {"heads": 5}}, r"sizes\.plain: heads share the width .* even number$"),
        ({"plain": {"type": "roberta"}}, "one pretraining has one type, bert"),
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path, sizes, why):
    with pytest.raises(ValueError, match=why) as told:
        run_of(tmp_path, sizes=sizes)
    assert "''" not in str(told.value), "what is wrong with the whole file has no key"


def test_a_masked_model_reads_every_token_of_its_rows(tmp_path):
    """Hidden tokens are predicted from those behind them too, so no row is cut behind its last hidden one."""
    from training import arguments

    tokenizer = trained_tokenizer([TEXT], 320, "masked")
    model = scratch(SMALL.model_copy(update={"type": "bert"}), tokenizer, 16, seed=0)
    rows = [row for row in rows_of([Document(TEXT, "f", 1)], tokenizer, 16, "masked") if len(row) == 16]
    plan = Plan([Masking(tokenizer.mask_token_id, frozenset(tokenizer.all_special_ids), len(tokenizer), 0.15)])
    read = []
    model.register_forward_pre_hook(lambda _, args, named: read.append(named["input_ids"].shape[1]), with_kwargs=True)
    settings = arguments(tmp_path, max_steps=4, per_device_train_batch_size=1)
    collator = MaskedCollator(tokenizer.pad_token_id)
    Pretrainer(model, settings, plan=plan, train_dataset=rows, data_collator=collator, masked=True).train()
    assert read
    assert set(read[-4:]) == {16}
