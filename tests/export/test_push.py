"""`foci export --push`: huggingface_hub sends the folder to a server that plays the hub, in this process."""

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import typer
from rich.console import Console

import runs
from foci.card.base import Base
from foci.cli.export import _hub
from foci.config.run import load_run
from foci.learn.run import learn


class Hub(BaseHTTPRequestHandler):
    """The pages of the hub that a push asks for; every file is sent within the commit."""

    def do_GET(self):
        self.server.asked.append(("GET", self.path, dict(self.headers), b""))
        if self.server.refuses:
            self.answer({"error": "no"}, self.server.refuses)
        elif self.path == "/api/whoami-v2":
            self.answer({"name": "me", "type": "user"})
        elif self.server.public is None:
            self.answer({"error": "none"}, 404, {"X-Error-Code": "RepoNotFound"})
        else:
            self.answer({"id": "me/mine", "private": not self.server.public, "sha": "0" * 40})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(("POST", self.path, dict(self.headers), body))
        if self.path == "/api/repos/create":
            self.answer({"url": f"{self.server.address}/me/mine", "id": "1"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for one in json.loads(body)["files"]]  # fmt: skip
            self.answer({"files": files})
        else:
            self.answer({"commitUrl": f"{self.server.address}/me/mine/commit/1", "commitOid": "1" * 40})

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(("PUT", self.path, dict(self.headers), body))
        self.server.public = json.loads(body)["visibility"] == "public"
        self.answer({"visibility": "public"})

    def answer(self, value, status=200, headers=()):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, words in dict(headers, **{"Content-Type": "application/json"}).items():
            self.send_header(name, words)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.asked, server.public, server.refuses = [], None, 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push")
    read = load_run(runs.run_file(folder, runs.material(folder), train={"epochs": 1}, arms={"plain": []}))
    learn(read, console=Console(file=io.StringIO()))
    return read.output


def posted(hub, path, method="POST"):
    return [body for how, there, _, body in hub.asked if how == method and there.startswith(path)]


def sent(hub):
    """Returns the files of the one commit, by name."""
    (commit,) = posted(hub, "/api/models/me/mine/commit/main")
    lines = [json.loads(line) for line in commit.splitlines()]
    return {
        line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
    }


def test_the_folder_is_sent_to_a_private_repository(run, hub, tmp_path, capsys):
    command = ["export", run, "--out", tmp_path / "out", "--verify", "0", "--push", "me/mine", "--yes"]
    said = runs.told(command, capsys)
    assert f"{hub.address}/me/mine (private)" in said
    (made,) = posted(hub, "/api/repos/create")
    assert json.loads(made)["visibility" if b"visibility" in made else "private"] in (True, "private")
    assert sent(hub) == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert {"README.md", "model.safetensors"} <= set(sent(hub))
    assert not [name for name, content in sent(hub).items() if str(run.parent).encode() in content]
    assert all(headers["authorization"] == "Bearer hf_test" for _, path, headers, _ in hub.asked if "commit" in path)
    when = (tmp_path / "out" / "export.json").stat().st_mtime_ns
    runs.told(command, capsys)  # what is there already is sent again, not made again
    assert (tmp_path / "out" / "export.json").stat().st_mtime_ns == when
    assert "holds an export already" in runs.refused(command[:4], capsys)
    assert not posted(hub, "/", "PUT")


@pytest.mark.parametrize("before", [None, False, True])
def test_a_repository_that_is_to_be_public_is_public_afterwards(run, hub, tmp_path, capsys, before):
    """The hub ignores what is asked of a repository that is there already."""
    hub.public = before
    command = ["export", run, "--out", tmp_path / "out", "--verify", "0", "--push", "me/mine", "--public", "--yes"]
    assert f"{hub.address}/me/mine (everybody sees it)" in runs.told(command, capsys)
    assert sent(hub)
    changed = posted(hub, "/api/models/me/mine/settings", "PUT")
    assert [json.loads(body) for body in changed] == ([{"visibility": "public"}] if before is False else [])
    if before is False:
        assert hub.public
        assert [method for method, *_ in hub.asked][-1] == "PUT", "the files come first"


def test_it_is_asked_before_a_private_repository_is_opened(hub, monkeypatch):
    hub.public, asked = False, []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", asked.append)
    with pytest.raises(typer.Exit):
        _hub("me/mine", public=True, yes=False)
    assert "it is private now; everybody will see it and all that it holds" in asked[0]
    assert not posted(hub, "/", "PUT")


def test_an_adapter_names_its_base_as_others_know_it(run, hub, tmp_path, capsys, monkeypatch):
    command = ["export", run, "--adapter", "--out", tmp_path / "out", "--verify", "0", "--push", "me/mine", "--yes"]
    words = " ".join(runs.refused(command, capsys).split())
    assert "nobody else could load it" in words
    assert f"foci export {run} --arm plain --push OWNER/NAME" in words
    assert not (tmp_path / "out").exists()
    assert not posted(hub, "/")
    monkeypatch.setattr("foci.export.source.base_named", lambda *_: Base("org/tiny", True))
    runs.told(command, capsys)
    assert json.loads(sent(hub)["adapter_config.json"])["base_model_name_or_path"] == "org/tiny"
    assert not [name for name, content in sent(hub).items() if str(run.parent).encode() in content]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("name", "is no name of a repository"),
        ("token", "hf auth login"),
        ("network", "could not be reached"),
        ("refused", "status 401"),
        ("public", "everybody would see this model"),
        ("unasked", "say --yes"),
        ("alone", "--yes goes with --push"),
    ],
)
def test_what_cannot_be_sent_is_told_before_anything_is_written(run, hub, tmp_path, capsys, monkeypatch, case, words):
    flags = ["--push", "me/mine", "--yes"]
    if case == "name":
        flags[1] = "me/mine/more"
    elif case == "token":
        monkeypatch.setattr("foci.export.push.get_token", lambda: None)
    elif case == "network":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    elif case == "refused":
        hub.refuses = 401
    elif case == "public":
        hub.public = True
    elif case == "unasked":
        flags.pop()
    else:
        flags = ["--yes"]
    said = " ".join(runs.refused(["export", run, "--out", tmp_path / "out", *flags], capsys).split())
    assert words in said
    assert not (tmp_path / "out").exists()
    assert not posted(hub, "/")
