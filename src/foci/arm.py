"""One arm of a run: the model as it was, trained under one plan, and everything that is measured on the way."""

import gc
import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from rich.console import Console
from torch import nn
from transformers import PreTrainedTokenizerFast, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from foci import checkpoint, memory, models
from foci.adapters import save_k_adapter
from foci.combine import block_scales
from foci.config import Run, TrainConfig
from foci.embedded import without_bars
from foci.focus import Context, Plan, Prepares, Row
from foci.folder import ArmFolder, append_line, read_json, read_lines, write_json
from foci.guided_heads import GuidedHeads
from foci.measure import Questions, described, row_nll, scored
from foci.methods import build
from foci.probes import Answer, read_answers, summarise, write_answers
from foci.stopping import Stop
from foci.train import FocusTrainer
from foci.watch import Display, Metrics, Probing, Saving


@dataclass(frozen=True)
class Start:
    """What all arms of a run share: rows, questions, and the frozen baseline."""

    run: Run
    rows: Sequence[Row]
    questions: Questions
    answers: Sequence[Answer]
    texts: dict[str, float | None]
    samples: Sequence[Row]
    sample_nll: Sequence[Sequence[float | None]]
    fingerprint: str


class Arm:
    """Trains and measures one arm; resumes where an earlier process stopped."""

    def __init__(self, name: str, start: Start, folder: ArmFolder, console: Console, stop: Stop) -> None:
        self.name, self.start, self.folder, self.console, self.stop = name, start, folder, console, stop
        self.plan = plan_of(start.run, name)
        self.heads: GuidedHeads | None = None

    @without_bars()
    def result(self) -> dict[str, Any]:
        """The arm's part of summary.json, computed or, where the arm was finished before, read."""
        done = read_json(self.folder.result)
        if done is not None:
            self.console.print(
                f"  {self.name}  finished before, {done['steps']} updates", highlight=False, markup=False
            )
            return done  # type: ignore[no-any-return]
        gc.collect()  # trainer and model of the arm before hold each other: gigabytes in a handful of objects
        loaded = load(self.start)
        self.plan, rows = prepare(self.plan, context_of(self.start, loaded, self.folder.scores))
        for words in filter(None, (method.told() for method in self.plan.methods if isinstance(method, Prepares))):
            self.console.print(f"  {self.name}  {words}", highlight=False, markup=False, soft_wrap=True)
        self.heads = GuidedHeads.of(self.plan, loaded.model, rows, loaded.tokenizer)
        maps = self.heads and self.heads.maps(loaded.model)
        model = learner(self.start.run, loaded.model, self.plan)
        resume = self._newest()
        if self.heads is not None and resume is None:
            self.heads.note(model, self.folder.guided, 0)
        memory.reset_peak()
        metrics, peak = self._train(model, rows, loaded, resume)
        last = metrics[-1]
        self._ask(model, loaded.tokenizer, last["step"])
        nll = row_nll(model, loaded.tokenizer, self.start.samples)
        ids = {row.row_id: row for row in rows}
        shown = [ids.get(row.row_id, row) for row in self.start.samples]
        if self.heads is not None:
            write_json(self.folder.maps, {"before": maps, "after": self.heads.maps(model)})
        write_json(self.folder.samples, described(shown, self.plan, loaded.tokenizer, self.start.sample_nll, nll))
        saved = save(model, loaded.tokenizer, self.folder, self.start.run.model.name)
        found = {**self._summary(metrics), "peak_memory_mib": peak, "weights_sha256": saved}
        write_json(self.folder.result, found)
        return found

    def _newest(self) -> Path | None:
        """The checkpoint to go on from; says what was passed over. Forgets what came after it."""
        found, skipped = checkpoint.newest(self.folder.checkpoints)
        for path, reason in skipped:
            self.console.print(
                f"  {self.name}  skipped checkpoint {path.name}: {reason}", highlight=False, markup=False
            )
        step = checkpoint.step_of(found) if found else 0
        if found or self.folder.metrics.exists():
            words = f"resumes after update {step}" if found else "starts again"
            self.console.print(f"  {self.name}  {words}", highlight=False, markup=False)
        self.folder.rewind(step)
        write_answers(self.folder.probes(0), self.start.answers)
        if not read_lines(self.folder.texts):
            append_line(self.folder.texts, {"step": 0, **self.start.texts})
        return found

    def _train(
        self, model: nn.Module, rows: Sequence[Row], loaded: models.Loaded, resume: Path | None
    ) -> tuple[list[dict[str, Any]], float | None]:
        """The metrics of all updates, and the peak memory of training in MiB."""
        run, tokenizer = self.start.run, loaded.tokenizer
        trainer = FocusTrainer(
            model,
            arguments(run.train, run.seed, self.folder.checkpoints, loaded.compute_dtype),
            plan=self.plan,
            train_dataset=rows,
            copies=run.train.copies,
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        metrics = Metrics(self.folder, trainer, (read_lines(self.folder.metrics) or [{}])[-1])
        display = Display(self.console, self.name)
        asking = Probing(run.probes.every, lambda step: self._ask(model, tokenizer, step), metrics.clock)
        for callback in (metrics, asking, Saving(run.train.checkpoint_every, self.stop), display):
            trainer.add_callback(callback)
        try:
            with self.stop.deferring():
                trainer.train(resume_from_checkpoint=resume)
        finally:
            display.close()
        return read_lines(self.folder.metrics), memory.peak_mib()

    def _ask(self, model: nn.Module, tokenizer: PreTrainedTokenizerFast, step: int) -> None:
        answers, texts = self.start.questions.ask(model, tokenizer)
        if answers:
            write_answers(self.folder.probes(step), answers, self.start.answers)
        append_line(self.folder.texts, {"step": step, **texts})
        if self.heads is not None:
            self.heads.note(model, self.folder.guided, step)

    def _summary(self, metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
        last, texts = metrics[-1], {line["step"]: line for line in read_lines(self.folder.texts)}
        path = [{"step": step, **self._point(step), **texts[step]} for step in sorted(texts)]
        after = self._answers(last["step"])
        return {
            "methods": [repr(method) for method in self.plan.methods],
            **summarise(scored(self.start.answers), scored(after)),
            **{
                name: {"before": self.start.texts.get(name), "after": texts[last["step"]].get(name)}
                for name in ("bits_per_byte", "corpus_bits_per_byte", "binding")
            },
            "path": path,
            "steps": last["step"],
            "tokens": last["tokens"],
            "seconds": last["seconds"],
            "padding": sum(line["padding"] for line in metrics) / len(metrics),
            "empty_updates": sum(line["weighted_tokens"] == 0 for line in metrics),
        }

    def _answers(self, step: int) -> list[Answer]:
        return read_answers(self.folder.probes(step)) if self.folder.probes(step).exists() else []

    def _point(self, step: int) -> dict[str, Any]:
        found: dict[str, Any] = summarise(scored(self.start.answers), scored(self._answers(step)))
        return {name: found[name] and found[name]["after"] for name in ("learned", "retained")}


def plan_of(run: Run, arm: str) -> Plan:
    """The plan of one arm, before its offline halves have run."""
    return Plan([build(spec) for spec in run.arms[arm]], normalise=run.train.normalise)


def context_of(start: Start, loaded: models.Loaded, folder: Path) -> Context:
    """What offline halves may look at, and the questions they may not learn from."""
    return Context(loaded.model, loaded.tokenizer, start.rows, folder, start.run.seed, start.questions.prompts())


def prepare(plan: Plan, context: Context) -> tuple[Plan, Sequence[Row]]:
    """Runs the offline halves, one after another: the plan of the online halves, and the rows they will read."""
    online, rows = [], context.rows
    for number, method in enumerate(plan.methods):
        if isinstance(method, Prepares):
            folder = own_folder(context, number, method)
            folder.mkdir(parents=True, exist_ok=True)
            method, rows = method.prepare(replace(context, rows=rows, folder=folder))  # noqa: PLW2901
        online.append(method)
    return Plan(online, normalise=plan.normalise), rows


def own_folder(context: Context, number: int, method: Prepares) -> Path:
    """Where the method that stands in a plan at `number` keeps what its offline half makes."""
    return context.folder / f"{number}-{type(method).__name__.lower()}"


def load(start: Start) -> models.Loaded:
    """The untouched model; ValueError where it is not the one the run began with."""
    loaded = models.load(
        start.run.model.name, dtype=start.run.model.dtype, trust_remote_code=start.run.model.trust_remote_code
    )
    if loaded.fingerprint != start.fingerprint:
        raise ValueError(
            f"model {start.run.model.name} is not the one this run began with (fingerprint {loaded.fingerprint}, "
            f"began with {start.fingerprint}); put the old one back, or start again with --overwrite"
        )
    return loaded


def learner(run: Run, model: models.LanguageModel, plan: Plan | None = None) -> models.LanguageModel:
    """The model as training sees it: with a fresh adapter, the same for every arm, or with all weights free.

    Blocks that the plan (of online halves) freezes have no adapter.
    """
    scales = block_scales(plan or Plan(), model)
    set_seed(run.seed)
    if run.adapter is None:
        return model
    adapted = models.add_adapter(model, models.Adapter(**run.adapter.model_dump()))
    models.spare(adapted, {block for block, scale in scales.items() if not scale})
    return adapted


def arguments(train: TrainConfig, seed: int, output: Path, dtype: torch.dtype) -> TrainingArguments:
    """The run file in the Trainer's words."""
    schedule = {"constant": "constant_with_warmup"}.get(train.schedule, train.schedule)
    settings = TrainingArguments(
        output_dir=str(output),
        seed=seed,
        num_train_epochs=train.epochs or 1,
        max_steps=train.steps or -1,
        per_device_train_batch_size=train.batch_size,
        gradient_accumulation_steps=train.accumulation,
        learning_rate=train.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        bf16=dtype == torch.bfloat16,
        train_sampling_strategy="group_by_length" if train.group_by_length else "random",
        save_strategy="no",
        save_total_limit=train.keep_checkpoints,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    if settings.n_gpu > 1:
        settings._n_gpu = 1  # a run uses one device
    return settings


def save(model: nn.Module, tokenizer: PreTrainedTokenizerFast, folder: ArmFolder, base: str) -> str:
    """Writes model/ (whole, for Transformers) and adapter/ (for PEFT); the SHA-256 of the trained weights.

    A K-Adapter has no place in a Transformers model, so there is no model/, which would lose what was learned; its
    adapter/ (with the tokenizer) is for `models.load`.
    """
    trained = folder.model
    if isinstance(model, models.KAdapterModel):
        with _replacing(folder.adapter) as part:
            save_k_adapter(model, part, base)
            tokenizer.save_pretrained(part)
        return checkpoint.sha256(folder.adapter / "adapter_model.safetensors")
    if isinstance(model, PeftModel):
        trained = folder.adapter
        for settings in model.peft_config.values():
            settings.base_model_name_or_path = base
        with _replacing(folder.adapter) as part, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT looks for the base model's config on the hub
            model.save_pretrained(part, save_embedding_layers=False)
        model = model.merge_and_unload()
    with _replacing(folder.model) as part:
        model.save_pretrained(part)  # type: ignore[operator]
        tokenizer.save_pretrained(part)
    hashes = {path.name: checkpoint.sha256(path) for path in sorted(trained.glob("*.safetensors"))}
    return next(iter(hashes.values())) if len(hashes) == 1 else json.dumps(hashes)


class _replacing:  # noqa: N801
    """A folder written beside its place and renamed into it."""

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_name(f".{path.name}.part")

    def __enter__(self) -> Path:
        shutil.rmtree(self.part, ignore_errors=True)
        self.part.mkdir(parents=True)
        return self.part

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            shutil.rmtree(self.path, ignore_errors=True)
            self.part.rename(self.path)
        else:
            shutil.rmtree(self.part, ignore_errors=True)
