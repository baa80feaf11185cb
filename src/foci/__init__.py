"""foci teaches a language model new knowledge from a small corpus, and measures what it learned and forgot.

`foci learn` does it all from the command line; the same from Python, with weights on the tokens that matter:

>>> import tempfile
>>> from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
>>> from foci import FocusTrainer, Plan, Row, token_nll, Batch
>>> from foci.methods.oracle import Oracle
>>> model = LlamaForCausalLM(LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
...                                      num_attention_heads=2))
>>> rows = [Row("a", (1, 5, 6, 7), columns={"answer": (0, 0, 0, 1)}),
...         Row("b", (1, 5, 8), columns={"answer": (0, 0, 1)})]
>>> batch = Batch.of(rows, pad_id=0)
>>> before = token_nll(model, batch)  # nats; that of token t stands at t
>>> arguments = TrainingArguments(tempfile.mkdtemp(), num_train_epochs=20, learning_rate=0.05, save_strategy="no",
...                               report_to="none", disable_tqdm=True, use_cpu=True)
>>> trainer = FocusTrainer(model, arguments, plan=Plan([Oracle()]), train_dataset=rows)
>>> result = trainer.train()  # doctest: +ELLIPSIS
{'train_runtime': ...}
>>> bool((token_nll(model, batch)[0, 3] < before[0, 3] - 1).item())  # the answer was learned
True
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from foci.config.run import Run, load_run
    from foci.focus import (
        Batch,
        Context,
        EditsTokens,
        GuidesHeads,
        HoldsWeights,
        Imitates,
        LiveTeacher,
        MixesRows,
        Plan,
        Prepares,
        Row,
        ScalesLayers,
        SoftTargets,
        StoredTeacher,
        WeighsTokens,
    )
    from foci.models.losses import token_nll, weighted_mean
    from foci.training.trainer import FocusMixin, FocusTrainer

_HOMES = {
    "config.run": ("Run", "load_run"),
    "focus": (
        "Batch", "Context", "EditsTokens", "GuidesHeads", "HoldsWeights", "Imitates", "LiveTeacher", "MixesRows",
        "Plan", "Prepares", "Row", "ScalesLayers", "SoftTargets", "StoredTeacher", "WeighsTokens",
    ),
    "models.losses": ("token_nll", "weighted_mean"),
    "training.trainer": ("FocusMixin", "FocusTrainer"),
}  # fmt: skip

__all__ = [
    "Batch",
    "Context",
    "EditsTokens",
    "FocusMixin",
    "FocusTrainer",
    "GuidesHeads",
    "HoldsWeights",
    "Imitates",
    "LiveTeacher",
    "MixesRows",
    "Plan",
    "Prepares",
    "Row",
    "Run",
    "ScalesLayers",
    "SoftTargets",
    "StoredTeacher",
    "WeighsTokens",
    "load_run",
    "token_nll",
    "weighted_mean",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: `foci --help` and `foci report` need no torch."""
    from importlib import import_module
    from importlib.metadata import version

    if name == "__version__":
        return version("foci")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"foci.{home}"), name)
    raise AttributeError(f"module 'foci' has no attribute {name!r}; it has {', '.join(__all__)}")
