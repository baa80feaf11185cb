"""`foci study` in several processes: the suite of one, and who answered what."""

import json

import runs
import several
import shared_study
import writers


def words_of(corpus, model, out):
    return [
        str(w)
        for w in (
            "study",
            corpus,
            "--writer",
            "self",
            "--base",
            model,
            "--by",
            "passage",
            "--workers",
            "2",
            "--out",
            out,
        )
    ]


def files(folder):
    """What a study wrote, but for the order of the replies and the name of the folder."""
    found = {path.name: path.read_text().replace(str(folder), "OUT") for path in folder.iterdir() if path.is_file()}
    found["requests.jsonl"] = sorted(found["requests.jsonl"].splitlines())
    return found


def test_three_processes_write_the_suite_of_one(tmp_path):
    """Six passages are three batches; each process answers one of them, and the rewrites are dealt out, too."""
    corpus, model = writers.corpus(tmp_path / "pages"), writers.save_model(tmp_path / "model")
    several.called(
        shared_study.study, words_of(corpus, model, tmp_path / "one"), tmp_path / "c", folder=tmp_path, count=1
    )
    (tmp_path / "counts-0.txt").rename(tmp_path / "alone.txt")
    children = several.called(
        shared_study.study, words_of(corpus, model, tmp_path / "three"), tmp_path / "c", folder=tmp_path, count=3
    )
    one, three = files(tmp_path / "one"), files(tmp_path / "three")
    assert json.loads((tmp_path / "three" / "suite.json").read_text())
    assert three.keys() == one.keys()
    for name in one:
        assert name == "run.yaml" or three[name] == one[name]
    answered = [len((tmp_path / f"counts-{n}.txt").read_text().split()) for n in range(3)]
    assert sum(answered) == len((tmp_path / "alone.txt").read_text().split())
    assert min(answered) > 0
    told = [child.out.read_text() for child in children]
    assert "suite: " in told[0]
    assert told[1:] == ["", ""]


def test_real_replies_are_those_of_one_process(tmp_path):
    """A random model writes rubbish, which is kept; all processes end, and one tells why."""
    corpus, model = writers.corpus(tmp_path / "pages", 5), writers.save_model(tmp_path / "model")
    kept = []
    for count in (1, 2):
        out = tmp_path / f"out-{count}"
        children = several.start([*words_of(corpus, model, out), "--questions", "1"], tmp_path, count)
        codes = [child.wait(120) for child in children]
        assert codes[0] == 2
        words = "".join(child.err.read_text() for child in children)
        runs.assert_one_paragraph(words)
        assert "none can be asked" in words
        kept.append(sorted((out / "requests.jsonl").read_text().splitlines()))
    assert kept[0] == kept[1]
    assert len(kept[0]) == 5


def test_a_server_is_asked_by_one_process(tmp_path, monkeypatch, capsys):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with writers.serving() as server:
        words = runs.refused(["study", writers.corpus(tmp_path / "pages"), "--writer", server.url], capsys)
    assert "is a server, got 2 processes" in " ".join(words.split())
    assert not server.asked
