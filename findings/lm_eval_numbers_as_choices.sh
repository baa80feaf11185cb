#!/usr/bin/env bash
# lm_eval takes the right answer "2" for the third choice, and shows that wrong choice in its few-shot examples
#
# Packages: lm_eval==0.4.13, datasets==5.2.0
# Guess:    A multiple-choice task with doc_to_target: "{{answer}}" takes the choice whose text is the answer, whether choices
#           are words or numbers, and `doc_to_target: answer`, without the braces, is the same.
# Seen:     With words the two are the same. Where the answer is digits alone, the braces make it an index, counted from 0: of
#           the choices 1, 2, 3, 4, 5 the answer "2" stands for "3". A model that chooses right three times has acc .333 (only
#           where the number stands at its own index), and one that says 3, 4, 2 for 2, 3, 2 has 1.0. The examples of
#           a few-shot prompt show the wrong choice too. Without the braces acc is 1.0. No error and no warning, unless the
#           number is larger than any index (then a warning in the log, or an IndexError where it is the first row).
# Matters:  Questions for a count, a size or a grade are scored by other answers than the file has, in a task where those with
#           words are right. The examples teach the model the wrong ones. (task.py: doc_to_target)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet lm_eval==0.4.13 datasets==5.2.0
export HF_HUB_OFFLINE=1 HF_HOME="$work/hf"
venv/bin/python - <<'PY'
import json
import logging
import os
from importlib.metadata import version

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

rows = {
    "numbers": [
        ("How many wheels has a bicycle?", "2", ["1", "2", "3", "4", "5"]),
        ("How many sides has a triangle?", "3", ["1", "2", "3", "4", "5"]),
        ("How many eyes has a cat?", "2", ["5", "1", "2", "3", "4"]),
    ],
    "far": [  # 7 is no index of four choices
        ("How many eyes has a cat?", "2", ["3", "1", "2", "4"]),
        ("How many days has a week?", "7", ["5", "6", "7", "8"]),
    ],
    "words": [
        ("How many wheels has a bicycle?", "two", ["one", "two", "three"]),
        ("How many sides has a triangle?", "three", ["one", "two", "three"]),
    ],
}
os.mkdir("tasks")
for name, group in rows.items():
    with open(f"{name}.jsonl", "w") as file:
        for question, answer, choices in group:
            file.write(json.dumps({"question": question, "answer": answer, "choices": choices}) + "\n")
    for form, target in (("bare", "answer"), ("braces", "{{answer}}")):
        with open(f"tasks/{name}_{form}.yaml", "w") as file:
            json.dump({  # JSON is YAML
                "task": f"{name}_{form}", "dataset_path": "json", "test_split": "test", "fewshot_split": "test",
                "dataset_kwargs": {"data_files": {"test": os.path.abspath(f"{name}.jsonl")}},
                "output_type": "multiple_choice", "doc_to_text": "Q: {{question}}\nA:", "doc_to_target": target,
                "doc_to_choice": "choices",
                "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            }, file)


class Chooser(LM):
    """Chooses what it was told to choose; keeps the prompts."""

    def __init__(self, chosen):
        super().__init__()
        self.chosen, self.prompts = chosen, []

    def loglikelihood(self, requests):
        self.prompts += [request.args[0] for request in requests]
        pairs = [(self.chosen[prompt.split("Q: ")[-1][:-3]], choice.strip()) for prompt, choice in (r.args for r in requests)]
        return [(0.0 if wanted == choice else -10.0, False) for wanted, choice in pairs]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


class Warned(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


warned = Warned()
logging.getLogger().addHandler(warned)
logging.getLogger("lm_eval").addHandler(warned)
manager = TaskManager(include_path="tasks", include_defaults=False)


def ask(task, chosen, shots=0):
    model = Chooser(chosen)
    result = lm_eval.simple_evaluate(
        model=model, tasks=[task], task_manager=manager, num_fewshot=shots, bootstrap_iters=0, log_samples=False)
    return result["results"][task]["acc,none"], model.prompts


print("lm_eval", version("lm_eval"))
acc = {}
for name in ("numbers", "words"):
    group = rows[name]
    right = {question: answer for question, answer, _ in group}
    for form in ("bare", "braces"):
        acc[name, form], _ = ask(f"{name}_{form}", right)
        print(f"{name}, {form}: acc of right choices {acc[name, form]:.3f}")
wrong = {question: choices[int(answer)] for question, answer, choices in rows["numbers"]}
acc_wrong, _ = ask("numbers_braces", wrong)
print(f"numbers, braces: acc of the choices {list(wrong.values())}: {acc_wrong:.3f}")
right = {question: answer for question, answer, _ in rows["numbers"]}
_, bare = ask("numbers_bare", right, shots=2)
_, braces = ask("numbers_braces", right, shots=2)


def examples(prompts):
    """Question and answer of all examples that stand before the question of a prompt."""
    return {tuple(part.removeprefix("Q: ").split("\nA: ")) for prompt in prompts for part in prompt.split("\n\n")[:-1]}


told = {"bare": examples(bare), "braces": examples(braces)}
print("examples, bare:", sorted(told["bare"]))
print("examples, braces:", sorted(told["braces"]))


def about_targets():
    return [line for line in warned.lines if "index" in line]


before = about_targets()
acc_far, _ = ask("far_braces", {question: answer for question, answer, _ in rows["far"]})
after = about_targets()
print(f"numbers: {len(before)} warnings; with the answer 7 of four choices: acc {acc_far}, {len(after)} warning: {after}")
assert acc["words", "bare"] == acc["words", "braces"] == acc["numbers", "bare"] == 1.0
assert abs(acc["numbers", "braces"] - 1 / 3) < 1e-9 and acc_wrong == 1.0
assert told["bare"] == set(right.items()) and told["braces"] == set(wrong.items()) != told["bare"]
assert not before and len(after) >= 1 and acc_far == 0.5
PY
