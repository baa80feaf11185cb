"""Run by test_processes.py under torchrun: trains on two processes and writes losses and weights."""

import json
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parent))

import torch  # noqa: E402

import small  # noqa: E402
from training import model, trained  # noqa: E402

METHODS = [small.Column(), small.Dropped(), small.LookTwoWays(), small.Imitating()]

if __name__ == "__main__":
    out = Path(sys.argv[1])
    net, losses = trained(
        out / "run", small.rows(12), METHODS, start=model(),
        per_device_train_batch_size=2, train_sampling_strategy="sequential", optim="sgd", learning_rate=0.1,
        save_strategy="steps", save_steps=2, ddp_backend="gloo", ddp_find_unused_parameters=False,
    )  # fmt: skip
    if int(torch.distributed.get_rank()) == 0:
        (out / "losses.json").write_text(json.dumps(losses))
        torch.save({name: p.detach() for name, p in net.named_parameters()}, out / "weights.pt")
