"""`foci study` against servers that are honest, slow, failing and lying; a kill loses, doubles and repeats nothing."""

import json
import random
import signal
import time

import pytest

import runs
import writers
from foci.config.run import load_run
from foci.probes import read_probes
from foci.study.checks import folded
from foci.study.settings import Settings
from foci.study.writers import server as server_writer
from writers import Answer


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("foci.study.writers.server.FIRST_WAIT", 0.01)


@pytest.fixture
def corpus(tmp_path):
    return writers.corpus(tmp_path / "pages")


def arguments(corpus, server, out, *more):
    return ["study", corpus, "--writer", getattr(server, "url", server), "--out", out, *more]


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_suite_is_what_foci_learn_reads(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    with writers.serving() as server:
        said = runs.told(arguments(corpus, server, out, "--price-in", "2", "--price-out", "10"), capsys)
    assert "to ask: 6 requests for questions and at most 12 for rewrites, about 4," in said
    assert "which cost 0.0" in said
    assert "this run: 16 requests answered, 1,600 tokens read and 800 written, which cost 0.0112" in said
    assert "24, 19 to learn and 5 held out" in said
    assert f"learn from it: foci learn {out / 'run.yaml'}" in said
    rows = lines(out / "corpus.jsonl")
    assert [len([row for row in rows if row["id"].startswith(kind)]) for kind in ("pas", "que", "rew")] == [6, 19, 10]
    assert all(row["source"].startswith(str(corpus)) for row in rows)
    learn, held = (read_probes(out / name) for name in ("learn.jsonl", "held_out.jsonl"))
    assert (len(learn), len(held)) == (19, 5)
    assert {probe.made for probe in learn} == {"writer"}
    trained = [folded(f"{row.get('text', '')} {row.get('prompt', '')}") for row in rows if row["id"][:3] != "pas"]
    for probe in (*learn, *held):
        assert not [text for text in trained if folded(probe.prompt) in text]
    for probe in held:
        place = probe.source.rpartition("/")[2].partition(".")[0].title()
        assert probe.evidence in next(row["text"] for row in rows if row["source"] == probe.source)
        assert not [text for text in trained if probe.answer in text and folded(place) in text]


def test_foci_learns_from_the_suite_by_its_folder_or_its_run_file(corpus, tmp_path, capsys):
    out, model = tmp_path / "out", tmp_path / "model"
    runs.tiny.save_model(model)
    with writers.serving() as server:
        runs.told(arguments(corpus, server, out, "--base", str(model)), capsys)
    assert load_run(out / "run.yaml").probes.held_out == str(out / "held_out.jsonl")
    changes = ["train.steps=1", "corpus.max_length=120", "arms={plain: []}", "probes.retain=null", "probes.text=null"]
    runs.told(["learn", str(out), *changes], capsys)
    summary = json.loads((out / "run" / "summary.json").read_text())
    assert summary["arms"]["plain"]["learn_probes"] == 19
    rows = json.loads((out / "run" / "corpus.json").read_text())
    assert (rows["quarantined"], rows["duplicates"], rows["repeated"]) == (0, 0, 0)
    assert rows["documents"] == 6 + 19 + 10


def test_what_was_answered_is_not_asked_again(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    with writers.serving() as server:
        runs.told(arguments(corpus, server, out), capsys)
        before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
        said = runs.told(arguments(corpus, server, out), capsys)
        assert "6 of 6 requests for questions were answered before" in said
        assert "to ask: 0 requests for questions and at most 2 for rewrites" in said
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
        assert max(server.asked.values()) == 1
        runs.told(arguments(corpus, server, out, "--questions", "3"), capsys)
        assert sum(server.asked.values()) == 22  # another prompt is another request


def test_dry_run_and_limit(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    said = runs.told(arguments(corpus, "http://127.0.0.1:9/v1", out, "--limit", "2", "--dry-run"), capsys)
    assert "to ask: 2 requests for questions and at most 4 for rewrites" in said
    assert not out.exists()


def test_ten_kills_lose_double_and_repeat_nothing(tmp_path):
    """A reply that was on the disk at the kill is never asked for again; of those under way, as many as workers are."""
    corpus, out, workers = writers.corpus(tmp_path / "pages", 24), tmp_path / "out", 3
    rng, kills = random.Random(0), 10
    requests = out / "requests.jsonl"

    def slow(prompt, before):
        return Answer(writers.honest(prompt, before), delay=0.02 + 0.02 * random.random())

    with writers.serving(slow) as server:
        wanted = arguments(corpus, server, out, "--workers", str(workers), "--rewrites", "1")
        for _ in range(kills):
            kept = {line["key"]: line for line in whole_lines(requests)}
            least = sum(server.asked.values()) + rng.randint(1, 4)
            child = runs.start(wanted, tmp_path)
            child.until(lambda least=least: sum(server.asked.values()) >= least)
            time.sleep(0.05 * rng.random())
            child.signal(signal.SIGKILL)
            child.wait()
            time.sleep(0.1)  # what the server still sends
            after = whole_lines(requests)
            assert len({line["key"] for line in after}) == len(after)
            assert all(line == kept[line["key"]] for line in after if line["key"] in kept)
            assert len({line["key"] for line in after} & kept.keys()) == len(kept)
            assert sum(server.answered.values()) - len(after) <= workers * kills
        runs.finished(wanted, tmp_path)
    after = lines(requests)
    assert len({line["key"] for line in after}) == len(after) == len(server.asked)
    assert sum(server.asked.values()) > len(server.asked)  # a kill came while requests were under way
    assert sum(server.asked.values()) - len(server.asked) <= workers * kills
    assert len(lines(out / "corpus.jsonl")) > 3 * 24


def whole_lines(path):
    raw = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]


def test_a_torn_line_is_cut_off_and_a_damaged_one_is_asked_again(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    with writers.serving() as server:
        runs.told(arguments(corpus, server, out), capsys)
        kept = (out / "requests.jsonl").read_bytes().splitlines(keepends=True)
        (out / "requests.jsonl").write_bytes(b"".join([kept[0], kept[1][:50] + b"\n", *kept[2:-1], kept[-1][:-40]]))
        said = runs.told(arguments(corpus, server, out), capsys)
        assert "1 damaged line; what they held is asked again" in said
        assert sum(server.asked.values()) == 18
    good = [line for line in (out / "requests.jsonl").read_bytes().splitlines() if line != kept[1][:50]]
    assert sorted(json.loads(line)["key"] for line in good) == sorted(json.loads(line)["key"] for line in kept)


def test_a_server_that_fails_now_and_then_is_asked_again(corpus, tmp_path, capsys):
    def failing(prompt, before):
        if before == 0:
            return Answer(status=500)
        if before == 1:
            return Answer(status=429, headers={"retry-after": "0.01"}, body=b'{"error": {"message": "slow down"}}')
        if before == 2:
            return Answer(body=writers.completion("x")[:-30])
        if before == 3:
            return Answer(body=b"<html>welcome</html>", headers={"content-type": "text/html"})
        return writers.honest(prompt)

    with writers.serving(failing) as server:
        said = runs.told(arguments(corpus, server, tmp_path / "out"), capsys)
    assert set(server.asked.values()) == {5}
    assert "24 written, 24 kept" in said
    assert "left for the next run" not in said


def test_requests_that_keep_failing_are_left_for_the_next_run(corpus, tmp_path, capsys):
    out = tmp_path / "out"

    def stalling(prompt, _before):
        wrong = {
            "Arlen": Answer(delay=5.0),
            "Borvik": Answer(status=503, body=b""),
            "Cadmoor": Answer(status=400, body=b"{}"),
        }
        late = Answer(status=429, headers={"retry-after": "3600"})
        return next((made for place, made in {**wrong, "Dellby": late}.items() if place in prompt), None) or (
            writers.honest(prompt)
        )

    more = ("--timeout", "0.5", "--retries", "1")
    with writers.serving(stalling) as server:
        said = runs.told(arguments(corpus, server, out, *more), capsys)
        assert "questions: 8 written, 8 kept" in said
        for reason in ("4 requests got no reply", "and 1 other reasons"):
            assert reason in said
        told = ["no answer within 0.5 s (1)", "HTTP 503: no reason given (1)", "HTTP 400", "asks to wait 3,600 s"]
        assert sum(reason in said for reason in told) == 3
        asked = {place: max(n for p, n in server.asked.items() if place in p) for place in writers.PLACES[:4]}
        assert asked == {"Arlen": 2, "Borvik": 2, "Cadmoor": 1, "Dellby": 1}
    with writers.serving() as server:
        assert "24 written, 24 kept" in runs.told(arguments(corpus, server, out), capsys)


def test_the_wait_between_attempts_grows_up_to_the_longest(corpus, tmp_path, capsys, monkeypatch):
    """With 8 attempts or more a wait was longer than 60 s, and that was told as the server's wish."""
    monkeypatch.setattr(server_writer, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(server_writer, "LONGEST_WAIT", 0.004)
    with writers.serving(lambda prompt, before: Answer(status=500) if before < 5 else writers.honest(prompt)) as server:
        said = runs.told(arguments(corpus, server, tmp_path / "out", "--retries", "5"), capsys)
    assert "24 written, 24 kept" in said
    assert "left for the next run" not in said


def test_a_server_that_fails_always_ends_the_run(corpus, tmp_path, capsys):
    with writers.serving(lambda *_: Answer(status=500)) as server:
        words = runs.refused(
            arguments(corpus, server, tmp_path / "out", "--retries", "0", "--workers", "1"), capsys, code=1
        )
    assert "failed 4 times in a row, last with: HTTP 500" in words


def test_a_server_that_breaks_down_leaves_what_it_answered(corpus, tmp_path, capsys):
    served = []

    def breaking(prompt, before):
        served.append(prompt)
        return writers.honest(prompt, before) if len(served) <= 2 else Answer(status=500)

    more = ("--retries", "0", "--workers", "1", "--rewrites", "0", "--words", "40")
    with writers.serving(breaking) as server:
        said = runs.told(arguments(corpus, server, tmp_path / "out", *more), capsys)
    assert len(served) == 6
    assert "not asked, as the server had failed 4 times in a row" in said
    assert (tmp_path / "out" / "run.yaml").is_file()


def test_a_setting_that_a_server_refuses_is_left_out(corpus, tmp_path, capsys):
    def refusing(prompt, _before):
        body = json.loads(server.headers[-1]["body"])
        for name in ("max_tokens", "temperature", "stream_options"):
            if name in body:
                error = {"error": {"message": f"Unsupported parameter: '{name}' is not supported with this model."}}
                return Answer(status=400, body=json.dumps(error).encode())
        return writers.honest(prompt)

    with writers.serving(refusing) as server:
        said = runs.told(arguments(corpus, server, tmp_path / "out", "--workers", "1", "--retries", "0"), capsys)
    assert "24 written, 24 kept" in said
    assert sum(server.asked.values()) == 16 + 3


def test_a_server_that_writes_slowly_is_waited_for_and_one_that_stalls_is_not(corpus, tmp_path, capsys):
    """The timeout is the time without a word. When it is over the connection is closed: the server can stop writing."""

    def slow(prompt, before):
        if "Arlen" not in prompt or prompt.startswith("Rewrite"):
            return writers.honest(prompt, before)
        stalls = Answer(pieces=["[{", *["x"] * 9], pause=0.7)
        return stalls if before == 0 else Answer(writers.honest(prompt), pause=0.1)

    more = ("--timeout", "0.5", "--retries", "1", "--rewrites", "0")
    with writers.serving(slow) as server:
        said = runs.told(arguments(corpus, server, tmp_path / "out", *more), capsys)
        deadline = time.monotonic() + 5
        while not sum(server.left.values()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "24 written, 24 kept" in said
        assert [n for prompt, n in server.asked.items() if "Arlen" in prompt] == [2]
        assert [n for prompt, n in server.left.items() if n and "Arlen" in prompt] == [1]


def test_a_stream_that_ends_early_is_asked_for_again_and_one_that_loops_is_ended(corpus, tmp_path, capsys):
    read = []

    def endless():
        for n in range(100_000):
            read.append(n)
            yield f"{n}. What is the text about?\n"

    def odd(prompt, before):
        if "Arlen" in prompt:
            return Answer(pieces=endless())
        if "Borvik" in prompt and before == 0:
            body = b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "[{"}}]}\n\n'
            return Answer(body=body, headers={"content-type": "text/event-stream"})
        if "Cadmoor" in prompt and before == 0:
            body = b'data: {"error": "out of memory"}\n\n'
            return Answer(body=body, headers={"content-type": "text/event-stream"})
        if "Estrand" in prompt and before == 0:
            return Answer(writers.honest(prompt), whole=True, is_cut=True)
        if "Farnow" in prompt and before == 0:
            return Answer(body=b"data: ", headers={"content-type": "text/event-stream"}, is_cut=True)
        return Answer(writers.honest(prompt, before), whole="Dellby" in prompt)

    with writers.serving(odd) as server:
        said = runs.told(arguments(corpus, server, tmp_path / "out", "--rewrites", "0"), capsys)
    assert "questions: 21 written, 20 kept; dropped: no questions in the reply 1" in said
    assert "1 replies came without a number of tokens" in said
    assert sum(server.asked.values()) == 6 + 4
    assert len(read) < 100_000


def test_a_server_can_be_asked_about_a_sentence_at_a_time(corpus, tmp_path, capsys):
    with writers.serving() as server:
        said = runs.told(arguments(corpus, server, tmp_path / "out", "--by", "sentence", "--rewrites", "0"), capsys)
    assert "to ask: 30 requests for questions" in said
    assert "questions: 30 written, 24 kept; dropped: no questions in the reply 6" in said
    first = json.loads(server.headers[0]["body"])
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"] * 3 + ["user"]
    learn = read_probes(tmp_path / "out" / "learn.jsonl")
    assert all(probe.answer in probe.evidence for probe in learn)


def test_a_server_that_needs_a_key_names_the_variable(corpus, tmp_path, capsys, monkeypatch):
    refusal = Answer(status=401, body=b'{"error": {"message": "You did not provide an API key."}}')
    with writers.serving(lambda *_: refusal) as server:
        words = runs.refused(arguments(corpus, server, tmp_path / "out"), capsys)
        assert "needs a key (HTTP 401: You did not provide an API key.), and OPENAI_API_KEY is not set" in words
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
        words = runs.refused(arguments(corpus, server, tmp_path / "out"), capsys)
        assert "refuses the key in OPENAI_API_KEY" in words
        assert "sk-secret" not in words
        assert server.headers[-1]["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in (tmp_path / "out" / "requests.jsonl").read_text()


def test_a_spent_quota_and_an_unknown_model_end_the_run_at_once(corpus, tmp_path, capsys):
    spent = Answer(status=429, body=b'{"error": {"message": "You are over.", "code": "insufficient_quota"}}')
    missing = Answer(status=404, body=b'{"error": {"message": "no such model"}}')
    for made, told in ((spent, "quota of this key is spent"), (missing, "no chat completions for the model 'tiny'")):
        with writers.serving(lambda *_, made=made: made) as server:
            assert told in runs.refused(arguments(corpus, server, tmp_path / "out", "--workers", "1"), capsys)
            assert sum(server.asked.values()) == 1


def test_no_server_and_several_models(corpus, tmp_path, capsys):
    words = runs.refused(arguments(corpus, "http://127.0.0.1:9/v1", tmp_path / "out"), capsys, code=1)
    assert "no server answers at http://127.0.0.1:9/v1" in words
    assert "Connect" in words
    with writers.serving(models=("small", "large")) as server:
        words = runs.refused(arguments(corpus, server, tmp_path / "out"), capsys)
        assert "serves 2 models; name one with --model (known: small, large)" in words
        runs.told(arguments(corpus, server, tmp_path / "out", "--model", "large"), capsys)
        assert json.loads(server.headers[-1]["body"])["model"] == "large"


def test_a_writer_of_rubbish_is_told_honestly(corpus, tmp_path, capsys):
    def lying(prompt, _before):
        if "Arlen" in prompt:
            return '[{"question": "Who built the tower at Arlen?", "answer": "Bob", "evidence": "Bob built it."}]'
        return "I'm sorry, but I can't help with that." if "Borvik" in prompt else '```json\n{"question": "Wh'

    with writers.serving(lying) as server:
        words = runs.refused(arguments(corpus, server, tmp_path / "out"), capsys)
    assert "of 6 questions that the writer" in words
    for reason in ("half a JSON object 4", "evidence not in the passage 1", "the writer refused 1"):
        assert reason in words
    assert not (tmp_path / "out" / "corpus.jsonl").exists()


def test_a_lying_writer_loses_its_lies_alone(corpus, tmp_path, capsys):
    def mixed(prompt, before):
        made = writers.honest(prompt, before)
        if prompt.startswith("Rewrite"):
            return made if "Arlen" in prompt else "In 1812 everything was new."
        lie = {"question": "Who is the king of Arlen?", "answer": "Bo", "evidence": "Bo is king."}
        return f'```json\n{json.dumps([lie, *json.loads(made)])[:-1]}, {{"question": "And'

    with writers.serving(mixed) as server:
        said = runs.told(arguments(corpus, server, tmp_path / "out"), capsys)
    assert "questions: 36 written, 24 kept; dropped: " in said
    assert "evidence not in the passage 6" in said
    assert "half a JSON object 6" in said
    record = json.loads((tmp_path / "out" / "suite.json").read_text())
    counts = {(one["what"], one["why"]): one["count"] for one in record["left_out"]}
    assert counts["questions", "half a JSON object"] == 6


def test_somebody_elses_folder_is_left_alone(corpus, tmp_path, capsys):
    with writers.serving() as server:
        words = runs.refused(arguments(corpus, server, corpus), capsys)
    assert "holds something that is no study" in words
    assert len(list(corpus.iterdir())) == 6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--questions", "0"], "--questions: expected at least 1, got 0"),
        (["--held-out", "1"], "--held-out: expected a share of the facts from 0 to below 1, got 1"),
        (["--workers", "0"], "--workers: expected at least 1, got 0"),
        (["--price-in", "-1"], "--price-in: expected money"),
        (["--timeout", "0"], "--timeout: expected seconds above 0"),
        (["--base", "./nothere"], "model nothere: 'nothere' is not in"),
    ],
)
def test_settings_that_cannot_work_are_refused(corpus, tmp_path, capsys, more, words):
    assert words in runs.refused(arguments(corpus, "http://127.0.0.1:9/v1", tmp_path / "out", *more), capsys)


def test_without_the_package_the_extra_is_named(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("foci.study.writers.server.find_spec", lambda _name: None)
    words = runs.refused(arguments(corpus, "http://127.0.0.1:9/v1", tmp_path / "out"), capsys)
    assert "pip install 'foci[study]'" in words


def test_the_folder_is_named_after_the_corpus():
    assert str(Settings(("texts/hand book/",), "self").folder) == "out/hand-book-study"
