"""Damaged inputs of every kind that foci reads: each is read, or refused in one paragraph that names the file.

A short form runs with the other tests. `make fuzz` tries 2,400 (FOCI_FUZZ=long); one alone: FOCI_FUZZ=corpus:17.
"""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import fuzz
import odd_files
import tiny
from foci import models
from foci.cli.inputs import check_run
from foci.config.run import dump_run, load_run
from foci.corpus import read_corpus
from foci.methods.train_attention import weigher
from foci.probes import read_probes
from foci.probes.encode import encode, encode_prompts
from foci.system import checkpoint

SHORT = {"corpus": 20, "probes": 40, "runs": 30, "models": 4, "adapters": 3, "weighers": 3, "checkpoints": 30}
"""Inputs of each kind that are tried with the other tests."""
LONG = {"corpus": 700, "probes": 500, "runs": 400, "models": 200, "adapters": 200, "weighers": 200, "checkpoints": 200}
"""Inputs of each kind that `make fuzz` tries."""
ASKED = os.environ.get("FOCI_FUZZ", "short")


def numbers(kind):
    """Returns the numbers of a kind's inputs that are tried."""
    name, _, number = ASKED.partition(":")
    if number:
        return [int(number)] if name == kind else []
    return range({"short": SHORT, "long": LONG}[name][kind])


class Tries:
    """The inputs of one kind that were tried; `wrong` says which ended badly."""

    def __init__(self, kind):
        self.kind, self.wrong = kind, []

    def __call__(self, number, read, *names):
        """Reads one input. Whatever is wrong with it is told in one paragraph that names it, for exit status 2.

        A run file may have a line for each wrong key.
        """
        reason = None
        try:
            read()
        except (ValueError, FileNotFoundError, FileExistsError) as error:
            reason = self.flaw(error, names)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if reason:
            self.wrong.append(f"FOCI_FUZZ={self.kind}:{number} {reason[:400]}")

    @staticmethod
    def flaw(error, names):
        words = str(error)
        if isinstance(error, UnicodeError | json.JSONDecodeError):
            return f"another library's words: {error!r}"
        if "\n\n" in words or "Traceback" in words or not words.strip() or len(words) > 4000 + 200 * words.count("\n"):
            return f"no paragraph ({len(words)} characters): {words}"
        return None if any(str(name) in words for name in names) else f"names no file: {words}"

    def end(self):
        assert not self.wrong, f"{len(self.wrong)} inputs:\n" + "\n".join(self.wrong[:25])


SEEDS = {
    ".txt": [odd_files.PROSE.encode(), b"# Title\n\nA page. Another sentence.\n" * 5],
    ".md": [b"# Notes\n\n- one\n- two\n", "東京は日本の首都です。".encode() * 9],
    ".jsonl": [
        b'{"text": "Ada was born in Bern.", "answer_spans": [[16, 20]], "name_spans": [[0, 3]]}\n{"text": "Bea."}\n'
        * 3,
        b'{"text": "A b.", "answer_spans": [[0, 1]], "answer_groups": ["town"]}\n',
    ],
}


def table():
    sink = pa.BufferOutputStream()
    records = [{"text": f"Record {n} tells of Bern.", "answer_spans": [[0, 6]]} for n in range(40)]
    pq.write_table(pa.Table.from_pylist(records), sink)
    return sink.getvalue().to_pybytes()


def test_corpora(tmp_path):
    tokenizer, parquet = tiny.with_first_token(), table()
    tried = Tries("corpus")
    for number in numbers("corpus"):
        draw = fuzz.rng("corpus", number)
        folder = tmp_path / str(number)
        folder.mkdir()
        for n in range(draw.randint(1, 4)):
            ending = draw.choice([*SEEDS, ".parquet", ".jsonl", ".pdf"])
            seed = draw.choice(SEEDS[ending]) if ending in SEEDS else parquet
            if ending == ".jsonl" and draw.random() < 0.5:
                records = [fuzz.changed(json.loads(line), draw) for line in seed.splitlines()]
                seed = b"\n".join(fuzz.written(record, draw) for record in records)
            (folder / f"{n}{ending}").write_bytes(seed if draw.random() < 0.1 else fuzz.damaged(seed, draw))
        settings = {"max_bad": draw.choice([0.0, 0.01, 1.0]), "max_length": draw.choice([8, 32, 128])}
        tried(number, lambda: read_corpus(folder, tokenizer, **settings), folder)  # noqa: B023
        shutil.rmtree(folder)
    tried.end()


PROBES = [
    {"role": "learn", "kind": "cloze", "prompt": "The capital of Wales is", "answer": "Cardiff", "suffix": "."},
    {"id": "b", "role": "retain", "kind": "qa", "prompt": "Where is Bern?", "answer": "Here", "aliases": ["there"]},
    {"role": "learn", "kind": "span", "text": "Bern is old. Bern is new.", "answer": "Bern", "answer_start": 13},
]


def test_probe_files(tmp_path):
    tokenizer = tiny.tokenizer()

    def read(path):
        probes = read_probes(path)
        encode([probe for probe in probes if not probe.text.startswith(probe.answer)], tokenizer)
        encode_prompts([probe for probe in probes if probe.prompt.strip()], tokenizer)

    tried = Tries("probes")
    for number in numbers("probes"):
        draw = fuzz.rng("probes", number)
        lines = (fuzz.changed(probe, draw) if draw.random() < 0.6 else probe for probe in PROBES)
        raw = b"\n".join(fuzz.written(line, draw) for line in lines)
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(fuzz.damaged(raw, draw) if draw.random() < 0.4 else raw)
        tried(number, lambda: read(path), path, "probe '", 'probe "')  # noqa: B023
    tried.end()


RUN = {
    "name": "small", "output": "out/small", "seed": 3, "model": {"name": "smollm2-135m", "dtype": "float32"},
    "corpus": {"path": ["notes"], "max_length": 64, "max_bad": 0.01},
    "probes": {"learn": None, "retain": "general", "every": 3, "batch_size": 4},
    "adapter": {"type": "lora", "r": 4, "alpha": 8, "dropout": 0.1},
    "train": {"epochs": 3, "batch_size": 4, "learning_rate": 0.02, "schedule": "linear"},
    "arms": {"plain": [], "oracle": [{"oracle": {"floor": 0.1}}], "both": ["known", {"rec_adam": {"t0": 5}}]},
}  # fmt: skip


def test_run_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes").mkdir()

    def read(path):
        run = load_run(path)
        check_run(run)
        Path("again.yaml").write_text(dump_run(run), encoding="utf-8")
        assert load_run("again.yaml") == run

    tried = Tries("runs")
    for number in numbers("runs"):
        draw = fuzz.rng("runs", number)
        value = fuzz.changed(RUN, draw) if draw.random() < 0.7 else RUN
        raw = fuzz.written(value, draw) if draw.random() < 0.3 else yaml_of(value)
        path = Path(f"{number}.yaml")
        path.write_bytes(fuzz.damaged(raw, draw) if draw.random() < 0.5 else raw)
        # a path that is not there, and a method of this name, are told by their own words
        tried(number, lambda: read(path), path, "corpus", "probes.", "model", "method")  # noqa: B023
    tried.end()


def yaml_of(value):
    """A value as YAML of JSON's scalars, section by section."""
    if not isinstance(value, dict):
        return json.dumps(value).encode()
    return "\n".join(f"{key}: {json.dumps(inner)}" for key, inner in value.items()).encode("utf-8", "surrogatepass")


def damage(folder, files, draw):
    """Damages one or two of a folder's files: their bytes, or what their JSON says."""
    for file in draw.sample(files, draw.choice([1, 1, 2])):
        raw = (folder / file).read_bytes()
        if draw.random() < 0.4:
            raw = fuzz.damaged(raw, draw)
        elif file.endswith(".json"):
            raw = fuzz.written(fuzz.changed(json.loads(raw), draw, 2), draw)
        else:
            length = int.from_bytes(raw[:8], "little")
            header = fuzz.written(fuzz.changed(json.loads(raw[8 : 8 + length]), draw, 2), draw)
            raw = len(header).to_bytes(8, "little") + header + raw[8 + length :]
        (folder / file).write_bytes(raw)


def test_model_folders(tmp_path):
    whole = tiny.save_model(tmp_path / "whole")
    files = ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"]
    tried = Tries("models")
    for number in numbers("models"):
        draw = fuzz.rng("models", number)
        folder = shutil.copytree(whole, tmp_path / f"model-{number}")
        damage(folder, files, draw)
        tried(number, lambda: models.load(str(folder), device="cpu"), folder)  # noqa: B023
        shutil.rmtree(folder)
    tried.end()


def test_adapter_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("foci.models.locate._fetched", not_here)
    base = tiny.save_model(tmp_path / "base")
    adapted = models.add_adapter(models.load(str(base)).model, models.Adapter(r=2))
    for settings in adapted.peft_config.values():
        settings.base_model_name_or_path = str(base)
    adapted.save_pretrained(tmp_path / "whole", save_embedding_layers=False)
    tried = Tries("adapters")
    for number in numbers("adapters"):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / f"adapter-{number}")
        damage(folder, ["adapter_config.json", "adapter_model.safetensors"], fuzz.rng("adapters", number))
        tried(number, lambda: models.load(str(folder), device="cpu"), folder)  # noqa: B023
        shutil.rmtree(folder)
    tried.end()


def test_weigher_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("foci.models.locate._fetched", not_here)
    made = weigher.new(str(tiny.save_model(tmp_path / "base")), r=2, alpha=4)
    weigher.save(made.weigher, tmp_path / "whole", base=str(tmp_path / "base"), made_by={"how": "amortised"})
    files = ["weigher.json", "head.safetensors", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
    tried = Tries("weighers")
    for number in numbers("weighers"):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / f"weigher-{number}")
        damage(folder, files, fuzz.rng("weighers", number))
        tried(number, lambda: weigher.load(str(folder)), folder)  # noqa: B023
        shutil.rmtree(folder)
    tried.end()


def not_here(name):
    """A damaged name of a base model is never asked of the hub."""
    raise ValueError(f"{name!r} is not on this machine")


def test_checkpoints(tmp_path):
    """A checkpoint with other bytes than were written is never taken for a whole one."""
    with checkpoint.staged(tmp_path, 5) as folder:
        (folder / "weights.bin").write_bytes(b"weights")
        (folder / "state.json").write_bytes(b'{"step": 5}')
    step = tmp_path / "step-5"
    assert checkpoint.newest(tmp_path) == (step, [])
    held = {file.name: file.read_bytes() for file in step.iterdir()}
    tried = Tries("checkpoints")
    for number in numbers("checkpoints"):
        draw = fuzz.rng("checkpoints", number)
        name = draw.choice([checkpoint.MANIFEST, checkpoint.MANIFEST, *held])
        manifest = name == checkpoint.MANIFEST and draw.random() < 0.6
        raw = (
            fuzz.written(fuzz.changed(json.loads(held[name]), draw), draw)
            if manifest
            else fuzz.damaged(held[name], draw)
        )
        (step / name).write_bytes(raw)
        found = []
        tried(number, lambda: found.append(checkpoint.newest(tmp_path)), step)  # noqa: B023
        whole, skipped = found[0] if found else (None, [(step, "not read")])
        assert whole is None or raw == held[name] or same_files(raw, held[name])
        assert whole or skipped[0][1].strip()
        tried(number, lambda: checkpoint.require_complete(step), step)
        (step / name).write_bytes(held[name])
    tried.end()


def same_files(one, other):
    """Whether two manifests promise the same files."""
    try:
        return json.loads(one)["files"] == json.loads(other)["files"]
    except (ValueError, TypeError, KeyError):
        return False
