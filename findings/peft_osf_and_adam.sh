#!/usr/bin/env bash
# With AdamW, PEFT's OSF does move the directions that it says are frozen
#
# Packages: peft==0.21.2, torch==2.13.0 (transformers is installed by peft)
# Guess:    OSF (orthogonal subspace fine-tuning) trains the small singular directions of a weight and keeps the change
#           orthogonal to the large ones: U_high^T dW = 0 and dW V_high = 0.
# Seen:     It projects the gradients. With SGD the change is orthogonal, up to rounding. Adam divides every coordinate by
#           its own scale, so that its step leaves the subspace: after 20 steps a good part of the change lies in the
#           directions that should be kept.
# Matters:  The protection against forgetting that is the method's point holds with SGD alone; everybody trains with Adam.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet peft==0.21.2 torch==2.13.0
cat > shown.py <<'PY'
from importlib.metadata import version

import torch
from peft import OSFConfig, get_peft_model


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Linear(24, 32, bias=False)

    def forward(self, x):
        return self.one(x)


def kept_share(make, steps=20):
    """The share of the change, by its norm, that lies in the frozen left and right directions."""
    torch.manual_seed(0)
    net = Net()
    before = net.one.weight.detach().double().clone()
    model = get_peft_model(net, OSFConfig(target_modules=["one"], effective_rank=12))
    optimizer = make([p for p in model.parameters() if p.requires_grad])
    x, y = torch.randn(64, 24), torch.randn(64, 32)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    change = model.merge_and_unload().one.weight.detach().double() - before
    left, _, right = torch.linalg.svd(before, full_matrices=False)
    return [float((part.norm() / change.norm()).item()) for part in (left[:, :12].T @ change, change @ right[:12].T)]


sgd = kept_share(lambda p: torch.optim.SGD(p, lr=1e-2))
adam = kept_share(lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.0))
print("peft", version("peft"), "share of the change in frozen directions (left, right): SGD", sgd, "AdamW", adam)
assert max(sgd) < 1e-3
assert min(adam) > 0.1
PY
venv/bin/python shown.py
