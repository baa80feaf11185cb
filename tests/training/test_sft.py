"""The mixin on TRL's SFTTrainer: its own data preparation, our weights."""

import warnings

import pytest
import torch

import small
import tiny
from foci import FocusMixin, Plan
from foci.focus import Batch
from foci.models.losses import token_nll
from training import Recorder

trl = pytest.importorskip("trl", reason="needs TRL (pip install trl)")
datasets = pytest.importorskip("datasets", reason="needs datasets (comes with TRL)")


class FocusSFT(FocusMixin, trl.SFTTrainer):
    """What a user writes."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weighed", [True, False])
def test_sft_trainer_takes_a_plan(tmp_path, weighed):
    model, tokenizer = tiny.build("llama", vocab=tiny.VOCAB), tiny.tokenizer()
    texts = ["Ada lives in Rome.", "Ben was born in Oslo.", "Cy works.", "Dora reads old maps."]
    ids = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    seq = max(map(len, ids))
    b = Batch(
        torch.tensor([row + [0] * (seq - len(row)) for row in ids]),
        torch.tensor([[1] * len(row) + [0] * (seq - len(row)) for row in ids]),
        torch.tensor([row + [-100] * (seq - len(row)) for row in ids]),
    )
    weights = b.predicted() * (small.ByPosition().weigh(b) if weighed else 1.0)
    expected = float((token_nll(model, b).detach() * weights).sum() / weights.sum())
    recorder = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = FocusSFT(
            model,
            trl.SFTConfig(
                str(tmp_path), per_device_train_batch_size=4, max_steps=1, logging_steps=1, report_to="none",
                disable_tqdm=True, use_cpu=True, bf16=False, save_strategy="steps", save_steps=1,
            ),
            plan=Plan([small.ByPosition()] if weighed else []),
            train_dataset=datasets.Dataset.from_dict({"text": texts}),
            processing_class=tokenizer,
            callbacks=[recorder],
        )  # fmt: skip
        trainer.train()
    assert recorder.losses[0] == pytest.approx(expected, abs=1e-4)
    assert (tmp_path / "step-1" / "manifest.json").exists()
