"""A real browser: Debian's Chromium, driven by Selenium through Debian's chromedriver. No browser is downloaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import machine

#: The longest wait for a page, and the pause between two looks at it, in seconds.
PATIENCE, POLL = 30, 0.01
#: How often the tabulator is pressed at most, until something has the focus.
MOST_STOPS = 50
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    # Hosts of the tests' own: those of one test are of one site, or of several.
    "--host-resolver-rules=MAP *.test 127.0.0.1",
)
#: Third-party cookies are blocked, as in most browsers today.
PREFERENCES = {"profile.cookie_controls_mode": 1}


class Tab:
    """A tab of a visitor's browser.

    Args:
        driver: Selenium's, which all tabs share.
        context: the visitor's profile: tabs of one have the same cookies.
    """

    def __init__(self, driver: Any, context: str) -> None:
        self._shared, self._context = driver, context
        self._handle = driver.browsing_context.create(type="tab", user_context=context)
        self._is_in_frame = False
        # What was logged before is another test's.
        self.problems()

    def another(self) -> Tab:
        """Return another tab of the same visitor."""
        return Tab(self._shared, self._context)

    @property
    def driver(self) -> Any:
        """Selenium's driver, with this tab in front, or its frame."""
        # That leaves a frame.
        if not self._is_in_frame:
            self._shared.switch_to.window(self._handle)
        return self._shared

    # -- From page to page ---------------------------------------------------------------------------

    def open(self, url: str) -> None:
        """Open a page, and wait until it is loaded."""
        self.driver.get(url)

    def reload(self) -> None:
        """Load the page again."""
        self.driver.refresh()

    def back(self) -> None:
        """Go back, as the button does."""
        self.driver.back()

    def click(self, selector: str) -> None:
        """Click on what leads to another page, and wait until that is loaded."""
        with self.leaving():
            self.find(selector).click()

    def begin(self, selector: str) -> None:
        """Click on what leads to another page, and do not wait for it."""
        # Not by WebDriver, which waits for the page whenever it is asked for something.
        script = f"document.querySelector({json.dumps(selector)}).click()"
        self._shared.script.evaluate(script, {"context": self._handle}, await_promise=False)

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Wait until another page is in the place of this one, and is loaded."""
        self.run("window.isLeft = true")
        yield
        self.wait(lambda _driver: self.run("!window.isLeft && document.readyState === 'complete'"))

    def wait(self, condition: Any) -> Any:
        """Wait until a condition, which is given the driver, holds, and return what it has returned."""
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.wait import WebDriverWait

        # While one page gives way to another, chromedriver finds neither, and has various words for that.
        return WebDriverWait(self.driver, PATIENCE, POLL, (WebDriverException,)).until(condition)

    @property
    def url(self) -> str:
        """The page's address."""
        return self.driver.current_url

    @property
    def status(self) -> int:
        """The status with which the page was answered."""
        return self.run("performance.getEntriesByType('navigation')[0].responseStatus")

    # -- The page ------------------------------------------------------------------------------------

    def find(self, selector: str) -> Any:
        """Return the first element of the page that a CSS selector matches."""
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """Return the text of an element, as it is shown."""
        return self.find(selector).text

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that a CSS selector matches."""
        return [found.text for found in self.driver.find_elements("css selector", selector)]

    def type(self, selector: str, text: str) -> None:
        """Type a text into a field."""
        self.find(selector).send_keys(text)

    def press_by_keyboard(self, selector: str) -> int:
        """Move to a button or a link by the tabulator, as far as that leads, and press Enter; return the stops."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        wanted, stops = self.find(selector), 0
        while stops < MOST_STOPS and self.driver.switch_to.active_element != wanted:
            ActionChains(self.driver).send_keys(Keys.TAB).perform()
            stops += 1
        ActionChains(self.driver).send_keys(Keys.ENTER).perform()
        return stops

    @contextmanager
    def frame(self) -> Iterator[None]:
        """Look into the page's one frame."""
        self.driver.switch_to.frame(self.find("iframe"))
        self._is_in_frame = True
        yield
        self._is_in_frame = False

    # -- Scripts -------------------------------------------------------------------------------------

    def run(self, expression: str) -> Any:
        """Evaluate an expression in the page; a promise is waited for."""
        return self.driver.execute_script(f"return {expression}")

    def fetch(self, *urls: str, **options: Any) -> list[dict[str, Any]]:
        """Have the page fetch some addresses, all at once, past the browser's own cache.

        Args:
            urls: the addresses.
            options: as ``fetch()`` takes them.
        """
        script = """
            const [urls, options] = arguments;
            return Promise.all(urls.map(async url => {
              const answer = await fetch(url, options);
              const headers = Object.fromEntries(answer.headers);
              return {status: answer.status, headers, text: await answer.text()};
            }))
        """
        return self.driver.execute_script(script, urls, {"cache": "no-store", **options})

    # -- The browser ---------------------------------------------------------------------------------

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol for this tab, and return its result."""
        return self.driver.execute_cdp_cmd(method, params)

    def cookies(self) -> list[dict[str, Any]]:
        """Return the visitor's cookies of all sites, with what the browser knows of each."""
        return self.call("Network.getAllCookies")["cookies"]

    def without_scripts(self) -> None:
        """Run no page's scripts any more, as a user may set it; those of the tests still run."""
        self.call("Emulation.setScriptExecutionDisabled", value=True)

    def show_as(self, scheme: str, width: int) -> None:
        """Show the page to a user who prefers a color scheme, in a window of a width in pixels."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 800
        )

    def problems(self) -> list[str]:
        """Return the errors and warnings that the browser's console has got since the last call."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]


class Chromium:
    """A running Chromium without a window.

    Args:
        driver: Selenium's.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    @contextmanager
    def visitor(self) -> Iterator[Tab]:
        """Have a new visitor, whose profile is empty: a tab."""
        context = self._driver.browser.create_user_context()
        try:
            yield Tab(self._driver, context)
        finally:
            self._driver.browser.remove_user_context(context)


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[Chromium]:
    """Run Chromium.

    Args:
        folder: where its profile is made.
        flags: further ones.
    """
    machine.package("selenium")
    program, driver_program = machine.program("chromium"), machine.program("chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.enable_bidi = True
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", PREFERENCES)
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", *flags):
        options.add_argument(flag)
    with pytest.MonkeyPatch.context() as environ:
        # The driver is on this machine, and so is all that it opens.
        for name, value in (("SE_OFFLINE", "true"), ("SE_AVOID_STATS", "true"), ("no_proxy", "*")):
            environ.setenv(name, value)
        driver = webdriver.Chrome(options, Service(driver_program, env={**os.environ, "HOME": str(folder)}))
        # Selenium looks that often for an answer.
        driver.command_executor.client_config.websocket_interval = POLL
        # Connect in this environment.
        driver.browser.get_user_contexts()
    try:
        driver.set_page_load_timeout(PATIENCE)
        driver.set_script_timeout(PATIENCE)
        yield Chromium(driver)
    finally:
        # quit() would first close the websocket, whose thread looks for that every ten seconds.
        driver.execute("quit")
        driver.command_executor.close()
        driver.service.stop()
