"""One cell of a pretraining: one arm trained with one seed, in a folder of its own. A finished one is never run again.

    cell.json          what the cell is of
    metrics.jsonl      one line per update
    validation.jsonl   nats and bits per byte of the held-out text, with step and seconds
    guided.jsonl       distances of guided heads from their patterns, where there are any
    maps.json          attention of some of them, before and after
    arm.json           written last

are in cells/<arm>/seed-N.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from foci.attention.heads import GuidedHeads
from foci.config import strict_yaml
from foci.corpus.store import rows_key
from foci.focus import Context, Imitates, Method, MixesRows, Plan, Row
from foci.learn.arguments import arguments
from foci.learn.callbacks import Display, Metrics, Probing, Saving
from foci.learn.cells import ArmSeed, cell_path
from foci.learn.inputs import files_of_methods
from foci.learn.offline import check_models, prepare
from foci.methods import build, roles_of
from foci.models import compute_dtype
from foci.models.forward import device_of
from foci.pretrain.config import Pretraining
from foci.pretrain.masking import MaskedCollator, Masking
from foci.pretrain.models import scratch
from foci.pretrain.table import MEASURES
from foci.pretrain.text import Material
from foci.pretrain.trainer import Pretrainer
from foci.pretrain.validation import Validation
from foci.system import checkpoint, machine
from foci.system.files import append_step, read_json, read_lines, sha256, write_json, write_lines
from foci.system.run_folder import RUN, ArmFolder
from foci.system.signals import Stop
from foci.training.dataset import Collator

SHARED = frozenset({"name", "output", "seeds", "arms", "sizes", "grid", "keep_models"})
"""Keys of the file that a cell's numbers do not depend on, its own arm and seed apart."""


@dataclass(frozen=True)
class Cell(ArmSeed):
    """One arm and one seed of a pretraining, and the text."""

    run: Pretraining
    material: Material

    @property
    def path(self) -> Path:
        """The cell's folder, below the pretraining's."""
        return cell_path(self.run.output, self.arm, self.seed)

    @property
    def validation(self) -> Path:
        """The held-out losses, one line per validation; step 0 is before the first update."""
        return self.path / "validation.jsonl"

    def untrained(self) -> PreTrainedModel:
        """Returns the cell's model with random weights, the same every time."""
        run = self.run
        return scratch(run.model_of(self.arm), self.material.tokenizer, run.corpus.max_length, self.seed)

    def key(self) -> dict[str, Any]:
        """Returns all that the cell's numbers depend on."""
        run = {name: value for name, value in self.run.model_dump(mode="json").items() if name not in SHARED}
        methods = self.run.model_dump(mode="json")["arms"][self.arm]
        text = [rows_key(self.material.rows), rows_key(self.material.held_out)]
        size = self.run.model_of(self.arm).model_dump(mode="json")
        files = {str(path): sha256(path) for path in files_of_methods({self.arm: self.run.arms[self.arm]})}
        read = {"file of a method": files} if files else {}
        return {**run, "model": size, "methods": methods, **read, "seed": self.seed, "text": text}

    def result(self) -> dict[str, Any] | None:
        """Returns arm.json of a finished cell, None before. Raises FileExistsError as `check` does."""
        self.check()
        begun = (self.path / "cell.json").is_file()
        return read_json(self.path / "arm.json") if begun else None  # type: ignore[no-any-return]

    def differs(self) -> str:
        """Returns "another ..." with the keys in which the folder's cell.json is not that of this cell."""
        known, own = read_json(self.path / "cell.json"), self.key()
        if known is None or known == own:
            return ""
        there, here = ({name: strict_yaml.dump({name: value}) for name, value in key.items()} for key in (known, own))
        names = sorted({*known, *own})
        other = [name for name in names if not RUN.same(there.get(name, ""), here.get(name, ""))]
        return f"another {', '.join(other)}" if other else ""


def run_cell(cell: Cell, console: Console, stop: Stop) -> None:
    """Trains one cell, or goes on where it stopped. Raises `Interrupted`, `NonFinite` and `DiskFull`."""
    write_json(cell.path / "cell.json", cell.key(), sealed=True)
    folder = ArmFolder(cell.path)
    newest, skipped = checkpoint.newest(folder.checkpoints)
    for path, reason in skipped:
        console.print(f"  skipped checkpoint {path.name}: {reason}", highlight=False, markup=False)
    done = checkpoint.step_of(newest) if newest else 0
    folder.rewind(done)
    write_lines(cell.validation, [line for line in read_lines(cell.validation) if line["step"] <= done])
    with machine.Peak() as peak:
        model, metrics = _trained(cell, folder, console, stop, newest)
    lines = read_lines(cell.validation)
    if cell.run.keep_models:
        model.save_pretrained(folder.model)
        cell.material.tokenizer.save_pretrained(folder.model)
    last = metrics[-1]
    found = {
        **{name: last[name if name != "steps" else "step"] for name in ("steps", "tokens", "seconds")},
        **{name: lines[-1][name] for name in MEASURES},
        "parameters": sum(p.numel() for p in model.parameters()),
        "peak_memory_mib": peak.bytes / 2**20,
        "weights": weights_key(model),
    }
    write_json(folder.result, found, sealed=True)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)


def _trained(
    cell: Cell, folder: ArmFolder, console: Console, stop: Stop, resume: Path | None
) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Trains the model. Returns it after the last update, and the metrics of all updates."""
    run, text = cell.run, cell.material
    model = cell.untrained()
    dtype, masking = compute_dtype(run.dtype, device_of(model).type), masking_of(run, text)
    settings = arguments(run.train, cell.seed, folder.checkpoints, dtype)
    trainer, rows = _trainer(cell, model, folder, settings, masking)
    heads = GuidedHeads.of(trainer.plan, model, rows, text.tokenizer)
    maps = heads and heads.maps(cell.untrained())
    metrics = Metrics(folder, trainer, read_lines(folder.metrics))
    held_out = Validation(text, masking, dtype)

    def ask(step: int) -> None:
        append_step(cell.validation, {"step": step, "seconds": metrics.clock.seconds, **held_out.measure(model)})
        if heads is not None:
            heads.note(model, folder.guided, step)

    display = Display(console, cell.arm)
    asking = Probing(run.held_out.every, ask, metrics.clock)
    for callback in (metrics, asking, Saving(run.train.checkpoint_every, stop), display):
        trainer.add_callback(callback)
    if resume is None:
        ask(0)
    try:
        with stop.deferring():
            trainer.train(resume_from_checkpoint=resume)
    finally:
        display.close()
    lines = read_lines(folder.metrics)
    ask(lines[-1]["step"])
    if heads is not None:
        write_json(folder.maps, {"before": maps, "after": heads.maps(model)})
    return model, lines


def _trainer(
    cell: Cell, model: PreTrainedModel, folder: ArmFolder, settings: TrainingArguments, masking: Masking | None
) -> tuple[Pretrainer, Sequence[Row]]:
    """Runs the offline stages; makes the arm's trainer and its rows. Tokens are hidden after all other edits."""
    run, text = cell.run, cell.material
    methods = Plan([build(spec) for spec in run.arms[cell.arm]], normalise=run.train.normalise)
    plan, rows = prepare(methods, Context(model, text.tokenizer, text.rows, folder.scores, cell.seed))
    if masking is not None:
        plan = Plan([*plan.methods, masking], normalise=plan.normalise)
    set_seed(cell.seed)
    pad = int(text.tokenizer.pad_token_id or 0)
    trainer = Pretrainer(
        model,
        settings,
        plan=plan,
        train_dataset=rows,
        data_collator=Collator(pad) if masking is None else MaskedCollator(pad),
        copies=run.train.copies,
        processing_class=text.tokenizer,
        masked=masking is not None,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, rows


def check(run: Pretraining, text: Material) -> None:
    """Raises ValueError, before anything is trained, where an arm cannot work with the model or the objective."""
    for arm, specs in run.arms.items():
        model = Cell(arm, run.seeds[0], run, text).untrained()
        plan = Plan([build(spec) for spec in specs])
        if any(MixesRows in roles_of(type(method)) for method in plan.methods) and run.objective == "masked":
            raise ValueError(
                f"arm {arm!r} mixes old rows in, whose tokens nothing would hide; masked pretraining has no rehearsal"
            )
        if causal := [method for method in plan.methods if run.objective == "masked" and _is_causal(method)]:
            raise ValueError(
                f"arm {arm!r} has {causal[0]!r}, which asks what a model says of the next token, and a masked model "
                "says what stands at a hidden place; leave it out, or pretrain with objective: causal"
            )
        check_models(plan.methods, model)


def _is_causal(method: Method) -> bool:
    """Returns whether a method asks a model about next tokens, before training or in each update."""
    asks = {"ewc", "grad_profile", "influence", "known", "rho", "stm"}
    return Imitates in roles_of(type(method)) or not asks.isdisjoint(type(method).__module__.split("."))


def masking_of(run: Pretraining, text: Material) -> Masking | None:
    """Returns the edit that hides tokens; None for the causal objective."""
    if run.objective == "causal":
        return None
    known = text.tokenizer
    assert isinstance(known.mask_token_id, int)
    return Masking(known.mask_token_id, frozenset(known.all_special_ids), len(known), run.masks)


def weights_key(model: PreTrainedModel) -> str:
    """Returns 16 hex digits of the SHA-256 of all weights."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {json.dumps(list(parameter.shape))}".encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
