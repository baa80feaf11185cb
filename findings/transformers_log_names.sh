#!/usr/bin/env bash
# Transformers' trackers show eval_learned under eval/, and eval/learned under train/eval/
#
# Packages: torch==2.13.0, transformers==5.23.0, accelerate==1.15.0
# Guess:    A logged name that already has its group, such as 'eval/learned', is shown as it is.
# Seen:     rewrite_logs, which TensorBoard, W&B, trackio and others share, turns 'eval_learned' into 'eval/learned', and
#           'eval/learned' into 'train/eval/learned'; 'test/x' becomes 'train/test/x'.
# Matters:  A metric written under the name that the tracker shows is filed under training.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
venv/bin/python - <<'PY'
import transformers
from transformers.integrations.integration_utils import rewrite_logs

shown = list(rewrite_logs({"eval_learned": 1.0, "eval/learned": 1.0, "test/x": 1.0}))
print("transformers", transformers.__version__, shown)
assert shown == ["eval/learned", "train/eval/learned", "train/test/x"]
PY
