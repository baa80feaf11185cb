"""Data that comes with foci and data that foci makes.

`general_facts.jsonl` (short general facts to retain), `general_text.md` (a page of general prose),
`biography_pools.json` and `biography_asides.json` (what fictional people are made of), `encyclopedia.json` and
`pages.json` (what fictional entries of an encyclopedia and pages of other kinds are made of) were written for this
project and stand under its licence, Apache-2.0. Nothing in them is copied from another data set. The weigher that comes
with foci (`foci/methods/train_attention/ready_made`) was trained on generated texts
alone (`runs/ready_made_weigher.yaml`); it is an adapter of SmolLM2-135M-Instruct (Apache-2.0), not a copy of it.
"""

from importlib.resources import files
from pathlib import Path


def biography_pools_path() -> Path:
    """The JSON object of lists that `foci.data.biographies` draws names, values and filler from."""
    return Path(str(files("foci.data").joinpath("biography_pools.json")))


def biography_asides_path() -> Path:
    """Words that asides of generated biographies are made of: when, did, what, thing, where."""
    return Path(str(files("foci.data").joinpath("biography_asides.json")))


def encyclopedia_path() -> Path:
    """The JSON object that `foci.data.encyclopedia` takes names, values, sentences and tasks from."""
    return Path(str(files("foci.data").joinpath("encyclopedia.json")))


def pages_path() -> Path:
    """The JSON object that `foci.data.pages` takes names, values, sentences and questions from."""
    return Path(str(files("foci.data").joinpath("pages.json")))
