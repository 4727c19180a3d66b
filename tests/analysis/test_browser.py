"""The page in a real browser, Debian's chromium: no error, no request, no overflow, a sorted table.

Without it the tests are skipped, but under CI they fail.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from synthetic_runs import MANIFEST, audit_trials, quick_trials, search_trials, write_run

from analysis.report import write_report

WIDTHS = (390, 1280)  # pixels: a phone, a laptop
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers have no user namespaces
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SHOWN = ("reference-conv-8-0", "reference-dense-512-0")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        missing = "no chromium and chromedriver here; on Debian: apt-get install chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page with every section."""
    folder = tmp_path_factory.mktemp("browser") / "run"
    code = MANIFEST["code"] | {"git_commit": "8ff" * 13 + "a"}  # as long as a real one
    write_run(folder, *quick_trials(), *audit_trials(), shown=SHOWN, code=code)
    return (Path(write_report(folder))).as_uri()


def show(browser: webdriver.Chrome, page: str, width: int = 1280, scheme: str = "light") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    browser.get(page)


def column(browser: webdriver.Chrome, number: int) -> list[str]:
    script = "return [...document.querySelector('table.sortable').tBodies[0].rows]"
    texts: list[str] = browser.execute_script(f"{script}.map(row => row.cells[{number}].innerText)")
    return texts


def head(browser: webdriver.Chrome, label: str) -> tuple[int, WebElement]:
    """A column's number and header cell."""
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    heads = browser.find_elements(By.CSS_SELECTOR, "table.sortable thead th")
    labels = [cell.find_element(By.TAG_NAME, "button").text for cell in heads]
    number = labels.index(label)
    return number, heads[number]


def test_no_error_and_no_request(browser: webdriver.Chrome, page: str):
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # reading empties it
    show(browser, page)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in asked if not url.startswith("data:")} == {page}


@pytest.mark.parametrize("width", WIDTHS)
def test_every_figure_has_a_size_and_a_text(browser: webdriver.Chrome, page: str, width: int):
    show(browser, page, width)
    figures = browser.find_elements(By.CSS_SELECTOR, "figure")
    assert len(figures) > 10
    for figure in figures:
        svg = figure.find_element(By.TAG_NAME, "svg")
        assert min(svg.size["width"], svg.size["height"]) > 50
        assert svg.get_attribute("aria-label")
    loaded = "return [...document.images].every(image => image.complete && image.naturalWidth)"
    assert browser.execute_script(loaded)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_as_wide_as_the_window(browser: webdriver.Chrome, page: str, width: int):
    show(browser, page, width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    room = browser.execute_script("return document.documentElement.clientWidth")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= room


def test_a_trial_id_is_on_one_line(browser: webdriver.Chrome, page: str):
    show(browser, page)
    heights = browser.execute_script(
        "return [...document.querySelectorAll('.trial')].map(e => e.getClientRects().length)"
    )
    assert heights
    assert set(heights) == {1}


def test_a_click_sorts(browser: webdriver.Chrome, page: str):
    show(browser, page)
    number, cell = head(browser, "Test MSE")
    for direction in ("ascending", "descending"):
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
        cell.find_element(By.TAG_NAME, "button").click()
        assert cell.get_attribute("aria-sort") == direction
        texts = column(browser, number)
        known = [float(text) for text in texts if text != "–"]
        assert known == sorted(known, reverse=direction == "descending")
        assert len(set(known)) > 5
        assert set(texts[len(known) :]) == {"–"}  # those without a value come last


def test_the_keyboard_sorts(browser: webdriver.Chrome, page: str):
    show(browser, page)
    number, cell = head(browser, "State")
    before = column(browser, number)
    button = cell.find_element(By.TAG_NAME, "button")
    browser.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    assert cell.get_attribute("aria-sort") == "ascending"
    assert column(browser, number) == sorted(before)
    assert column(browser, number) != before
    browser.switch_to.active_element.send_keys(Keys.SPACE)
    assert cell.get_attribute("aria-sort") == "descending"


LUMINANCES = """
const light = colour => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = getComputedStyle(document.body).backgroundColor;
return [light(ground), ...[...document.querySelectorAll("p, td, th, h2, summary, li")]
  .map(e => light(getComputedStyle(e).color))];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: webdriver.Chrome, page: str, scheme: str):
    show(browser, page, scheme=scheme)
    ground, *texts = browser.execute_script(LUMINANCES)
    assert (ground < 0.1) == (scheme == "dark")
    for text in texts:  # 4.5 is what WCAG 2 asks of text (level AA)
        assert (max(ground, text) + 0.05) / (min(ground, text) + 0.05) >= 4.5


def test_print_is_dark_on_white_and_whole(browser: webdriver.Chrome, page: str):
    show(browser, page, 733, "dark")  # A4 at 96 pixels an inch without margins, and a scroll bar
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    printed = {"media": "print", "features": features}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", printed)
    ground, *texts = browser.execute_script(LUMINANCES)
    assert ground == pytest.approx(1)
    assert max(texts) < 0.2
    room = browser.execute_script("return document.documentElement.clientWidth")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= room


def test_two_thousand_trials_sort(browser: webdriver.Chrome, tmp_path: Path):
    trials = [*search_trials("conv", 1000, n_epochs=2), *search_trials("dense", 1000, n_epochs=2)]
    show(browser, Path(write_report(write_run(tmp_path, *trials))).as_uri(), 390)
    number, cell = head(browser, "Val. MSE")
    browser.execute_script("arguments[0].querySelector('button').click()", cell)
    texts = column(browser, number)
    known = [float(text) for text in texts if text != "–"]
    assert len(texts) == 2000
    assert len(known) > 1000
    assert known == sorted(known)
