"""The error of a training that diverges."""

from collections.abc import Sequence
from pathlib import Path

from transformers import TrainingArguments

from foci.system import checkpoint


class NonFinite(ArithmeticError):
    """A loss or gradient became NaN or infinite; the update was not applied."""

    @classmethod
    def of(cls, what: str, value: float, update: int, args: TrainingArguments, rows: Sequence[str]) -> "NonFinite":
        """Returns the error of an update (from 1); `rows` are the ids of its rows."""
        last = checkpoint.newest(Path(args.output_dir))[0]
        return cls(
            f"training diverged: the {what} is {value} at update {update}, with the learning rate "
            f"{args.learning_rate:g}; rows in the batch: {', '.join(rows) or 'unknown'}; last good checkpoint: "
            f"{last or 'none'}. The update was not applied. Lower the learning rate (train.learning_rate of a run "
            "file, the default is 0.001), look at these rows, or train in float32"
        )
