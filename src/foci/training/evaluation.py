"""Evaluation: the labels of rows that it reads, and the folder of the best checkpoint that it names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerState

from foci.training.dataset import Collator


class EvaluatesRows:
    """Evaluates rows by the Trainer's own loss, whatever the plan weighs: of each batch the mean over its tokens of a
    weight above 0, and the mean of these.

    So `eval_loss` is one quantity under every plan: that of the answers, where rows are conversations.
    """

    data_collator: Any

    def get_eval_dataloader(self, *given: Any, **more: Any) -> Any:
        """Returns the Trainer's own, with labels on the tokens of a weight above 0 alone."""
        with self._labelled():
            return super().get_eval_dataloader(*given, **more)  # type: ignore[misc]

    def get_test_dataloader(self, *given: Any, **more: Any) -> Any:
        """Returns the Trainer's own, with labels on the tokens of a weight above 0 alone."""
        with self._labelled():
            return super().get_test_dataloader(*given, **more)  # type: ignore[misc]

    @contextmanager
    def _labelled(self) -> Iterator[None]:
        own = self.data_collator
        if isinstance(own, Collator):
            self.data_collator = replace(own, labelled=True)
        try:
            yield
        finally:
            self.data_collator = own


def with_best(state: TrainerState, root: Path, folder: Path) -> Path:
    """Names the best checkpoint by the place where it will stand, and returns the folder that is being written.

    The Trainer looks for it in `folder`, which is moved to `root` afterwards.
    """
    step = state.best_global_step
    if step and (step == state.global_step or (root / f"step-{step}").is_dir()):
        state.best_model_checkpoint = str(root / f"step-{step}")
        state.save_to_json(str(folder / "trainer_state.json"))
    return folder
