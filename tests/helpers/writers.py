"""An OpenAI-compatible server on a loopback port, whose answers a test chooses, and a corpus that it can ask about.

    with writers.serving() as server:                     # an honest writer
        runs.told(["study", corpus, "--writer", server.url, "--out", out], capsys)
    assert server.asked == ...                            # how often each prompt came

`serving(answer)` takes a function of (prompt, how often it came before) that returns the content of a reply, or an
`Answer` with another status, body or delay.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import tiny

PLACES = [
    "Arlen", "Borvik", "Cadmoor", "Dellby", "Estrand", "Farnow", "Gisleth", "Hulmen", "Ildra", "Jorvast", "Keldor",
    "Lumbra", "Morsund", "Nevring", "Ostrel", "Pellam", "Quorn", "Rastow", "Selvik", "Tormund", "Ulverd", "Vasken",
    "Wendmar", "Yarrow",
]  # fmt: skip
HOUSES = ["mill", "chapel", "harbour", "library"]


@dataclass(frozen=True)
class Answer:
    """What a server sends: `body` is sent as it is, after `delay` seconds; `content` becomes a chat completion.

    Where the reply is asked for in pieces, there are `pause` seconds before each, and `pieces` may be any.
    """

    content: str = ""
    status: int = 200
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    pause: float = 0.0
    pieces: Iterable[str] | None = None
    whole: bool = False
    """Whether it comes at once, whatever is asked."""
    is_cut: bool = False
    """Whether the connection ends before the body does."""


@dataclass
class Server:
    """A server that runs: its address, how often each prompt came, and which were answered."""

    url: str
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    """Prompts whose connection was closed before their reply was whole."""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)


def sentence(house: str, place: str, year: int) -> str:
    return f"The {house} at {place} was built in {year}, after a long quarrel over money."


def corpus(folder: Path, files: int = 6) -> Path:
    """Writes a folder of pages, each of four facts about one place."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, place in enumerate(PLACES[:files]):
        facts = " ".join(sentence(house, place, 1700 + 4 * n + m) for m, house in enumerate(HOUSES))
        (folder / f"{place.lower()}.md").write_text(f"# {place}\n\n{facts} Few people live there now.\n")
    return folder


def honest(prompt: str, _before: int = 0) -> str:
    """Two wordings of a question per fact of the passage, as JSON; or a rewrite that says the one fact."""
    passage = prompt.split("==========\n")[-2] if "==========" in prompt else prompt
    found = re.findall(r"The (\w+) at (\w+) was built in (\d+)[^.]*\.", passage)
    if prompt.startswith("Write a question that this sentence answers"):
        return "\n".join(f"Question: In which year was the {h} at {p} built?\nAnswer: {y}" for h, p, y in found)
    if prompt.startswith("Rewrite"):
        asked = re.search(r"In which year was the (\w+) at (\w+) built", prompt)
        year = next(year for house, place, year in found if (house, place) == asked.groups())
        return f"In {asked[2]} people have had a {asked[1]} since {year}; they had argued about who should pay for it."
    return json.dumps(
        [
            {
                "question": f"In which year was the {house} at {place} built?",
                "again": f"When did the people of {place} build their {house}?",
                "answer": year,
                "evidence": f"The {house} at {place} was built in {year}",
            }
            for house, place, year in found
        ]
    )


@contextmanager
def serving(
    answer: Callable[[str, int], str | Answer] = honest, models: tuple[str, ...] = ("tiny",)
) -> Iterator[Server]:
    """Serves on a free port while open."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._send(Answer(body=json.dumps({"object": "list", "data": [_model(name) for name in models]}).encode()))

        def do_POST(self) -> None:
            raw = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt = raw["messages"][-1]["content"]
            with server.lock:
                before = server.asked[prompt]
                server.asked[prompt] += 1
                server.headers.append({**{n.lower(): v for n, v in self.headers.items()}, "body": json.dumps(raw)})
            made = answer(prompt, before)
            made = made if isinstance(made, Answer) else Answer(made)
            time.sleep(made.delay)
            streams = raw.get("stream") and made.body is None and made.status == 200 and not made.whole
            is_sent = self._stream(made) if streams else self._send(made)
            with server.lock:
                server.answered[prompt] += is_sent and made.status == 200
                server.left[prompt] += not is_sent

        def _stream(self, made: Answer) -> bool:
            try:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                for event in events(made):
                    time.sleep(made.pause)
                    self.wfile.write(f"data: {event}\n\n".encode())
            except (BrokenPipeError, ConnectionResetError):
                return False
            return True

        def _send(self, made: Answer) -> bool:
            body = completion(made.content) if made.body is None else made.body
            try:
                self.send_response(made.status)
                for name, value in {"content-type": "application/json", **made.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body) + 10 * made.is_cut))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = self.close_connection or made.is_cut
            except (BrokenPipeError, ConnectionResetError):
                return False
            return True

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that was killed is no failure of the server."""

    web = Quiet(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{web.server_port}/v1")
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


def completion(content: str, finish: str = "stop") -> bytes:
    """The JSON of a chat completion of 100 tokens read and 50 written."""
    return json.dumps(
        {
            "id": "x", "object": "chat.completion", "created": 0, "model": "tiny",
            "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        }
    ).encode()  # fmt: skip


def events(made: Answer) -> Iterator[str]:
    """The events of a chat completion in pieces."""
    pieces = made.pieces if made.pieces is not None else re.findall(r"(?s).{1,80}", made.content)
    for piece in pieces:
        yield json.dumps(_chunk([{"index": 0, "finish_reason": None, "delta": {"content": piece}}]))
    yield json.dumps(_chunk([{"index": 0, "finish_reason": "stop", "delta": {}}]))
    yield json.dumps({**_chunk([]), "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}})
    yield "[DONE]"


def _chunk(choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "tiny", "choices": choices}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "x"}


def save_model(folder: Path, positions: int = 4096) -> Path:
    """Writes a tiny random model with a chat template and room for prompts; returns the folder."""
    tiny.save_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": positions}))
    template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    return folder
