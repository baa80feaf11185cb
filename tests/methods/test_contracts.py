"""Every method, the shipped ones and the small ones of the tests, meets every law of its roles."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import contracts
import small
import tiny
from foci.focus import (
    Batch,
    Context,
    EditsTokens,
    GuidesHeads,
    HoldsWeights,
    Imitates,
    MixesRows,
    Prepares,
    Row,
    ScalesLayers,
    WeighsTokens,
)
from foci.methods import available
from foci.methods.oracle import Oracle
from foci.methods.train_attention import weigher
from foci.training.plan import ON_THE_FLY

SMALL = [
    small.Dropped(),
    small.Column(),
    small.ByPosition(),
    small.LookAt(),
    small.Scaled({"layers.0": 0.5}),
    small.Old(tuple(small.rows(6, seed=3))),
    small.Pulled(0.5, tempo=0.5),
    small.Imitating(below=2.0),
]


def texts() -> list[Row]:
    """Rows with text behind them, answers marked, as a corpus gives them."""
    tokenizer = tiny.tokenizer()
    rows = []
    lines = ["Ada lives in Rome.", "Ben was born in Oslo in May. He paints.", "Cy works for Acme and likes it."]
    for n, text in enumerate(lines):
        encoded = tokenizer(text, return_offsets_mapping=True)
        answer = tuple(float(3 <= t < 6) for t in range(len(encoded["input_ids"])))
        offsets = tuple(tuple(pair) for pair in encoded["offset_mapping"])
        rows.append(Row(f"t{n}", tuple(encoded["input_ids"]), text, offsets, {"answer": answer}, f"texts:{n + 1}"))
    return rows


def made(name: str, folder: Path) -> Any:
    """A shipped method with its defaults, and what it must be given."""
    if name == "influence":
        lines = [{"text": row.text, "prompt": "It says", "answer": "rain"} for row in texts()]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return available()[name](pairs=str(folder / "pairs.jsonl"))
    if name == "study":
        return available()[name](spans="answers")  # the weigher that comes with foci is a model of its own
    if name == "known":
        return available()[name](share=0.002)  # a random model knows little
    if name == "context_distillation":
        folder.mkdir(parents=True, exist_ok=True)
        pair = {"text": texts()[1].text, "prompt": "Ben was born", "answer": "in May"}
        (folder / "pairs.jsonl").write_text(json.dumps(pair))
        return available()[name](pairs=str(folder / "pairs.jsonl"))
    if name == "self_distillation":
        return available()[name](teacher=str(tiny.save_model(folder / "adapted", seed=1)))
    if name == "stm":
        return available()[name](threshold=500.0)
    if name == "contrast":
        return available()[name](large=str(tiny.save_model(folder / "large", seed=1)), beta=0.3)
    if name != "train_attention":
        return available()[name]()
    tiny.save_model(folder / "base")
    loaded = weigher.new(str(folder / "base"), r=2, alpha=4.0)
    torch.nn.init.normal_(loaded.weigher.head.weight)
    weigher.save(loaded.weigher, folder / "weigher", base=str(folder / "base"), made_by={})
    return available()[name](weigher=str(folder / "weigher"))


def shipped(name: str, folder: Path) -> tuple[Any, list[Row], torch.nn.Module]:
    """A shipped method with its defaults as it plays in training of a tiny model; the rows it reads; the model."""
    net = tiny.build("llama", vocab=tiny.VOCAB)
    method, rows = made(name, folder), texts()
    if isinstance(method, Prepares):
        method, rows = contracts.assert_prepares(method, Context(net, tiny.tokenizer(), rows, folder, 0))
    return method, list(rows), net


def check(method: Any, rows: list[Row], net: torch.nn.Module) -> None:
    batch = Batch.of(rows, tiny.PAD)
    if isinstance(method, EditsTokens):
        contracts.assert_edit_laws(method, rows)
    if isinstance(method, WeighsTokens):
        for live in ON_THE_FLY & method.needs():
            batch.columns[live] = torch.rand(batch.input_ids.shape)
        contracts.assert_weight_laws(method, batch)
        contracts.assert_weights_multiply(method, small.ByPosition(), batch)
    if isinstance(method, GuidesHeads):
        contracts.assert_guide_laws(method, net)
    if isinstance(method, ScalesLayers):
        contracts.assert_scale_laws(method, net)
    if isinstance(method, MixesRows):
        contracts.assert_mix_laws(method)
    if isinstance(method, HoldsWeights):
        contracts.assert_hold_laws(method, net)
    if isinstance(method, Imitates):
        contracts.assert_imitate_laws(method, batch)
    assert contracts.roles_of(method)


@pytest.mark.parametrize("method", SMALL, ids=lambda m: type(m).__name__)
def test_small_methods_meet_the_laws(method, tmp_path):
    rows = small.rows()
    if not isinstance(method, MixesRows | ScalesLayers):  # these two hold rows and mappings
        contracts.assert_is_a_value(method)
    check(method, rows, tiny.build("llama"))
    contracts.assert_model_is_left_as_it_was(method, tmp_path / "left", rows)
    contracts.assert_it_changes_something(method, tmp_path / "changes", rows)


@pytest.mark.parametrize("name", sorted(available()))
def test_shipped_methods_meet_the_laws(name, tmp_path):
    contracts.assert_is_a_value(made(name, tmp_path / "value"))
    method, rows, net = shipped(name, tmp_path)
    check(method, rows, net)


def test_order_matters_among_edits_only(tmp_path):
    methods = [small.Dropped(), small.Column(), small.ByPosition(), small.LookAt(), small.Pulled(0.5)]
    methods += [small.Scaled({"layers.0": 0.5}), small.Imitating(), small.Imitating(0.5, 0.2, 5, 2.0)]
    contracts.assert_order_does_not_matter(methods, tmp_path, small.rows())


@dataclass(frozen=True)
class Careless(small.Column):
    """Breaks the law that the model is left as it was: freezes a layer and forgets it."""

    def weigh(self, batch):
        Careless.net.model.layers[0].requires_grad_(False)
        return super().weigh(batch)


def test_the_law_about_the_model_can_fail(tmp_path):
    Careless.net = contracts.tiny_model()
    with pytest.raises(AssertionError):
        contracts.assert_model_is_left_as_it_was(Careless(), tmp_path, small.rows(), Careless.net)


def test_the_law_about_doing_nothing_can_fail(tmp_path):
    @dataclass(frozen=True)
    class Idle(WeighsTokens):
        def weigh(self, batch):
            return torch.ones_like(batch.input_ids, dtype=torch.float32)

    with pytest.raises(AssertionError, match="all weights are equal"):
        contracts.assert_weight_laws(Idle(), small.batch())


@dataclass(frozen=True)
class Drawn(small.Column):
    number: float = 0.0


@dataclass(frozen=True)
class Restless(Prepares):
    """Breaks the law that preparing twice gives equal results."""

    def prepare(self, context) -> tuple[Drawn, list[Row]]:
        return Drawn(number=float(torch.rand(()))), context.rows


@dataclass(frozen=True)
class Both(Prepares, small.ByPosition):
    """Breaks the law that settings which prepare play no role themselves."""

    def prepare(self, context) -> tuple[small.Column, list[Row]]:
        return small.Column(), context.rows


@pytest.mark.parametrize("settings", [Restless(), Both()])
def test_the_law_about_preparing_can_fail(settings, tmp_path):
    with pytest.raises(AssertionError):
        contracts.assert_prepares(settings, Context(tiny.build("llama"), tiny.tokenizer(), small.rows(), tmp_path))


def test_the_law_about_alignment_can_fail():
    @dataclass(frozen=True)
    class Torn(EditsTokens):
        def edit(self, row, rng):
            columns = {name: tuple(reversed(column)) for name, column in row.columns.items()}
            return Row(row.row_id, row.input_ids, columns=columns)

    with pytest.raises(AssertionError):
        contracts.assert_edit_laws(Torn(), small.rows())


def test_oracle_is_a_product_with_others():
    rows = texts()
    contracts.assert_weights_multiply(Oracle(), Oracle(floor=0.5), Batch.of(rows, tiny.PAD))
