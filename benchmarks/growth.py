"""How time and memory grow with the length of rows, their number, the vocabulary, and the number of probes.

A small Llama with random weights and an adapter, trained as `foci learn` trains it beside Transformers' Trainer, and
asked as `foci probe` asks it beside one pass for each probe. tools/speed.py draws the curves.
"""

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback

from benchmarks.lean import MOST
from benchmarks.probing import one_by_one, spread
from benchmarks.sft import NAMES, TRAINER, maker
from benchmarks.side_by_side import Allowance, Result, Spent, Spread, allocated_peak_mib, device, in_turns
from benchmarks.training import Setting, timed_steps
from foci import models
from foci.models.locate import folder_of
from foci.probes import Probe, answer, general, read_probes

ONE_BY_ONE = "one by one, all logits"
SIDES = ("foci", "rival")


@dataclass(frozen=True)
class Curve:
    """What grows, in which steps, and the rows of an update at each step."""

    name: str
    axis: str
    sizes: tuple[int, ...]
    rows: int = 4
    length: int = 128
    vocabulary: int = 8192

    def at(self, size: int) -> "Curve":
        return replace(self, **{self.name: size})

    @property
    def what(self) -> str:
        return f"small Llama, {self.rows} x {self.length} tokens, vocabulary {self.vocabulary:,}"


CURVES = (
    Curve("length", "tokens of a row", (64, 128, 256, 512)),
    Curve("rows", "rows of an update", (2, 4, 8, 16)),
    Curve("vocabulary", "vocabulary", (4096, 8192, 16384, 32768)),
)
PROBES = (12, 24, 48, 96)
Point = tuple[dict[str, list[Spent]], dict[str, float]]
"""What the turns of both sides took, and the most memory of tensors of each, in MiB."""


def run(allowed: Allowance) -> list[Result]:
    """Two rows for every curve, time and memory at its largest size; the curve itself stands in results.json."""
    each, found = allowed.part(1 / (len(CURVES) + 1)), []
    for curve in CURVES:
        sizes = curve.sizes[:2] if allowed.quick else curve.sizes
        points = [update(curve.at(size), each.part(size / sum(sizes))) for size in sizes]
        found += results(curve.name, curve.axis, f"update, {curve.at(sizes[-1]).what}", NAMES[TRAINER], sizes, points)
    sizes, asking = PROBES[:2] if allowed.quick else PROBES, Asking()
    points = [asking.at(size, each.part(size / sum(sizes))) for size in sizes]
    return [*found, *results("probes", "probes", f"asking {sizes[-1]} probes, small Llama", ONE_BY_ONE, sizes, points)]


def results(name: str, axis: str, what: str, rival: str, sizes: Sequence[int], points: Sequence[Point]) -> list[Result]:
    def curve(values: Callable[[str, Point], float]) -> dict[str, object]:
        named = {"name": name, "axis": axis, "sizes": list(sizes)}
        return named | {side: [values(side, point) for point in points] for side in SIDES}

    kind = "clock" if torch.cuda.is_available() else "processor"
    spent, most = points[-1]
    return [
        Result.timed(
            f"{what}, time", *(spent[side] for side in SIDES), rival=rival,
            curve=curve(lambda side, point: Spread.of([getattr(s, kind) for s in point[0][side]]).median),
        ),
        Result.of(
            f"{what}, most memory of tensors", "MiB", *([most[side]] for side in SIDES), rival=rival,
            curve=curve(lambda side, point: point[1][side]),
        ),
    ]  # fmt: skip


def small(vocabulary: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=2048, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(device()).eval()


def update(curve: Curve, allowed: Allowance) -> Point:
    """The time and the memory of an update of both sides."""
    model = models.add_adapter(small(curve.vocabulary), models.Adapter())
    dtype = models.compute_dtype("auto", device().type)
    setting = Setting(curve.what, model, curve.vocabulary, dtype, curve.rows, curve.length)
    most, warmup = 1, 1
    rows = setting.rows(most + warmup, MOST)
    makers = {"foci": maker("foci", rows), "rival": maker(TRAINER, rows)}
    spent, _ = timed_steps(setting, makers, allowed.turns(most, warmup))

    def memory(side: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            one = {"foci": "foci", "rival": TRAINER}[side]
            trainer = maker(one, setting.rows(1, MOST))(copy.deepcopy(model), setting.arguments(folder))
            trainer.remove_callback(PrinterCallback)
            return allocated_peak_mib(trainer.train)

    return spent, {side: memory(side) for side in SIDES}


class Asking:
    """The small model with SmolLM2's vocabulary, and foci's general facts."""

    def __init__(self) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder_of("smollm2-135m", trust_remote_code=False)
        )
        self.model = small(len(self.tokenizer))
        self.probes = read_probes(general.general_facts_path(), "retain")

    def at(self, count: int, allowed: Allowance) -> Point:
        probes = spread(self.probes, count)
        calls: dict[str, Callable[[], object]] = {
            "foci": partial(answer, self.model, self.tokenizer, probes), "rival": partial(self.one_by_one, probes)
        }  # fmt: skip
        spent = in_turns(calls, 3, allowed)
        return spent, {side: allocated_peak_mib(call) for side, call in calls.items()}

    def one_by_one(self, probes: Sequence[Probe]) -> None:
        one_by_one(self.model, self.tokenizer, probes)
