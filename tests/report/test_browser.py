"""The report as a reader sees it, in headless Chromium (Debian's; nothing is downloaded)."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_run import write_evidence, write_run
from foci.report.write import write_report

EVIL = "</script><script>window.evil=1</script><img src=x onerror='window.evil=1'>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-gpu",
)  # fmt: skip

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports: `fair.html`, `evil.html` with markup wherever a run has text, and `guided.html` of guided heads."""
    folder = tmp_path_factory.mktemp("browser")
    write_report([write_run(folder / "fair")], folder / "fair.html")
    evil = write_run(folder / "evil", name=EVIL, arms=("plain", "oracle" + EVIL.replace("/", "")), probes=40, evil=EVIL)
    write_report([write_evidence(evil, 40, EVIL)], folder / "evil.html")
    write_report([write_evidence(write_run(folder / "made"))], folder / "made.html")
    guided = write_run(folder / "guided")
    write_heads(guided / "arms" / "oracle")
    write_report([guided], folder / "guided.html")
    return folder


def write_heads(arm: Path) -> None:
    """Two guided heads as `foci learn` writes them: their distances at two probings, and maps before and after."""
    heads = [{"layer": 1, "head": 0, "pattern": "previous"}, {"layer": 2, "head": 3, "pattern": "first"}]
    lines = [{"step": step, "heads": [h | {"distance": 0.6 - step / 200} for h in heads]} for step in (0, 80)]
    (arm / "guided.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    even, sharp = [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [1.0, 0.0]]
    maps = {when: {"maps": [h | {"map": m} for h in heads]} for when, m in {"before": even, "after": sharp}.items()}
    (arm / "maps.json").write_text(json.dumps(maps), encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that keeps every console message, page error and request it made."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(5000)
    page.seen = []
    page.on("console", lambda message: page.seen.append(message.text))
    page.on("pageerror", lambda error: page.seen.append(str(error)))
    page.on("request", lambda request: page.seen.append(request.url) if "report" not in request.url else None)
    yield page
    page.close()


def open_report(page: Any, file: Path) -> None:
    page.goto(file.as_uri())
    page.seen = [seen for seen in page.seen if seen != file.as_uri()]


def has_rows(page: Any, count: int) -> None:
    """Waits until the table of answers has so many rows; by locators, as the page's policy lets no string run."""
    playwright.expect(page.locator("#probe-table tbody tr")).to_have_count(count)


def shown(page: Any, column: int) -> list[str]:
    return [text.strip() for text in page.locator(f"#probe-table tbody td:nth-child({column})").all_inner_texts()]


def test_opens_without_errors_requests_or_foreign_scripts(page: Any, folder: Path) -> None:
    for name in ("fair", "evil"):
        open_report(page, folder / f"{name}.html")
        assert page.seen == [], name
        assert page.evaluate("window.evil") is None
        assert page.locator("img").count() == 0
    assert page.locator("h1").inner_text() == EVIL
    page.locator("#filters [name=text]").fill("onerror")
    assert EVIL in page.locator("#probe-table tbody tr").first.inner_text()
    assert EVIL in page.locator(".tokens").first.inner_text()
    assert page.evaluate("window.evil") is None


def test_policy_stops_a_script_that_slipped_in(page: Any, folder: Path) -> None:
    html = (folder / "fair.html").read_text(encoding="utf-8")
    (folder / "slipped.html").write_text(html.replace("</main>", "<script>window.evil=1</script></main>"))
    open_report(page, folder / "slipped.html")
    assert page.evaluate("window.evil") is None
    has_rows(page, 25)


def test_policy_lets_the_pages_own_pictures_load(page: Any, folder: Path) -> None:
    open_report(page, folder / "guided.html")
    maps = page.locator("svg image")
    assert maps.count() == 4
    assert all(link.startswith("data:image/png") for link in maps.evaluate_all("all => all.map(n => n.href.baseVal)"))
    maps.evaluate_all("all => Promise.all(all.map(n => n.decode()))")  # fails where the policy blocks a picture
    assert page.seen == []


def test_tables_have_their_rows(page: Any, folder: Path) -> None:
    open_report(page, folder / "fair.html")
    wanted = {"before-after": 2, "controls": 2, "cost": 2, "kinds": 4, "path": 10, "probe-table": 25}
    assert {table: page.locator(f"#{table} tbody tr").count() for table in wanted} == wanted
    assert page.locator("#probe-status").inner_text() == "240 answers to probes"
    page.get_by_role("button", name="Next").click()
    assert page.locator("#page-label").inner_text() == "page 2 of 10"
    page.locator("#page-size").select_option("500")
    has_rows(page, 240)


def test_filters_combine_and_reset(page: Any, folder: Path) -> None:
    open_report(page, folder / "fair.html")
    page.locator("#page-size").select_option("500")
    page.locator("#filters [name=arm]").select_option("oracle")
    page.locator("#filters [name=verdict]").select_option("newly right")
    rows = page.locator("#probe-table tbody tr").count()
    assert 0 < rows < 120
    assert set(shown(page, 1)) == {"oracle"}
    assert set(shown(page, 2)) == {"+\u00a0newly right"}
    assert page.locator("#probe-status").inner_text() == f"{rows} of 240 answers to probes"
    page.locator("#filters [name=text]").fill("EMPLOYER corvane")
    assert set(shown(page, 4)) == {"Corvane Ltd"}
    page.locator("#filters [name=text]").fill("no such words")
    has_rows(page, 0)
    page.get_by_role("button", name="Reset").click()
    has_rows(page, 240)
    page.locator("#filters [name=role]").select_option("retain")
    page.locator("#filters [name=counted]").check()
    has_rows(page, 2 * 54)


def test_evidence_stands_below_a_prompt_and_reasons_can_be_chosen(page: Any, folder: Path) -> None:
    """The table of reasons counts what the filter of outcomes finds."""
    open_report(page, folder / "made.html")
    page.locator("#page-size").select_option("500")
    counts = {
        row.locator("th").inner_text(): [int(text) for text in row.locator("td").all_inner_texts()]
        for row in page.locator("#reasons tbody tr").all()
    }
    heads = [text.lower() for text in page.locator("#reasons thead th").all_inner_texts()[1:]]
    assert all(sum(line) > 0 for line in counts.values())
    for arm, line in counts.items():
        page.locator("#filters [name=arm]").select_option(arm)
        for head, count in zip(heads, line, strict=True):
            options = page.locator("#filters [name=verdict] option").all_inner_texts()
            assert (head in options) == any(some[heads.index(head)] for some in counts.values())
            if head in options:
                page.locator("#filters [name=verdict]").select_option(head)
                assert page.locator("#probe-table tbody tr").count() == count, (arm, head)
    page.get_by_role("button", name="Reset").click()
    page.locator("#filters [name=text]").fill("chapter 7.md:7")
    row = page.locator("#probe-table tbody tr").first
    assert "Since 2019 the field of person 7 has been what it is." in row.locator("q").inner_text()
    assert row.locator("cite").inner_text() == "manual/chapter 7.md:7 (Chapter 7)"


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_evidence_makes_no_page_wider(page: Any, folder: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    open_report(page, folder / "made.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    prompt = page.locator("#probe-table td.prompt").first.bounding_box()
    assert prompt["x"] + 100 < width, "what is asked is seen without scrolling sideways"
    assert page.locator("#probe-table q").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 800, 1400])
def test_three_lines_and_the_picture_come_first(browser: Any, folder: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto((folder / "fair.html").as_uri())
    assert page.locator("#glance dt").all_inner_texts() == ["Learned", "Lost", "Cost"]
    bars = page.locator("#glance svg .point")
    assert bars.count() == 4
    seen = [box["y"] + box["height"] for box in (page.locator("#glance").bounding_box(), bars.last.bounding_box())]
    assert max(seen) <= 900, "in the first window"
    assert page.locator(".examples li").first.bounding_box()["y"] < page.locator(".results").bounding_box()["y"]
    page.close()


def test_answers_that_changed_come_first(page: Any, folder: Path) -> None:
    open_report(page, folder / "fair.html")
    page.locator("#page-size").select_option("500")
    outcomes = [text.strip("+−=·\u00a0 ") for text in shown(page, 2)]  # noqa: RUF001 - the signs of the table
    first = [outcome for outcome in outcomes if outcome in ("forgotten", "newly right")]
    assert len(first) > 20
    assert outcomes[: len(first)] == sorted(first), "forgotten, then newly right, then the others"


def test_columns_sort_both_ways(page: Any, folder: Path) -> None:
    open_report(page, folder / "fair.html")
    page.locator("#page-size").select_option("500")
    header = page.get_by_role("columnheader", name="NLL after")
    for direction in ("ascending", "descending"):
        header.get_by_role("button").click()
        values = [float(text) for text in shown(page, 8)]
        assert values == sorted(values, reverse=direction == "descending")
        assert header.get_attribute("aria-sort") == direction
    page.get_by_role("columnheader", name="Answer").get_by_role("button").click()
    assert shown(page, 4) == sorted(shown(page, 4), key=str.lower)
    assert header.get_attribute("aria-sort") is None


def test_token_colours_switch_and_points_explain_themselves(page: Any, folder: Path) -> None:
    open_report(page, folder / "fair.html")
    token = page.locator(".tokens").nth(1).locator("span").nth(2)
    read = "node => getComputedStyle(node).backgroundColor"
    weightless = token.evaluate(read)
    page.locator("#show [value=before]").check()
    assert token.evaluate(read) != weightless
    assert "nats or more" in page.locator(".ramp .high").evaluate("n => getComputedStyle(n, '::before').content")
    token.hover()
    assert "weight 0.00 · NLL" in page.locator("#tip").inner_text()
    page.locator("svg .point").last.hover(force=True)
    assert "oracle · step 80" in page.locator("#tip").inner_text()


@pytest.mark.parametrize("width", [400, 900, 1400])
@pytest.mark.parametrize("name", ["fair", "evil", "guided"])
def test_the_page_itself_never_scrolls_sideways(page: Any, folder: Path, width: int, name: str) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    open_report(page, folder / f"{name}.html")
    page.evaluate("for (const node of document.querySelectorAll('details')) node.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_prints_within_the_paper_and_in_light(browser: Any, folder: Path) -> None:
    page = browser.new_page(viewport={"width": 720, "height": 1000}, color_scheme="dark")
    page.goto((folder / "fair.html").as_uri())
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(253, 252, 250)"
    assert not page.locator("#filters").is_visible()
    page.close()


def test_six_thousand_answers_stay_usable(page: Any, folder: Path) -> None:
    write_report([write_run(folder / "large", probes=3000)], folder / "large.html")
    open_report(page, folder / "large.html")
    page.locator("#page-size").select_option("100")
    took = page.evaluate(
        """() => { const box = document.querySelector('#filters [name=text]'), start = performance.now();
        box.value = 'employer'; box.dispatchEvent(new Event('input', { bubbles: true }));
        return performance.now() - start; }"""
    )
    has_rows(page, 100)
    assert took < 1000
