"""The share of padding in the demo's batches: as its runs counted it, and by reading its batches without training."""

import json
import tempfile
from pathlib import Path

from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, TrainingArguments

from benchmarks.side_by_side import Allowance, Result
from foci import FocusTrainer, Plan
from foci.config.run import Run, load_run
from foci.corpus import read_corpus
from foci.data.biographies import Biographies
from foci.data.biographies import write as write_biographies
from foci.focus import Row
from foci.models.locate import folder_of

GOAL = 0.10
DEMO = Path("runs/quickstart.yaml")
WHAT = "padding, share of the positions of the demo's batches"


def run(allowed: Allowance) -> list[Result]:
    """Batches of like length (as the demo makes them) beside batches of rows as they come, over all its epochs."""
    demo = load_run(DEMO)
    rows = demo_rows(demo)
    epochs = 1 if allowed.quick else demo.train.epochs or 1
    shares = {
        kind: [padding(rows, demo, kind, epoch) for epoch in range(epochs)] for kind in ("group_by_length", "random")
    }
    grouped = shares["group_by_length" if demo.train.group_by_length else "random"]
    counted = {name: logged(demo.output / "arms" / name / "metrics.jsonl") for name in demo.arms}
    told = ", ".join(f"{name} {share:.2%}" for name, share in counted.items() if share is not None)
    note = f"counted in {demo.output}: {told}" if told else f"{demo.output} has no metrics"
    share = max([*grouped, *(s for s in counted.values() if s is not None)])
    return [
        Result.of(WHAT, "share", [share], [1.0], rival="all positions", goal=GOAL, note=note),
        Result.of(f"{WHAT}, per epoch", "share", grouped, shares["random"], rival="rows in random order"),
    ]


def demo_rows(demo: Run) -> list[Row]:
    """The rows of the demo's corpus, which is written anew where it is not there."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder_of(demo.model.name, trust_remote_code=False)
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = list(demo.corpus.path)
        if not all(Path(path).exists() for path in paths):
            write_biographies(Biographies(), Path(folder))
            paths = [str(Path(folder) / "corpus.jsonl")]
        return list(read_corpus(paths, tokenizer, max_length=demo.corpus.max_length).rows)


def padding(rows: list[Row], demo: Run, strategy: str, epoch: int) -> float:
    """The share of padding in one epoch of the trainer's own loader."""
    most = max(max(row.input_ids) for row in rows)
    config = LlamaConfig(
        vocab_size=most + 1, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            seed=demo.seed,
            per_device_train_batch_size=demo.train.batch_size,
            train_sampling_strategy=strategy,
            use_cpu=True,
            report_to="none",
            dataloader_pin_memory=False,
        )
        trainer = FocusTrainer(
            LlamaForCausalLM(config), arguments, plan=Plan([]), train_dataset=rows, copies=demo.train.copies
        )
        loader = trainer.get_train_dataloader()
        loader.set_epoch(epoch)
        masks = [batch["attention_mask"] for batch in loader]
    return float(1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks))


def logged(metrics: Path) -> float | None:
    """Padding over a whole run by its metrics, every position counting alike."""
    if not metrics.exists():
        return None
    before, tokens, positions = 0, 0, 0.0
    for line in map(json.loads, metrics.read_text(encoding="utf-8").splitlines()):
        read, before = line["tokens"] - before, line["tokens"]
        tokens += read
        positions += read / (1 - line["padding"])
    return float(1 - tokens / positions) if positions else None
