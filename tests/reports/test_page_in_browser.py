"""The page in headless Chromium: no error, no request; it filters, sorts, pages and changes theme,
by mouse and by keyboard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from peftport.reports.page import write_report
from synthetic_studies import Synthetic, founding

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"),
    reason="there is no Chromium here; install the package chromium to test the page in it",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "CI needs Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 1,440 runs and its baseline, some of which failed."""
    study = founding(
        examples=100,
        failed=lambda row: row["condition"] == "native" and row["seed"] == 4,
    )
    return write_report(study.results(), tmp_path_factory.mktemp("report"))


@pytest.fixture
def complaints() -> list[str]:
    """What the page complained of or asked the network for."""
    return []


@pytest.fixture
def page(browser: Browser, report: Path, complaints: list[str]) -> Iterator[Page]:
    page = opened(browser, report, complaints)
    yield page
    page.context.close()
    assert complaints == []


def opened(
    browser: Browser, report: Path, complaints: list[str], width: int = 1600, theme: str = "light"
) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if theme == "dark" else "light",
    )
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.extend(asked(request.url)))
    page.goto(report.as_uri())
    return page


def asked(url: str) -> list[str]:
    return [] if url.startswith(("file:", "data:")) else [url]


def column(page: Page, name: str) -> list[str]:
    place = page.locator(f"#runs-table th[data-column={name}]").evaluate("e => e.cellIndex + 1")
    return page.locator(f"#runs-table tbody td:nth-child({place})").all_inner_texts()


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_the_page_opens_with_its_answers_and_runs(page: Page) -> None:
    expect(page.locator("h1")).to_have_text("synthetic")
    expect(page.locator("#answers .finding")).to_have_count(3)
    expect(page.locator("#runs-status")).to_have_text("Runs 1 to 100 of 2,120")


def test_runs_are_filtered_by_choice_and_by_words(page: Page) -> None:
    page.select_option("#runs-filters select[data-column=technique]", label="lora")
    page.select_option("#runs-filters select[data-column=condition]", label="ported")
    expect(page.locator("#runs-status")).to_have_text("Runs 1 to 100 of 180 (of 2,120 in all)")
    assert set(column(page, "technique")) == {"lora"}
    page.fill("#runs-search", "large-tuned films")
    assert set(column(page, "condition")) == {"ported"}
    assert "large-tuned" in {*column(page, "origin"), *column(page, "receiver")}
    page.fill("#runs-search", "no such run")
    expect(page.locator("#runs-status")).to_have_text("No run fits (of 2,120 in all)")
    page.click("#runs-reset")
    expect(page.locator("#runs-status")).to_have_text("Runs 1 to 100 of 2,120")


def test_failed_runs_are_found_with_their_errors(page: Page) -> None:
    page.select_option("#runs-filters select[data-column=status]", label="failed")
    assert set(column(page, "error")) == {"the loss is not a number at step 3"}
    assert set(column(page, "accuracy")) == {""}


def test_runs_are_sorted_both_ways_with_missing_figures_last(page: Page) -> None:
    head = page.locator("#runs-table th[data-column=accuracy]")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    upward = [float(text) for text in column(page, "accuracy")]
    assert upward == sorted(upward)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    downward = [float(text) for text in column(page, "accuracy")]
    assert downward == sorted(downward, reverse=True)
    assert downward[0] > upward[0]
    page.locator("#runs-table th[data-column=budget] button").click()
    assert head.get_attribute("aria-sort") is None
    assert [int(text) for text in column(page, "budget")] == [0] * 100


def test_runs_are_paged(page: Page) -> None:
    assert page.locator("#runs-previous").is_disabled()
    for _ in range(21):
        page.click("#runs-next")
    expect(page.locator("#runs-status")).to_have_text("Runs 2,101 to 2,120 of 2,120")
    assert page.locator("#runs-next").is_disabled()
    assert len(column(page, "seed")) == 20


def test_the_theme_follows_the_system_and_the_switch(
    browser: Browser, report: Path, complaints: list[str]
) -> None:
    light, dark = (opened(browser, report, complaints, theme=theme) for theme in ("light", "dark"))
    assert background(light) != background(dark)
    switch = light.get_by_role("button", name="Dark theme")
    assert switch.get_attribute("aria-pressed") == "false"
    switch.click()
    assert switch.get_attribute("aria-pressed") == "true"
    assert background(light) == background(dark)
    light.reload()
    assert background(light) == background(dark)
    line = "getComputedStyle(document.querySelector('.line.ported')).stroke"
    assert light.evaluate(line) == dark.evaluate(line)
    assert complaints == []


def test_choices_show_one_view_at_a_time(page: Page) -> None:
    heat = page.locator("#heat [data-view]:visible caption")
    expect(heat).to_have_text("Zero-shot, average of settings")
    page.locator("#heat select").nth(0).select_option(label="after 300 steps")
    page.locator("#heat select").nth(1).select_option(label="films → food")
    expect(heat).to_have_text("After 300 steps, films → food")
    expect(page.locator("#differences [data-view]:visible")).to_have_count(1)


def test_everything_is_reached_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.focus("#runs-table th[data-column=accuracy] button")
    page.keyboard.press("Enter")
    accuracy = page.locator("#runs-table th[data-column=accuracy]")
    assert accuracy.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert accuracy.get_attribute("aria-sort") == "descending"
    page.focus("#runs-filters select[data-column=seed]")
    page.keyboard.press("ArrowDown")
    assert set(column(page, "seed")) == {"0"}
    scrolled = page.locator(".scroll:not(.open)")
    assert all(scrolled.nth(i).get_attribute("tabindex") == "0" for i in range(scrolled.count()))


@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_fits_its_window(
    browser: Browser, report: Path, complaints: list[str], width: int
) -> None:
    page = opened(browser, report, complaints, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    texts = page.locator("main p, main td:visible")
    assert (
        min(texts.evaluate_all("all => all.map(e => parseFloat(getComputedStyle(e).fontSize))"))
        > 10
    )
    assert complaints == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_their_background(
    browser: Browser, report: Path, complaints: list[str], theme: str
) -> None:
    """WCAG's contrast of 4.5 for text in the page's colours, on all its surfaces."""
    page = opened(browser, report, complaints, theme=theme)
    colours = page.evaluate(RESOLVED)
    for word in ("ink", "soft", "accent", "host", "sampled", "scratch", "ported", "native"):
        for surface in ("paper", "surface"):
            assert contrast(colours[word], colours[surface]) >= 4.5, (word, surface)


RESOLVED = """() => {
  const probe = document.body.appendChild(document.createElement("i"));
  const names = ["ink", "soft", "accent", "host", "sampled", "scratch", "ported", "native",
    "paper", "surface"];
  return Object.fromEntries(names.map((name) => {
    probe.style.color = `var(--${name})`;
    return [name, getComputedStyle(probe).color.match(/\\d+/g).map(Number)];
  }));
}"""


def contrast(first: list[int], second: list[int]) -> float:
    def luminance(colour: list[int]) -> float:
        shares = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_page_can_be_printed(page: Page) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert background(page) == "rgb(252, 252, 250)"
    assert not page.locator("nav").is_visible()
    assert len(page.pdf()) > 10_000


@pytest.mark.parametrize(
    "study", [Synthetic(conditions=("host",)), Synthetic(failed=lambda row: True)]
)
def test_a_study_without_results_opens_without_errors(
    browser: Browser, tmp_path: Path, complaints: list[str], study: Synthetic
) -> None:
    page = opened(browser, write_report(study.results(), tmp_path), complaints)
    expect(page.locator("#runs-status")).to_contain_text("Runs 1 to")
    assert complaints == []
