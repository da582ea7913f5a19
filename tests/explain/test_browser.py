"""The page in a real browser: its steps, keys and sums. It loads nothing and can be read without its script."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import torchnn
from tests.explain.networks import small
from torchnn.explain import Trace, trace
from torchnn.explain.render.numbers import short, tiny
from torchnn.explain.render.page import page

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic", "--disable-dev-shm-usage"),
)
REDUCED_MOTION = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="chromium and chromium-driver are not installed"),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Open the page of a trace. At the end, the browser must have no error and no request to the outside."""

    def show(report: Trace, width: int = 1200, **options: Any) -> Any:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", REDUCED_MOTION)  # no click during smooth scrolling
        path = tmp_path / "page.html"
        path.write_text(page(report, **options))
        browser.get(path.as_uri())
        return browser

    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    yield show
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert requested
    assert all(url.startswith((tmp_path.as_uri(), "data:")) for url in requested), requested
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def text(driver: Any, selector: str) -> str:
    return str(driver.find_element(By.CSS_SELECTOR, selector).text)


def values(driver: Any, layer: int) -> list[str]:
    """The numbers inside the circles of a layer."""
    circles = driver.find_elements(By.CSS_SELECTOR, f".nodes[data-layer='{layer}'] .neuron > text:not(.name)")
    return [circle.text for circle in circles]


def test_the_buttons_go_through_all_steps(opened: Any) -> None:
    report = small(steps=10)
    driver = opened(report)
    titles = [text(driver, "#where b")]
    forward = driver.find_element(By.ID, "next")
    assert values(driver, 1) == ["", "", ""]
    while forward.is_enabled():
        forward.click()
        titles.append(text(driver, "#where b"))
        current = driver.find_elements(By.CSS_SELECTOR, ".step.current")
        assert len(current) == 1
        if titles[-1] == "Forward, layer 1":
            assert values(driver, 1) == [tiny(value) for value in report.layers[0].a[0].tolist()]
            assert values(driver, 2) == [""]
        if titles[-1] == "Backward, layer 1":
            assert values(driver, 1) == [tiny(value) for value in report.layers[0].delta[0].tolist()]
            assert values(driver, 2) == [tiny(float(report.layers[1].delta[0, 0]))]
            assert [one.text for one in driver.find_elements(By.CSS_SELECTOR, ".head")] == [
                "input a[0]",
                "δ[1]",
                "δ[2]",
            ]
    assert titles == [
        *("The input", "Forward, layer 1", "Forward, layer 2", "The loss"),
        *("Backward, layer 2", "Backward, layer 1", "One step of gradient descent"),
    ]
    driver.find_element(By.ID, "back").click()
    assert text(driver, "#where b") == "Backward, layer 1"


def test_the_keyboard_reaches_every_step_and_neuron(opened: Any) -> None:
    report = small(steps=10)
    driver = opened(report)
    body = driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.ARROW_RIGHT)
    body.send_keys(Keys.ARROW_RIGHT)
    assert text(driver, "#where b") == "Forward, layer 2"
    body.send_keys(Keys.END)
    body.send_keys(Keys.ARROW_LEFT)
    assert text(driver, "#where b") == "Backward, layer 1"
    active = driver.switch_to.active_element
    for _ in range(30):
        active.send_keys(Keys.TAB)
        active = driver.switch_to.active_element
        if active.get_attribute("data-layer") == "1":
            break
    panel = text(driver, "#panel")
    assert "Layer 1, neuron 1" in panel
    assert f"= {short(float(report.layers[0].z[0, 0]))}" in panel
    assert short(float(report.layers[0].delta[0, 0])) in panel
    assert "δ = " in active.get_attribute("aria-label")
    assert driver.find_element(By.ID, "panel").get_attribute("aria-live") == "polite"


def test_the_radio_buttons_choose_the_example(opened: Any) -> None:
    report = small(steps=10)
    driver = opened(report)
    driver.find_element(By.ID, "next").click()
    driver.execute_script("document.querySelector('input[name=example][value=\"1\"]').click()")
    assert values(driver, 1) == [tiny(value) for value in report.layers[0].a[1].tolist()]
    shown = driver.find_elements(By.CSS_SELECTOR, "#forward-1 .example")
    assert [part.is_displayed() for part in shown] == [False, True]


def test_the_slider_moves_the_loss_and_the_boundary(opened: Any) -> None:
    report = small(steps=200, lr=1.0)
    assert report.descent is not None
    driver = opened(report)
    slider = driver.find_element(By.ID, "time")
    after = driver.find_element(By.ID, "surface").get_attribute("innerHTML")
    slider.send_keys(Keys.HOME)
    assert text(driver, "#when") == f"step 0, loss {short(report.value)}"
    assert slider.get_attribute("aria-valuetext") == text(driver, "#when")
    assert driver.find_element(By.ID, "surface").get_attribute("innerHTML") != after
    assert text(driver, "#where b") == "The input"  # the slider keeps its keys to itself
    slider.send_keys(Keys.END)
    assert text(driver, "#when") == f"step 200, loss {short(report.descent.losses[-1])}"


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_the_page_does_not_scroll_sideways(opened: Any, width: int) -> None:
    wide = trace(torchnn.MLP([30, 40, 40, 1]), torch.randn(3, 30), torch.ones(3), max_differences=1, steps=2)
    for report in (small(steps=5), wide):
        driver = opened(report, width)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_page_can_be_read_without_its_script(opened: Any, browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    report = small(steps=10)
    driver = opened(report)
    seen = text(driver, "body")
    for part in ("Backward, layer 1", "Do the shapes fit?", "Every gradient in three ways", "example 2"):
        assert part in seen
    for layer in report.layers:
        assert all(short(value) in seen for value in layer.z.flatten().tolist())
        assert all(short(value) in seen for value in layer.delta.flatten().tolist())
    assert values(driver, 1) == [tiny(value) for value in report.layers[0].a[0].tolist()]
    assert not driver.find_element(By.ID, "next").is_displayed()  # a control that would do nothing
    assert not driver.find_element(By.ID, "time").is_displayed()


def test_reduced_motion_turns_transitions_off(opened: Any) -> None:
    driver = opened(small(steps=5))
    style = "return getComputedStyle(document.querySelector('.neuron circle')).transitionDuration"
    assert driver.execute_script(style) in ("0s", "")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert driver.execute_script(style).startswith("0.35s")
