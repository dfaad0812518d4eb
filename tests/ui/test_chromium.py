"""The explorer in a real browser: each view, a live run, an answer, a fork; nothing is blocked.

Needs Chromium and its driver (Debian: ``chromium``, ``chromium-driver``). Without them the tests
are skipped at home and fail in CI. Screenshots are left in ``build/screenshots``.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from eventstore import EventStore
from tests.cli.support import ROOT, process
from tests.ui.support import builder, config, fill, said

pytestmark = pytest.mark.slow

SCREENSHOTS: Final = ROOT / "build" / "screenshots"
SECONDS_MAX: Final = 20.0


class Chrome:
    """A person at a browser."""

    def __init__(self, driver: webdriver.Chrome, home: str) -> None:
        self.driver = driver
        self.home = home

    def open(self, path: str) -> None:
        """Go to an address of the explorer."""
        self.driver.get(self.home + path)

    def click(self, text: str) -> None:
        """Follow a link by its text."""
        self.driver.find_element(By.LINK_TEXT, text).click()

    def press(self, text: str) -> None:
        """Press a button by its text."""
        self.driver.find_element(By.XPATH, f"//button[normalize-space()='{text}']").click()

    def fill(self, name: str, text: str) -> Any:
        """Write into a field by its name."""
        field = self.driver.find_element(By.NAME, name)
        field.clear()
        field.send_keys(text)
        return field

    def shows(self, text: str) -> None:
        """Wait until the page holds a text."""
        changing = (NoSuchElementException, StaleElementReferenceException)
        waiting = WebDriverWait(self.driver, SECONDS_MAX, ignored_exceptions=changing)
        waiting.until(lambda _: text in self.text, f"the page does not show {text!r}")

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def keep(self, name: str) -> None:
        """Keep a picture of the page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('explorer') / 'store.db'}"
    fill(url)
    with EventStore(url) as store:
        runs = builder.compile(checkpointer=store)
        for n in range(60):
            runs.update_state(config(f"many-{n:02}"), {"topic": "x"}, as_node="think")
    return url


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in found:
        reason = "chromium or chromedriver is not installed (apt-get install chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = str(found[0])
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1200,900"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(found[1]))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def home(database: str) -> Iterator[str]:
    """The address of an explorer of that database, which allows edits."""
    running = process(
        "ui", "--db", database, "--port", "0", "--allow-edits", "--user", "Ann",
        "--app", "tests.ui.support:graph",
    )  # fmt: skip
    assert running.stdout is not None
    yield running.stdout.readline().strip()
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=20)


@pytest.fixture
def chrome(driver: webdriver.Chrome, home: str) -> Iterator[Chrome]:
    driver.set_window_size(1200, 900)
    driver.get(home)
    base = home.partition("/?")[0]
    assert driver.current_url == f"{base}/threads"
    yield Chrome(driver, base)
    log: Any = driver
    severe = [each for each in log.get_log("browser") if each["level"] == "SEVERE"]
    wrong = [each for each in severe if "status of 4" not in each["message"]]
    assert not wrong, "the browser refused something, or a script failed"


def test_threads_are_filtered_and_paged(chrome: Chrome) -> None:
    chrome.shows("many-")
    rows = chrome.driver.find_elements(By.CSS_SELECTOR, "tbody tr")
    assert len(rows) == 50
    WebDriverWait(chrome.driver, SECONDS_MAX).until(
        lambda d: d.find_element(By.CSS_SELECTOR, "tbody td.number").text
    )  # measured by a second request
    chrome.shows("failed 1")  # counted by another one
    chrome.keep("threads")
    chrome.click("next page")
    chrome.shows("first page")
    assert len(chrome.driver.find_elements(By.CSS_SELECTOR, "tbody tr")) == 15
    chrome.click("clear")
    Select(chrome.driver.find_element(By.NAME, "status")).select_by_visible_text("failed")
    chrome.fill("prefix", "fail").send_keys(Keys.ENTER)
    chrome.shows("failed")
    assert len(chrome.driver.find_elements(By.CSS_SELECTOR, "tbody tr")) == 1


def test_a_thread_is_read_and_a_value_leads_to_its_cause(chrome: Chrome) -> None:
    chrome.open("/thread?id=done")
    chrome.shows("let me look")
    chrome.shows("watching for more")
    chrome.keep("thread")
    chrome.driver.find_element(By.CSS_SELECTOR, "#seq-7 .seq").click()
    chrome.shows("Written by")
    chrome.driver.find_element(By.XPATH, "//a[@class='opens'][.='messages']").click()
    chrome.shows("order 7: shipped")  # opened in place
    assert "/checkpoint" in chrome.driver.current_url
    chrome.keep("checkpoint")
    chrome.driver.find_element(By.CSS_SELECTOR, ".tree .tree li:nth-child(3) .why").click()
    chrome.shows("The event that made it")
    cause = chrome.driver.find_element(By.CSS_SELECTOR, "h2 + .event")
    assert "lookup" in cause.text and "it had read the state at" in cause.text
    chrome.keep("blame")
    cause.find_elements(By.LINK_TEXT, "seq 2")[-1].click()
    chrome.shows("done at seq 2")


def test_a_difference_is_shown(chrome: Chrome) -> None:
    chrome.open("/checkpoint?id=done&seq=7")
    chrome.fill("to", "2")
    chrome.press("Compare")
    chrome.shows("+another line")
    chrome.keep("diff")
    chrome.open("/checkpoint?id=done&seq=7")
    chrome.click("what changed")
    chrome.shows("appended")


@pytest.mark.parametrize(
    "path",
    """branches?id=done graph?id=done transcript?id=done event?id=done&seq=2 verify?id=done waiting
    retention plan tombstones archive storage""".split(),
)
def test_each_other_view_is_shown(chrome: Chrome, path: str) -> None:
    chrome.open(f"/{path}")
    assert chrome.driver.find_element(By.TAG_NAME, "h1").text
    assert "cannot be shown" not in chrome.text
    chrome.keep(path.partition("?")[0])


def test_hostile_text_stays_text(chrome: Chrome) -> None:
    chrome.open("/threads")
    chrome.fill("prefix", "../<").send_keys(Keys.ENTER)
    chrome.shows("<script>alert(1)</script>")
    chrome.driver.find_element(By.CSS_SELECTOR, "tbody a").click()
    chrome.shows("refund?")
    assert "\u202e" not in chrome.text and "{{7*7}}" in chrome.text
    chrome.keep("hostile")


def test_a_running_thread_grows_on_the_page(chrome: Chrome, database: str) -> None:
    with EventStore(database) as store:
        runs = builder.compile(checkpointer=store)
        runs.update_state(config("live"), {"topic": "live"}, as_node="ask")
        chrome.open("/thread?id=live")
        chrome.shows("watching for more")
        assert "let me look" not in chrome.text
        runs.invoke({"messages": [said("are you there?")]}, config("live"))
        chrome.shows("are you there?")
        chrome.shows("let me look")
        chrome.shows("waiting")
    assert chrome.driver.find_element(By.ID, "seq-5").is_displayed()
    chrome.keep("live")


def test_a_question_is_answered(chrome: Chrome) -> None:
    chrome.open("/thread?id=waits")
    chrome.shows("ask asks")
    chrome.fill("text", "go ahead")
    chrome.press("Respond with the text")
    chrome.shows("recorded as")
    assert "Ann" in chrome.text
    chrome.keep("confirm")
    chrome.press("Yes, do it")
    chrome.shows("refund: go ahead")
    chrome.shows("answered")
    assert "ask asks" not in chrome.text


def test_a_fork_is_made(chrome: Chrome) -> None:
    chrome.open("/checkpoint?id=done&seq=2")
    chrome.fill("new_id", "another try")
    chrome.press("Fork")
    chrome.press("Yes, do it")
    chrome.shows("forked from done")
    assert chrome.driver.current_url.endswith("/thread?id=another+try")


def test_it_can_be_used_by_keyboard_in_the_dark_and_on_a_phone(chrome: Chrome) -> None:
    chrome.open("/threads")
    chrome.driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert chrome.driver.switch_to.active_element.text == "Skip to the content"
    chrome.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    chrome.driver.set_window_size(500, 900)
    chrome.open("/thread?id=done")
    chrome.shows("let me look")
    background = chrome.driver.execute_script(
        "return getComputedStyle(document.body).backgroundColor"
    )
    assert background == "rgb(20, 24, 28)"
    width = chrome.driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= chrome.driver.execute_script("return window.innerWidth")
    chrome.keep("phone-dark")
    chrome.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_it_works_without_scripts(chrome: Chrome) -> None:
    chrome.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chrome.open("/checkpoint?id=done&seq=7")
        chrome.driver.find_element(By.XPATH, "//a[@class='opens'][.='messages']").click()
        chrome.shows("order 7: shipped")
        assert "/state?" in chrome.driver.current_url
        chrome.open("/threads")
        chrome.click("measure these threads")
        chrome.shows("Sizes")
    finally:
        chrome.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
