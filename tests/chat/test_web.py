"""The page of `foci chat --web`: who may ask it, and what a reader sees in headless Chromium; nothing is downloaded."""

import io
import json
import os
import re
import shutil
import signal
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

import runs
from foci.chat.session import Piece, Session
from foci.config.run import load_run
from foci.learn.run import learn
from foci.system.signals import stoppable

web = pytest.importorskip("foci.chat.web", reason="pip install 'foci[chat]'")

EVIL = "<img src=x onerror='window.evil=1'><script>window.evil=1</script>\u202e\x1b[2J"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-gpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    things = runs.material(folder)
    documents = [*runs.documents(spans=False), {"text": f"Zeno Evil {EVIL} was born here."}]
    runs.write_lines(things.corpus, documents)
    read = load_run(runs.run_file(folder, things, arms={"plain": []}, train={"epochs": 1}))
    learn(read, console=Console(file=io.StringIO()))
    return read.output


@pytest.fixture(scope="module")
def address(run):
    """The address of the page, served by a process of its own until Ctrl-C."""
    child = runs.start(["chat", run, "--web", "--max-tokens", "24"], run.parent)
    child.until(lambda: child.out.is_file() and "http" in child.out.read_text())
    found = re.search(r"http://127\.0\.0\.1:\d+/", child.out.read_text())
    yield found[0]
    child.signal(signal.SIGINT)
    assert child.wait(20) == 130, child.err.read_text()
    runs.assert_one_paragraph(child.err.read_text())


def sent(url, body=None, **headers):
    """(status, headers, text) of a request."""
    given = None if body is None else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, given, names)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def events(text):
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line]


JSON = {"Content_Type": "application/json"}


def test_only_its_own_page_is_answered(address):
    port = address.rstrip("/").rpartition(":")[2]
    own = f"http://127.0.0.1:{port}"
    assert sent(address)[0] == 200
    assert sent(address, Host=f"localhost:{port}")[0] == 200
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1.evil.example:{port}",
        f"[::1]:{port}",
    ):
        assert sent(address, Host=host)[0] == 403, host
    asked = {"question": "Ada"}
    assert sent(f"{address}reset", {}, **JSON, Origin=own)[0] == 200
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", f"http://localhost:{port}"):
        assert sent(f"{address}ask", asked, **JSON, Origin=origin)[0] == 403, origin
        assert sent(f"{address}facts", Origin=origin)[0] == 403, origin
    assert sent(f"{address}ask", asked, **JSON, Sec_Fetch_Site="cross-site")[0] == 403
    assert sent(f"{address}ask", asked, Content_Type="text/plain", Origin=own)[0] == 415
    assert json.loads(sent(f"{address}facts")[2])["history"] == [], "nothing was asked"


def test_it_is_bound_to_this_machine_alone(address):
    with web.listening(0) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"
        port = bound.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port} cannot be used .*name another one"):
            web.listening(port)
    others = {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None)} - {"127.0.0.1", "::1"}
    number = int(address.rstrip("/").rpartition(":")[2])
    for other in others:
        with pytest.raises((ConnectionError, TimeoutError)), socket.create_connection((other, number), timeout=2):
            pass


@pytest.mark.parametrize("path", ["", "page.js", "page.css", "style.css", "facts", "report"])
def test_every_answer_has_a_strict_policy(address, path):
    status, headers, text = sent(address + path)
    assert status == 200
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert ("sandbox allow-scripts" in policy) == (path == "report")
    assert ("unsafe" in policy) == (path == "report")
    assert not re.search(r"(src|href|url)\W{1,3}(https?:)?//", text) or path == "report"


def test_wrong_questions_are_refused(address):
    for body in ({}, {"question": 3}, {"question": " "}, []):
        assert sent(f"{address}ask", body, **JSON)[0] == 422, body
    assert sent(f"{address}ask", {"question": "a" * 200_000}, **JSON)[0] == 413
    assert sent(f"{address}nothing")[0] == 404
    (said,) = events(sent(f"{address}ask", {"question": "Ada " * 100}, **JSON)[2])
    assert "the question has" in said["error"]
    sent(f"{address}reset", {}, **JSON)


def test_answers_are_streamed_and_kept(address, run):
    found = events(sent(f"{address}ask", {"question": "Where was Ada North born?"}, **JSON)[2])
    pieces = [event for event in found if "side" in event]
    assert len(pieces) > 4
    assert {event["side"] for event in pieces} == {0, 1}
    assert found[-1]["passage"]["source"].endswith("corpus.jsonl:1")
    (kept,) = json.loads(sent(f"{address}facts")[2])["history"]
    for side in (0, 1):
        assert kept["answers"][side] == "".join(event["text"] for event in pieces if event["side"] == side)
    assert sent(f"{address}reset", {}, **JSON)[0] == 200
    assert json.loads(sent(f"{address}facts")[2])["history"] == []


def test_a_browser_that_goes_away_frees_the_model(address):
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    body = json.dumps({"question": "Ada"}).encode()
    head = f"POST /ask HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection((host, int(port))) as line:
        line.sendall(f"{head}\r\n\r\n".encode() + body)
        line.recv(100)
    for _ in range(100):
        status, _, text = sent(f"{address}ask", {"question": "Bea"}, **JSON)
        if status == 200:
            break
        assert status == 409
    assert "passage" in events(text)[-1]
    sent(f"{address}reset", {}, **JSON)


def test_without_its_packages_the_cure_is_told(run, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "foci.chat.web", None)
    monkeypatch.delattr("foci.chat.web", raising=False)
    assert "pip install 'foci[chat]'" in runs.refused(["chat", run, "--web"], capsys)
    assert "leave one of them out" in runs.refused(["chat", run, "Ada?", "--web"], capsys)


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'foci[dev]'")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt install chromium")
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield made
        made.close()


@pytest.fixture
def page(browser, address):
    """The page, which keeps every console message and every request to elsewhere."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(10_000)
    page.seen = []
    page.on("console", lambda message: page.seen.append(message.text))
    page.on("pageerror", lambda error: page.seen.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith((address, "data:")) else page.seen.append(request.url)
    )
    page.goto(address)
    yield page
    assert page.seen == []
    sent(f"{address}reset", {}, **JSON)
    page.close()


def asked(page, question):
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")
    page.locator("#send").wait_for(state="visible")
    assert page.locator(".writing").count() == 0
    return page.locator("article").last


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_two_answers_and_their_passage(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    said = asked(page, "Where was Ada North born?")
    assert said.locator("h3").all_inner_texts() == ["untouched", "learned · plain"]
    assert all(said.locator(".text").all_inner_texts())
    assert said.locator("blockquote").inner_text() == runs.FACTS[0][0]
    assert said.locator("cite").inner_text().endswith("corpus.jsonl:1")
    left, right = (one.bounding_box() for one in said.locator(".answer").all())
    assert (left["y"] == right["y"]) == (width > 640)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_history_is_there_after_a_reload_until_it_is_forgotten(page):
    asked(page, "Who is Ada?")
    asked(page, "Who is Bea?")
    before = page.locator("#said").inner_text()
    page.reload()
    page.locator("article").nth(1).wait_for()
    assert page.locator("#said").inner_text() == before
    page.locator("#reset").click()
    page.locator("#hello").wait_for(state="visible")
    page.reload()
    assert page.locator("article").count() == 0


def test_hostile_texts_are_texts(page):
    said = asked(page, f"Zeno Evil {EVIL}")
    assert "<script>" in said.locator("blockquote").inner_text()
    assert "<img src=x" in said.locator("h2").inner_text()
    assert "\\u202e\\x1b[2J" in said.locator("blockquote").inner_text()
    assert page.evaluate("window.evil") is None
    assert page.locator("#said img, #said script").count() == 0


def test_the_report_is_in_a_tab(page):
    page.get_by_role("tab", name="Report").click()
    frame = page.frame_locator("iframe")
    frame.locator("h1").first.wait_for()
    assert not page.locator("#chat").is_visible()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#question").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_light_and_dark(page, scheme):
    """Contrast of at least 4.5 (WCAG AA) of each text on its ground."""
    page.emulate_media(color_scheme=scheme)
    asked(page, "Who is Ada?")
    places = "h1, .question, .answer h3, .text, cite, blockquote, #send, #reset, .tabs button, .over"
    found = page.evaluate(
        """(places) => [...document.querySelectorAll(places)]
        .map((node) => { let up = node, ground = ''; while (up) { ground = getComputedStyle(up).backgroundColor;
          if (!ground.endsWith(', 0)')) break; up = up.parentElement; }
          return [node.className || node.id, getComputedStyle(node).color, ground]; })""",
        places,
    )
    assert len(found) > 8

    def light(colour):
        parts = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) + 0.05

    for name, ink, ground in found:
        ratio = max(light(ink), light(ground)) / min(light(ink), light(ground))
        assert ratio >= 4.5, (name, ink, ground)


def test_a_session_without_a_report(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run", symlinks=True)
    (copy / "report.html").unlink()
    from foci.chat.writing import Decoding
    from foci.learn.chosen import choose

    page = web.Page(Session(choose(copy), Decoding(2)), ThreadPoolExecutor(1))
    assert not page._report.is_file()


def test_models_answer_in_the_thread_that_loaded_them(run, monkeypatch):
    from starlette.testclient import TestClient

    threads, served = [], {}

    class Answers(Session):
        def __init__(self):
            self.lock = threading.Lock()

        def answer(self, *_):
            threads.append(threading.get_ident())
            yield Piece(0, "so", ended=True)

        def nearest(self, _):
            threads.append(threading.get_ident())

        notice = ""

    def load():
        threads.append(threading.get_ident())
        served["session"] = Answers()
        return served["session"]

    class Server:
        def __init__(self, settings):
            self.app = settings.app

        def run(self, **_):
            served["page"] = TestClient(self.app, base_url=f"http://127.0.0.1:{port}").post(
                "/ask", json={"question": "Who?"}
            )

    monkeypatch.setattr(web.uvicorn, "Server", Server)
    with web.listening(0) as bound:
        port = bound.getsockname()[1]
        web.serve(load, bound, lambda _: None)
    assert [event.get("text") for event in events(served["page"].text)] == ["so", None]
    assert len(threads) == 3
    assert len(set(threads)) == 1
    assert served["session"].lock.acquire(blocking=False)


class _Left(BaseException):
    """In place of the end of this process."""


def test_ctrl_c_does_not_wait_until_models_are_loaded(monkeypatch, capsys):
    ended = threading.Event()

    def load():
        os.kill(os.getpid(), signal.SIGINT)
        ended.wait(10)
        raise ValueError("loaded too late")

    def leave(code):
        ended.set()
        raise _Left(code)

    monkeypatch.setattr(os, "_exit", leave)
    with web.listening(0) as bound, pytest.raises(_Left) as left, stoppable():
        web.serve(load, bound, lambda _: None)
    assert left.value.args == (130,)
    assert capsys.readouterr().err == "foci: stopped by SIGINT\n"


def test_an_error_while_models_are_loaded_is_told():
    def load():
        raise ValueError("no such model")

    with web.listening(0) as bound, pytest.raises(ValueError, match="no such model"):
        web.serve(load, bound, lambda _: None)
