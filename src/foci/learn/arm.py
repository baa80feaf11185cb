"""Trains the untouched model under one arm's plan, and measures it before, during and after training."""

import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.trainer_callback import PrinterCallback

from foci import models
from foci.attention.heads import GuidedHeads
from foci.config.train import TrainConfig
from foci.focus import MixesRows, Row
from foci.learn import records, sharded
from foci.learn.arguments import arguments, learner, lengthened
from foci.learn.baseline import Start, context_of, load
from foci.learn.callbacks import Display, Metrics, Probing, Saving, empty_updates
from foci.learn.fitting import passes_of
from foci.learn.offline import Summarises, plan_of, prepare
from foci.learn.questions import answered, held_out_learned, without_held_out
from foci.learn.samples import described, sample_entropy, sample_nll
from foci.learn.save import save
from foci.learn.stopping import Ending, Stopping, ending, restore
from foci.learn.trackers import Trackers, run_name, tracked_of
from foci.models.gguf import without_bars
from foci.models.sharding import is_sharded
from foci.probes import Answer, read_answers, summarise, write_answers
from foci.report.measure import losses, reasons, rows_read
from foci.rows import ids_of, lengths_of
from foci.seeds import generator
from foci.system import checkpoint, machine, processes
from foci.system.files import append_step, read_json, read_lines, write_json
from foci.system.run_folder import ArmFolder
from foci.system.signals import Stop
from foci.system.words import counted
from foci.training.passes import Passes
from foci.training.trainer import FocusTrainer


class Arm:
    """One arm of a run, trained and measured; it resumes where an earlier process stopped."""

    def __init__(self, name: str, start: Start, folder: ArmFolder, console: Console, stop: Stop) -> None:
        self.name, self.start, self.folder, self.console, self.stop = name, start, folder, console, stop
        self.plan = plan_of(start.run, name)
        self.heads: GuidedHeads | None = None
        self.trackers: Trackers | None = None

    @without_bars()
    def result(self) -> dict[str, Any]:
        """Returns the arm's part of summary.json: computed, or read where the arm was finished before.

        Every process must call it.
        """
        stops = self.start.run.train.patience is not None
        done = processes.from_first(lambda: records.finished(self.folder, self._say, stops=stops))
        if done is not None:
            self._say(f"finished before, {counted(done['steps'], 'update')}")
            return done
        machine.release_memory()  # of the arm before
        loaded = load(self.start)
        self.plan, rows = prepare(self.plan, context_of(self.start, loaded, self.folder.scores), together=True)
        for method in self.plan.of(Summarises):
            self._say(method.summary())
        self.heads = GuidedHeads.of(self.plan, loaded.model, rows, loaded.tokenizer)
        first = processes.is_first()
        maps = self.heads.maps(loaded.model) if self.heads and first else None
        entropy = sample_entropy(loaded.model, loaded.tokenizer, self.start.samples, self.plan) if first else []
        model = learner(self.start.run, loaded.model, self.plan)
        reach = models.coverage(model)
        if reach.words():
            self._say(reach.words())
        resume = processes.from_first(self._checkpoint_to_resume)
        if self.heads is not None and resume is None and first:
            self.heads.note(model, self.folder.guided, 0)
        machine.release_memory()
        metrics, ended, peak = self._trained(model, rows, loaded, resume)
        model = sharded.whole_again(model, self.start, self.plan)

        def finished() -> dict[str, Any]:
            self._write_samples(model, loaded.tokenizer, rows, entropy)
            if self.heads is not None:
                write_json(self.folder.maps, {"before": maps, "after": self.heads.maps(model)})
            found = {**self._summary(metrics, ended), "adapted": reach.share, "peak_memory_mib": peak}
            return self._saved(model, loaded, found)

        return processes.from_first(finished)

    def _saved(self, model: models.LanguageModel, loaded: models.Loaded, found: Mapping[str, Any]) -> dict[str, Any]:
        """Writes model/, adapter/ and arm.json, which says what was found; returns its content."""
        guessing = math.log(loaded.model.config.get_text_config().vocab_size)
        saved = save(model, loaded.tokenizer, self.folder, self.start.run.model)
        for note in saved.notes:
            self._say(note)
        found = {
            **found, "guessing_loss": guessing, "weights_sha256": saved.sha256, "notes": list(saved.notes)
        }  # fmt: skip
        records.finish(self.folder, found)
        shutil.rmtree(self.folder.best, ignore_errors=True)
        return found

    def _trained(
        self, model: nn.Module, rows: Sequence[Row], loaded: models.Loaded, resume: Path | None
    ) -> tuple[list[dict[str, Any]], Ending | None, float]:
        """Trains and measures the last update, which trackers still log; returns metrics, ending and peak in MiB.

        The peak is that of the process that takes most.
        """
        try:
            with machine.Peak() as own:
                metrics = self._train(model, rows, loaded, resume)
            peak = max(processes.gathered(own.bytes)) / 2**20
            return metrics, self._ended(model, loaded.tokenizer, metrics[-1]["step"]), peak
        finally:
            if self.trackers is not None:
                self.trackers.close()
                self.trackers = None  # it holds the trainer
            machine.release_memory()

    def _ended(self, model: nn.Module, tokenizer: PreTrainedTokenizerFast, last: int) -> Ending | None:
        """Measures the last update; with patience gives the model the best update's weights and says which it is."""
        patience = self.start.run.train.patience
        noted = processes.from_first(lambda: self._is_noted(last))
        if patience is None or not noted:
            self._measure(model, tokenizer, last)
        if patience is None:
            self._ask_earlier(model, tokenizer)
            return None
        if not noted:
            Stopping(patience, self.folder).note(model, last)
        processes.wait()
        found = ending(self.folder, last, patience, self.start.answers)
        restore(model, self.folder.best, found.kept)
        processes.wait()  # the first deletes what all have read
        self._say(found.words(patience))
        self._ask_earlier(model, tokenizer)
        return found

    def _is_noted(self, step: int) -> bool:
        """Tells whether the questions were answered after update `step`: the line of texts is written last."""
        return any(line["step"] == step for line in read_lines(self.folder.texts))

    def _say(self, words: str) -> None:
        """Prints a line about this arm."""
        self.console.print(f"  {self.name}  {words}", highlight=False, markup=False, soft_wrap=True)

    def _write_samples(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerFast,
        rows: Sequence[Row],
        entropy: Sequence[Sequence[float]],
    ) -> None:
        """Writes the weights and losses of the sample rows; `entropy` is the untouched model's, where it is read."""
        before, after = self.start.sample_nll, sample_nll(model, tokenizer, self.start.samples)
        wanted = {row.row_id for row in self.start.samples}
        places = {row_id: place for place, row_id in enumerate(ids_of(rows)) if row_id in wanted}
        shown = [rows[places[row.row_id]] if row.row_id in places else row for row in self.start.samples]
        write_json(self.folder.samples, described(shown, self.plan, tokenizer, before, after, entropy))

    def _checkpoint_to_resume(self) -> Path | None:
        """Returns the checkpoint to go on from; prints which were skipped; deletes all that was written after it."""
        found, skipped = checkpoint.newest(self.folder.checkpoints, partial(records.why_changed, self.folder))
        for path, reason in skipped:
            self._say(f"skipped checkpoint {path.name}: {reason}")
        step = checkpoint.step_of(found) if found else 0
        if found or self.folder.metrics.exists():
            words = f"resumes after update {step}" if found else "starts again"
            self.console.print(f"  {self.name}  {words}", highlight=False, markup=False)
        if found:
            records.cut(self.folder, found)
        self.folder.rewind(step if found else -1)
        write_answers(self.folder.probes(0), self.start.answers)
        append_step(self.folder.texts, {"step": 0, **self.start.texts})
        return found

    def _train(
        self, model: nn.Module, rows: Sequence[Row], loaded: models.Loaded, resume: Path | None
    ) -> list[dict[str, Any]]:
        """Trains; returns the metrics of all updates."""
        run, tokenizer = self.start.run, loaded.tokenizer
        settings, dtype = self._settings(rows), loaded.compute_dtype
        passes = self._passes(settings, model, int(lengths_of(rows).max()), dtype)
        trainer = FocusTrainer(
            model,
            arguments(settings, run.seed, self.folder.checkpoints, dtype, self._tracked()),
            plan=self.plan,
            train_dataset=rows,
            copies=run.train.copies,
            goes_on=run.continues is not None,
            passes=passes,
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        metrics = Metrics(self.folder, trainer, read_lines(self.folder.metrics), ids_of(rows))
        display = Display(self.console, self.name)
        patience = run.train.patience
        asking = Probing(
            run.probes.every,
            lambda step: self._measure(model, tokenizer, step),
            metrics.clock,
            often=patience is not None,
            noted=self._is_noted,
        )
        stopping = [] if patience is None else [Stopping(patience, self.folder)]
        self.trackers = self._trackers(trainer)
        saving = Saving(run.train.checkpoint_every, self.stop)
        for callback in (metrics, self.trackers, asking, *stopping, saving, records.Records(self.folder), display):
            trainer.add_callback(callback)
        try:
            with self.stop.deferring():
                trainer.train(resume_from_checkpoint=resume)
        finally:
            display.close()
        return processes.from_first(lambda: read_lines(self.folder.metrics))

    def _passes(self, settings: TrainConfig, model: models.LanguageModel, longest: int, dtype: torch.dtype) -> Passes:
        """Returns how rows of up to `longest` tokens pass through the model; says what is out of the ordinary.

        Shares the model out among the processes where the run file says so.
        """
        passes, told = passes_of(settings, model, longest, dtype, shares=processes.size() if settings.fsdp else 1)
        for words in told:
            self._say(words)
        if settings.fsdp:
            self._say(sharded.shared_out(model, self.plan))
        return passes

    def _settings(self, rows: Sequence[Row]) -> TrainConfig:
        """Returns the run's settings of training, with as many updates as this arm has."""
        run = self.start.run
        if run.train.steps is not None:
            return run.train
        mixed = (mixer.mix(0, generator(run.seed, "mix", 0, n)) for n, mixer in enumerate(self.plan.of(MixesRows)))
        return lengthened(run.train, len(rows) * run.train.copies + sum(map(len, mixed)))

    def _tracked(self) -> tuple[str, str] | None:
        """Returns the project and the name of this arm's run in trackers; None where there are none."""
        run = self.start.run
        tracks = bool(run.train.report_to) and processes.is_first()
        return (run.name, run_name(run, self.name, self.folder)) if tracks else None

    def _trackers(self, trainer: FocusTrainer) -> Trackers:
        """Returns the callback that logs to the trackers of the run file."""
        names = self.start.run.train.report_to if processes.is_first() else ()
        first = {**self._accuracy_at(0), **self.start.texts} if names else {}
        return Trackers(names, self.folder.tensorboard, first, lambda: tracked_of(trainer), self._say)

    def _measure(self, model: nn.Module, tokenizer: PreTrainedTokenizerFast, step: int) -> None:
        """Asks in all processes, and writes the answers and the bits per byte of the model after update `step`."""
        with self.stop.abandoning():
            answers, texts = self.start.questions.ask(model, tokenizer)
        if self.heads is not None and (processes.is_first() or is_sharded(model)):
            self.heads.note(model, self.folder.guided, step, writes=processes.is_first())
        if processes.is_first():
            self._write_measures(step, answers, texts)
        processes.wait()  # training may end early by what was written

    def _write_measures(self, step: int, answers: Sequence[Answer], texts: Mapping[str, float | None]) -> None:
        if answers:
            write_answers(self.folder.probes(step), answers, self.start.answers)
        append_step(self.folder.texts, {"step": step, **texts})
        if self.trackers is not None:
            self.trackers.measured(step, {**self._accuracy_at(step), **texts})

    def _ask_earlier(self, model: nn.Module, tokenizer: PreTrainedTokenizerFast) -> None:
        """Writes the answers to the probes of earlier pages, in a run that goes on."""
        if self.start.earlier is not None:
            found = answered(model, tokenizer, self.start.earlier.probes, self.start.questions.batch_size)
            if processes.is_first():
                write_answers(self.folder.earlier, found)

    def _batches(self, after: Sequence[Answer], bits: float | None) -> dict[str, Any]:
        """Returns what each batch of pages taught and what was kept of it, in a run that goes on."""
        earlier = self.start.earlier
        if earlier is None:
            return {}
        return {"batches": earlier.after(self.start.answers, after, read_answers(self.folder.earlier), bits)}

    def _summary(self, metrics: Sequence[dict[str, Any]], ended: Ending | None) -> dict[str, Any]:
        """Returns the numbers of a trained arm: answers and bits per byte before and after, time and tokens."""
        last, texts = metrics[-1], {line["step"]: line for line in read_lines(self.folder.texts)}
        path = [{"step": step, **self._accuracy_at(step), **texts[step]} for step in sorted(texts)]
        kept = last["step"] if ended is None else ended.kept
        after = self._answers(kept)
        return {
            "methods": [repr(method) for method in self.plan.methods],
            **summarise(without_held_out(self.start.answers), without_held_out(after)),
            "held_out": held_out_learned(self.start.answers, after),
            "not_learned": self._not_learned(rows_read(metrics, kept), after),
            **{
                name: {"before": self.start.texts.get(name), "after": texts[kept].get(name)}
                for name in ("bits_per_byte", "corpus_bits_per_byte", "binding")
            },
            "path": path,
            "loss": losses(metrics),
            "learning_rate": self.start.run.train.learning_rate,
            "steps": last["step"],
            **self._batches(after, texts[kept].get("bits_per_byte")),
            **({} if ended is None else {"kept": {"step": kept, "early": ended.early}}),
            "tokens": last["tokens"],
            "seconds": last["seconds"],
            "padding": sum(line["padding"] for line in metrics) / len(metrics),
            "empty_updates": empty_updates(metrics),
        }

    def _answers(self, step: int) -> list[Answer]:
        """Reads the answers after update `step`, none where nothing was asked."""
        return read_answers(self.folder.probes(step)) if self.folder.probes(step).exists() else []

    def _not_learned(self, read: frozenset[str] | None, after: Sequence[Answer]) -> dict[str, int]:
        """Counts the probes to learn that are not answered, by the reason; `read` are the rows that were read."""
        rows = read_json(self.start.evidence) or {}
        evidence = {
            probe.id: {"made": probe.made, "rows": rows.get(probe.id)}
            for probe in self.start.questions.probes
            if probe.role == "learn"
        }
        before = [vars(answer) for answer in self.start.answers]
        return reasons(before, [vars(answer) for answer in after], evidence, read)

    def _accuracy_at(self, step: int) -> dict[str, Any]:
        """Returns the shares learned and retained after update `step`; None for probes that are not asked."""
        found: dict[str, Any] = summarise(without_held_out(self.start.answers), without_held_out(self._answers(step)))
        names = ("learned_whole", "retained_whole", "learned", "retained")
        return {name: found[name] and found[name]["after"] for name in names}
