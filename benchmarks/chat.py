"""`foci chat` on SmolLM2-135M: the time until both models have said their first words, and the time per token.

A user waits by the clock, so the first words and the pace are judged by it; other work on the machine makes both look
worse. Processor seconds compare with the rival, which writes the answers of both models, with PEFT's adapter off and
on, by Transformers' `generate`.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig

from benchmarks.side_by_side import Allowance, Result, device
from foci import models
from foci.chat.adapted import BOTH
from foci.chat.session import Session
from foci.chat.writing import Decoding, Writing
from foci.config.run import Run, dump_run
from foci.corpus import make_rows, write_rows
from foci.corpus.documents import Document
from foci.learn.chosen import choose
from foci.models.gguf import quiet
from foci.models.loading import compute_dtype, load_weights
from foci.models.saved_adapter import with_adapter
from foci.system.files import sha256

QUESTION = "How many days of leave does everybody get?"
TEXT = "Everybody gets 27 days of leave a year. Leave that is not taken by March is lost."
FIRST = 5.0
"""Seconds until the first words, at most."""
PER_TOKEN = 1 / 20
TOKENS = 32
BEGIN = """
import time
from pathlib import Path
from foci.cli import main
from foci.cli.chat import _loaded
from foci.learn.chosen import choose
session, said = _loaded(choose(Path({run!r})), (64, 0.0, 0), plain=False), set()
for piece in session.answer({question!r}):
    said.add(piece.side)
    if len(said) == 2:
        break
print(time.process_time(), time.time())
"""
"""What the command does until both models have said something."""


def run(allowed: Allowance) -> list[Result]:
    """The start in processes of their own, and each side against `generate`, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        where = made(Path(folder) / "run")
        starts = [start(where) for _ in range(1 if allowed.quick else 2)]
        note = f"{min(used for used, _ in starts):.1f} processor seconds, {torch.get_num_threads()} threads"
        return [
            Result.of(
                "foci chat: first words of both models after the command, SmolLM2-135M", "s",
                [clock for _, clock in starts], [FIRST] * len(starts), rival="five seconds", goal=1.0, note=note,
            ),
            *compared(where, 1 if allowed.quick else 2),
        ]  # fmt: skip


def made(folder: Path) -> Path:
    """Writes a run whose only arm has an adapter with random weights, as `foci learn` leaves it."""
    torch.manual_seed(0)
    loaded = models.load("smollm2-135m")
    settings = Run.of_flags(folder / "text.txt", output=folder, overrides=["arms={plain: []}"])
    adapted = models.add_adapter(loaded.model, settings.adapter)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1e-3)
    folder.mkdir()
    (folder / "text.txt").write_text(TEXT)
    adapted.peft_config["default"].base_model_name_or_path = "smollm2-135m"
    adapted.save_pretrained(folder / "adapter", save_embedding_layers=False)
    (folder / "run.yaml").write_text(dump_run(settings))
    (folder / "arm.json").write_text(
        json.dumps({"weights_sha256": sha256(folder / "adapter" / "adapter_model.safetensors")})
    )
    rows = make_rows([Document(TEXT, "text.txt", 1)], loaded.tokenizer, max_length=64).rows
    write_rows(rows, folder / "rows.parquet")
    return folder


def start(where: Path) -> tuple[float, float]:
    """Processor seconds, and seconds on the clock, of a process until both models have said something."""
    begun = time.time()
    code = BEGIN.format(run=str(where), question=QUESTION)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used, ended = map(float, done.stdout.split())
    return used, ended - begun


def compared(where: Path, repeats: int) -> list[Result]:
    """Processor seconds per token that both models write, beside `generate`'s for one after the other, in turns.

    And the seconds on the clock for a token of each.
    """
    session, rival = Session(choose(where), Decoding(TOKENS)), adapted(where)
    tokenizer = session.sides.tokenizer
    asked = [said.ids(QUESTION, 999) for said in session.said]
    settings, given = exactly(TOKENS, tokenizer), torch.tensor(asked[:1], device=device())
    tokens: dict[str, list[list[int]]] = {}

    def generated() -> list[int]:
        with torch.inference_mode(), quiet():
            out = rival.generate(input_ids=given, attention_mask=torch.ones_like(given), generation_config=settings)
        return out[0, given.shape[1] :].tolist()  # type: ignore[no-any-return]

    def theirs() -> None:
        with rival.disable_adapter():
            untouched = generated()
        tokens["theirs"] = [untouched, generated()]

    def ours() -> None:
        writing = Writing(session.sides.models[0], tokenizer, asked, session.decoding)
        writing._ends = frozenset()
        while not writing.ended:
            writing.advance(2)
        tokens["ours"] = [answer.tokens for answer in writing.answers]

    session.sides.use(BOTH)
    used: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    for number in range(repeats + 1):
        for name, work in (("ours", ours), ("theirs", theirs)):
            spent = measured(work)
            if number:
                used[name].append(spent)
    alike = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in zip(*tokens.values(), strict=True)]
    processor, clock = ([[t[n] / TOKENS for t in used[who]] for who in ("ours", "theirs")] for n in (0, 1))
    note = f"{rival.dtype}, {alike[0]} and {alike[1]} of {TOKENS} tokens are alike".replace("torch.", "")
    paces = f"{1 / min(clock[0]):.0f} tokens/s of each at best; generate: {1 / min(clock[1]):.0f}"
    what = "foci chat: a token of both models"
    return [
        Result.of(what, "processor s", *processor, rival="generate, one after the other", goal=1.0, note=note),
        Result.of(
            f"{what}, on the clock", "s", clock[0], [PER_TOKEN] * repeats, rival="20 a second", goal=1.0, note=paces
        ),
    ]


def adapted(where: Path) -> PeftModel:
    """The model of a run as PEFT loads it, in the number format of `foci chat`."""
    dtype = compute_dtype("auto", device().type)
    base = load_weights("smollm2-135m", dtype=dtype)
    model = with_adapter(base, where / "adapter", str(where))
    return model.to(device(), dtype).eval()


def exactly(count: int, tokenizer: Any) -> GenerationConfig:
    """Settings of `generate` by which an answer has that many tokens, each the likeliest."""
    return GenerationConfig(
        max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip


def measured(work: Callable[[], None]) -> tuple[float, float]:
    processor, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - processor, time.perf_counter() - clock
