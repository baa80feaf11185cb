#!/usr/bin/env bash
# lighteval's ProbabilityMetric gives the probability of whichever choice is likeliest, whether it is right or wrong
#
# Packages: lighteval==0.13.0, torch==2.13.0, transformers==5.24.0
# Guess:    "prob" is the mean probability of the right choice, as its description says ("the probability of the gold choice",
#           "ignoring probabilities of other choices"): .05 where the model gives .9 to a wrong choice and .05 to the right one.
# Seen:     It is .9, whichever choice is right: the largest probability of all choices is taken, and gold_index is not used at
#           all (Probability.compute in metrics/metrics_sample.py). A model that has each question wrong and is sure of it has
#           prob .9 and acc 0, and after it has learned half of the answers prob is the same. On the same rows
#           NormalizedMultiChoiceProbMetric takes the right choice. With aggregation_function=np.mean it is the mean over the
#           choices. Nothing is said.
# Matters:  The probability of the right answer is what one watches while a small model learns, since it moves before the
#           accuracy does. This one rises where a model grows sure of wrong answers, and falls where it begins to doubt them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet lighteval==0.13.0 torch==2.13.0 transformers==5.24.0
cat > shown.py <<'PY'
import math
from importlib.metadata import version

import numpy as np

from lighteval.metrics.dynamic_metrics import LogLikelihoodAccMetric, NormalizedMultiChoiceProbMetric, ProbabilityMetric
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.requests import Doc

choices = [" 5 bar", " 50 bar", " 500 bar"]
metrics = [ProbabilityMetric(), NormalizedMultiChoiceProbMetric(), LogLikelihoodAccMetric()]


def measured(metric, rows):
    """The mean over questions; a row has the probabilities of the choices and the place of the right one."""
    values = []
    for probabilities, right in rows:
        doc = Doc(query="At which pressure does the valve open?", choices=choices, gold_index=right)
        response = ModelResponse(
            logprobs=[math.log(probability) for probability in probabilities], output_tokens=[[1], [2], [3]],
            argmax_logits_eq_gold=[False] * 3)
        values += metric.compute_sample(doc=doc, model_response=response).values()
    return float(np.mean(values))


sure = [0.9, 0.05, 0.04]
runs = {
    "all wrong": [(sure, 1), (sure, 2), (sure, 1), (sure, 2)],
    "half right": [(sure, 0), (sure, 0), (sure, 1), (sure, 2)],
    "all right": [(sure, 0)] * 4,
    "wrong, with doubt": [([0.4, 0.3, 0.2], 1)] * 4,
}
print("lighteval", version("lighteval"))
seen = {name: [measured(metric, rows) for metric in metrics] for name, rows in runs.items()}
for name, (prob, normalized, acc) in seen.items():
    print(f"{name}: prob {prob:.3f}, normalized_mc_prob {normalized:.3f}, acc {acc:.2f}")
assert [round(seen[name][0], 3) for name in runs] == [0.9, 0.9, 0.9, 0.4]
assert [round(seen[name][2], 3) for name in runs] == [0, 0.5, 1, 0]
assert seen["all wrong"][1] < 0.06 and abs(seen["all right"][1] - 0.9 / 0.99) < 1e-6
assert seen["wrong, with doubt"][1] > 5 * seen["all wrong"][1]
mean = measured(ProbabilityMetric(aggregation_function=np.mean), runs["all wrong"])
print(f"with np.mean: {mean:.3f}")
assert abs(mean - np.mean(sure)) < 1e-6
PY
HF_HUB_OFFLINE=1 venv/bin/python shown.py
