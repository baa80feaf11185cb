"""Compares weighers on texts that they did not learn from: how much weight lies on the tokens that are asked for.

    python tools/weighers.py ready-made out/more-kinds-weigher/weigher [--corpus out/lama_ckl/corpus.jsonl]

The texts are made here: pages of three kinds and encyclopedic entries of another seed, and the demo's biographies; a
corpus with `answer_spans` is another one. Nothing is trained. By text and weigher, the means over documents:
  top 5 %   how often an answer is among the 5 % of tokens of largest weight (by chance .05 for each answer token)
  order     the share of pairs of an answer token and another token in which the answer weighs more (by chance .50)
  share     the share of the document's weight on answers, weights to the power of 2 as in training
  tokens    the share of the document's tokens that are answers: the share of equal weights
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from foci.corpus import read_corpus
from foci.data import biographies, encyclopedia, pages
from foci.focus import Row
from foci.methods.train_attention.weigher import Loaded, load, weigh_rows

SEED = 7
POWER = 2.0
UNSEEN = ("minutes", "datasheet", "faq")
"""Kinds of pages that `runs/more_kinds_weigher.yaml` leaves out."""


def texts(folder: Path, count: int) -> dict[str, Path]:
    """Writes the texts into a folder and returns their files by name."""
    made = {kind: folder / f"{kind}.jsonl" for kind in UNSEEN}
    records = pages.generate(50 * count, SEED)
    for kind, file in made.items():
        some = [record for record in records if record["kind"] == kind]
        file.write_text("".join(json.dumps(record) + "\n" for record in some), encoding="utf-8")
    made["encyclopedia"] = encyclopedia.write(count, SEED, folder / "encyclopedia.jsonl")
    settings = biographies.Biographies(people=max(1, count // 6), texts=6, names="always", asides=5, seed=SEED)
    made["biographies"] = biographies.write(settings, folder / "biographies") / "corpus.jsonl"
    return made


def figures(weights: Tensor, answer: Tensor) -> list[float]:
    """Returns top 5 %, order, share and tokens of one document, without its first token."""
    weights, answer = weights[1:], answer[1:] > 0
    on, off = weights[answer], weights[~answer]
    larger = (on[:, None] > off).float() + 0.5 * (on[:, None] == off).float()
    top = weights.topk(-(-len(weights) * 5 // 100)).indices
    sharp = weights.pow(POWER)
    return [
        float(answer[top].any()),
        float(larger.mean()),
        float(sharp[answer].sum() / sharp.sum()),
        float(answer.float().mean()),
    ]


def means(loaded: Loaded, rows: Sequence[Row]) -> list[float]:
    """Returns the means of the figures over the rows that have answers and other tokens."""
    asked = [row for row in rows if 0 < sum(row.columns.get("answer", (0.0,))[1:]) < len(row) - 1]
    if not asked:
        sys.exit(f"none of {len(rows)} documents has an answer and other tokens; give a corpus with answer_spans")
    weighed = weigh_rows(loaded, asked, loaded.tokenizer)
    found = [
        figures(torch.tensor(line), torch.tensor(row.columns["answer"]))
        for line, row in zip(weighed, asked, strict=True)
    ]
    return torch.tensor(found).mean(0).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tools/weighers.py", description=__doc__.splitlines()[0])
    parser.add_argument("weighers", nargs="+", metavar="WEIGHER", help="ready-made, or a folder that foci meta wrote")
    parser.add_argument("--corpus", action="append", default=[], metavar="FILE", help="a corpus with answer_spans")
    parser.add_argument("--documents", type=int, default=60, help="documents of each text, about")
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        files = texts(Path(folder), chosen.documents) | {Path(file).parent.name: Path(file) for file in chosen.corpus}
        print(f"{'text':14}{'weigher':34}{'top 5 %':>8}{'order':>7}{'share':>7}{'tokens':>8}")
        for name in chosen.weighers:
            loaded = load(name)
            for text, file in files.items():
                rows = read_corpus(file, loaded.tokenizer, max_length=256).rows[: chosen.documents]
                top, order, share, tokens = means(loaded, rows)
                print(f"{text:14}{name[-32:]:34}{top:8.2f}{order:7.3f}{share:7.3f}{tokens:8.3f}", flush=True)


if __name__ == "__main__":
    main()
