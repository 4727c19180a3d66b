"""The page in a real browser: Debian's packages chromium and chromium-driver, headless.

Where they are missing the tests are skipped, but for CI, where they must not vanish.
"""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from programs import need
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select
from synthetic_runs import audit_trials, quick_trials, write_run

from analysis.report import write_report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
A4 = 700  # CSS pixels between its margins, a little less than there are
LIGHT, DARK, PRINT = "light", "dark", "print"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A browser that keeps what it logs: the console, and every request."""
    need("chromium", "chromedriver", remedy="apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run with an audit, a search, every state and reconstructions."""
    trials = [*audit_trials(2, n_epochs=3), *quick_trials()[2:]]
    shown = [
        f"reference-{name}-s0"
        for name in (
            "conv-batch_size=256-latent_filters=8",
            "dense512-batch_size=256-hidden_activation=relu",
        )
    ]
    folder = write_run(tmp_path_factory.mktemp("runs") / "audit", *trials, shown=shown)
    write_report(folder)
    return (folder / "report" / "index.html").as_uri()


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> webdriver.Chrome:
    """The page, newly opened on a wide light screen, with empty logs."""
    look(browser, 1280, LIGHT)
    for name in ("browser", "performance"):
        browser.get_log(name)
    browser.get(address)
    return browser


def look(browser: webdriver.Chrome, width: int, how: str) -> None:
    """Sets the screen's width in CSS pixels and its scheme, or print."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": DARK if how == DARK else LIGHT}
    media = {"media": PRINT if how == PRINT else "screen", "features": [scheme]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def column(page: webdriver.Chrome, heading: str) -> list[str]:
    """The shown values of a column of the table of all trials, from above."""
    return page.execute_script(
        """
        const table = document.querySelector("table.sortable");
        const place = [...table.tHead.rows[0].cells].findIndex(
          (head) => head.textContent === arguments[0]);
        return [...table.tBodies[0].rows].map((row) => row.cells[place].textContent.trim());
        """,
        heading,
    )


def contrast(page: webdriver.Chrome, selector: str) -> float:
    """The contrast ratio of WCAG 2 between an element's text and the background behind it."""
    colors = page.execute_script(
        """
        const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
        let element = document.querySelector(arguments[0]);
        const ink = numbers(getComputedStyle(element).color);
        let paper = numbers(getComputedStyle(element).backgroundColor);
        while (paper[3] === 0 && element.parentElement) {
          element = element.parentElement;
          paper = numbers(getComputedStyle(element).backgroundColor);
        }
        return [ink.slice(0, 3), paper[3] === 0 ? [255, 255, 255] : paper.slice(0, 3)];
        """,
        selector,
    )
    lights = []
    for color in colors:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (value / 255 for value in color)
        ]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_the_page_opens_without_an_error_or_a_request(page: webdriver.Chrome, address: str):
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert address in asked
    assert [url for url in asked if url != address and not url.startswith("data:")] == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert page.get_log("browser") == []


def test_no_other_script_may_run(page: webdriver.Chrome):
    page.execute_script(
        """
        const script = document.createElement("script");
        script.textContent = "window.strange = true";
        document.body.append(script);
        """
    )
    assert page.execute_script("return window.strange === undefined")
    assert "Content Security Policy" in page.get_log("browser")[0]["message"]


def test_every_figure_is_there_and_has_a_size(page: webdriver.Chrome):
    sizes = page.execute_script(
        """
        return [...document.querySelectorAll("figure .plot svg")].map((svg) => {
          const box = svg.getBoundingClientRect();
          return [svg.getAttribute("aria-label"), box.width, box.height];
        });
        """
    )
    assert len(sizes) == 10
    assert all(label and width > 100 and height > 20 for label, width, height in sizes)
    images = page.execute_script(
        """
        for (const one of document.querySelectorAll("details")) one.open = true;
        return [...document.images].map((image) => [image.alt, image.naturalWidth, image.complete]);
        """
    )
    assert len(images) == 4 * 3 + 2 * 2  # random digits, and the best one of two models
    assert all(alt.startswith("digit ") for alt, _, _ in images)
    assert {width for _, width, _ in images} == {28}


@pytest.mark.parametrize("width", [390, 1280])
def test_the_first_screen_has_the_question_and_the_answer(page: webdriver.Chrome, width: int):
    look(page, width, LIGHT)
    page.execute_script("scrollTo(0, 0)")
    for selector, words in (
        ("h1", "Does a convolutional autoencoder have half the error of a dense one?"),
        (".short", "Too short to test it."),
        (".answer .short + p", "3 epochs"),
        (".sure", "How sure?"),
    ):
        element = page.find_element(By.CSS_SELECTOR, selector)
        assert words in element.text
        assert element.rect["y"] + element.rect["height"] <= 900
    figure = page.find_element(By.CSS_SELECTOR, "header figure")
    assert figure.rect["y"] < 900


def read_at(page: webdriver.Chrome, plot: WebElement, x: float, y: float) -> list[str]:
    """The lines that a figure shows where the pointer is, by its share of the width and height."""
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    width, height = plot.size["width"], plot.size["height"]
    place = (round((x - 0.5) * width), round((y - 0.5) * height))
    ActionChains(page).move_to_element_with_offset(plot, *place).perform()
    tip = plot.find_element(By.CSS_SELECTOR, ".tip")
    return tip.text.splitlines() if tip.is_displayed() else []


def test_a_curve_is_read_under_the_pointer(page: webdriver.Chrome):
    plot = page.find_element(By.CSS_SELECTOR, "header .plot")
    lines = read_at(page, plot, 0.97, 0.8)
    assert lines[0] == "Epoch 3"
    assert lines[1].startswith("conv: 0.00")
    assert lines[-1].startswith("reference-dense512")  # the trial that is the nearest
    assert read_at(page, plot, 0.2, 0.1)[0] == "Epoch 1"
    page.execute_script("scrollTo(0, 0)")
    ActionChains(page).move_to_element(page.find_element(By.TAG_NAME, "h1")).perform()
    assert not plot.find_element(By.CSS_SELECTOR, ".tip").is_displayed()


def test_a_point_is_read_under_the_pointer_and_by_keyboard(page: webdriver.Chrome):
    plot = page.find_element(By.CSS_SELECTOR, "#search .plot")
    page.execute_script("arguments[0].focus()", plot)
    tip = plot.find_element(By.CSS_SELECTOR, ".tip")
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    first = tip.text
    assert first.startswith("search-conv-0: 0.0200; conv, batch size 256")
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert tip.text != first
    page.switch_to.active_element.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert tip.text == first
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()


def test_the_legend_hides_a_curve_and_its_values(page: webdriver.Chrome):
    figure = page.find_element(By.CSS_SELECTOR, "header figure")
    plot = figure.find_element(By.CSS_SELECTOR, ".plot")
    button = figure.find_element(By.CSS_SELECTOR, ".legend button")
    curve = plot.find_element(By.CSS_SELECTOR, "[data-series='0']")
    assert button.text == "conv"
    for pressed, shown in (("true", True), ("false", False), ("true", True)):
        assert button.get_attribute("aria-pressed") == pressed
        assert curve.is_displayed() == shown
        assert ("conv: " in "".join(read_at(page, plot, 0.6, 0.5))) == shown
        button.send_keys(Keys.ENTER)


def test_the_table_filters_by_group_and_model(page: webdriver.Chrome):
    table = page.find_element(By.CSS_SELECTOR, "#trials .table")
    group, model, _ = table.find_elements(By.TAG_NAME, "select")
    Select(group).select_by_visible_text("search")
    Select(model).select_by_visible_text("dense-512")
    rows = [row for row in table.find_elements(By.CSS_SELECTOR, "tbody tr") if row.is_displayed()]
    assert len(rows) == 5
    assert all("search-dense-" in row.text for row in rows)
    assert table.find_element(By.TAG_NAME, "output").text == f"5 of {len(column(page, 'Trial'))}"
    Select(group).select_by_visible_text("all")
    Select(model).select_by_visible_text("all")
    assert table.find_element(By.TAG_NAME, "output").text == ""


def test_the_table_sorts_on_click(page: webdriver.Chrome):
    in_order = column(page, "Trial")
    head = page.find_element(By.XPATH, "//*[@id='trials']//th[starts-with(., 'Test MSE')]")
    button = head.find_element(By.TAG_NAME, "button")
    assert head.get_attribute("aria-sort") is None
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    upwards = column(page, "Test MSE")
    known = [float(value) for value in upwards if value != "–"]
    assert known == sorted(known)
    assert len(set(known)) > 3
    assert upwards[len(known) :] == ["–"] * (len(upwards) - len(known))
    assert 0 < len(known) < len(upwards)
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    downwards = column(page, "Test MSE")
    assert downwards[: len(known)] == upwards[: len(known)][::-1]
    assert downwards[len(known) :] == upwards[len(known) :]  # no value is last both ways
    assert sorted(column(page, "Trial")) == sorted(in_order)


def test_the_table_sorts_by_keyboard_and_numbers_by_size(page: webdriver.Chrome):
    head = page.find_element(By.XPATH, "//*[@id='trials']//th[starts-with(., 'Batch size')]")
    button = head.find_element(By.TAG_NAME, "button")
    page.execute_script("arguments[0].focus()", button)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "ascending"
    values = [int(value) for value in column(page, "Batch size")]
    assert values == sorted(values)
    assert {128, 1000} <= set(values)  # as texts, 1000 comes before 128
    page.switch_to.active_element.send_keys(Keys.SPACE)
    assert column(page, "Batch size") == [str(value) for value in sorted(values, reverse=True)]
    before = page.switch_to.active_element.text
    page.switch_to.active_element.send_keys(Keys.TAB)
    assert page.switch_to.active_element.tag_name == "button"
    assert page.switch_to.active_element.text != before


@pytest.mark.parametrize(
    ("width", "how"),
    [(390, LIGHT), (390, DARK), (1280, LIGHT), (1280, DARK), (A4, PRINT)],
)
def test_nothing_is_wider_than_the_page_and_texts_can_be_read(
    page: webdriver.Chrome, width: int, how: str
):
    look(page, width, how)
    page.execute_script("document.querySelectorAll('details').forEach((one) => one.open = true)")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    for selector in (
        "h1",
        ".short",
        ".facts small",
        ".basis",
        "p.soft",
        "td",
        ".verdict",
        "figcaption",
        "figcaption span",
        "summary",
        "nav a" if how != PRINT else "h2",
    ):
        assert contrast(page, selector) > 4.5, selector


def test_the_table_scrolls_in_its_own_box_on_a_phone(page: webdriver.Chrome):
    look(page, 390, LIGHT)
    inside, outside = page.execute_script(
        "const box = document.querySelector('#trials .scroll');"
        "return [box.scrollWidth, box.clientWidth]"
    )
    assert inside > outside > 300


def test_figures_have_light_ink_in_the_dark_scheme(page: webdriver.Chrome):
    """And in print they have not."""
    figure = page.find_element(By.CSS_SELECTOR, "header figure")
    for how, light in ((LIGHT, False), (DARK, True), (PRINT, False)):
        look(page, 1280, how)
        shot = page.execute_cdp_cmd(
            "Page.captureScreenshot", {"clip": {**figure.rect, "scale": 0.5}}
        )
        pixels = imread(io.BytesIO(base64.b64decode(shot["data"])))[..., :3].mean(axis=2)
        assert (np.median(pixels) < 0.5) == light, how  # the ground
        assert pixels.max() - pixels.min() > 0.6, how


def test_print_shows_the_whole_table_of_trials(page: webdriver.Chrome):
    look(page, A4, PRINT)
    box = page.execute_script(
        """
        const box = document.querySelector("#trials .scroll");
        return [box.scrollHeight - box.clientHeight, getComputedStyle(box).maxHeight];
        """
    )
    assert box == [0, "none"]
    pdf = page.execute_cdp_cmd("Page.printToPDF", {})
    assert base64.b64decode(pdf["data"]).startswith(b"%PDF")


def test_without_scripts_it_is_a_plain_table(page: webdriver.Chrome, address: str):
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.get(address)
        table = page.find_element(By.CSS_SELECTOR, "table.sortable")
        assert page.find_elements(By.TAG_NAME, "button") == []
        assert "reading-dense512" in table.text
        assert not page.find_element(By.CSS_SELECTOR, ".filter").is_displayed()
        assert page.find_element(By.CSS_SELECTOR, ".short").text == "Too short to test it."
        assert page.find_element(By.CSS_SELECTOR, "header .plot svg").is_displayed()
        assert "dense-512" in page.find_element(By.CSS_SELECTOR, "header .legend").text
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_thousands_of_trials_are_folded_away_and_sort(browser: webdriver.Chrome, tmp_path: Path):
    trials = [
        (row | {"trial_id": f"{row['trial_id']}-{number}", "seed": number}, [])
        for number in range(12)
        for row, _ in audit_trials(8, n_epochs=1)
    ]
    assert len(trials) > 1500
    write_report(write_run(tmp_path, *trials))
    browser.get((tmp_path / "report" / "index.html").as_uri())
    summary = browser.find_element(
        By.XPATH, f"//summary[contains(., 'All {len(trials):,} trials')]"
    )
    assert not browser.find_element(By.CSS_SELECTOR, "table.sortable").is_displayed()
    summary.click()
    browser.find_element(By.XPATH, "//th[starts-with(., 'Test MSE')]/button").click()
    values = [float(value) for value in column(browser, "Test MSE")]
    assert len(values) == len(trials)
    assert values == sorted(values)
