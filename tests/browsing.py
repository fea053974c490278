"""A browser for the tests: Chromium without a window, in which pages are opened, printed and looked through.

Where there is none its tests are skipped, or fail with COURSE_BROWSER=required. axe-core is used where npm
has put it.
"""

import base64
import io
import os
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
from conftest import ROOT

try:
    from selenium import webdriver
    from selenium.webdriver.common.keys import Keys
except ImportError:
    webdriver = Keys = None

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
UNFOLD = """document.querySelectorAll('details').forEach(fold => {
    fold.removeAttribute('name'); fold.open = true;
});"""


def missing(what: str) -> None:
    """Fail where a browser is required, skip elsewhere."""
    pytest.fail(what) if os.environ.get("COURSE_BROWSER") == "required" else pytest.skip(what)


class Browser:
    """A page at a width, in a colour scheme, with scripts or without."""

    def __init__(self):
        if webdriver is None:
            missing("selenium isn't installed")
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        driver = shutil.which("chromedriver")
        if not (found and driver):
            missing("no Chromium with its driver on this machine")
        options = webdriver.ChromeOptions()
        options.binary_location = found
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(driver))
        self.run = self.driver.execute_script

    def tell(self, command: str, **parameters):
        return self.driver.execute_cdp_cmd(command, parameters)

    def open(self, path: Path, width: int = 1440, scheme: str = "light", media: str = "",
             scripts: bool = True, motion: str = "reduce"):
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
                  mobile=False)
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        self.tell("Emulation.setEmulatedMedia", media=media, features=[
            {"name": name, "value": value} for name, value in wishes.items()])
        self.tell("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.driver.get(path.resolve().as_uri())

    def all(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str):
        return self.all(selector)[0]

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def violations(self) -> list:
        """What axe-core finds in the open page: each rule with the elements that break it."""
        if not AXE.is_file():
            pytest.skip("axe-core isn't in node_modules/: npm install --no-save axe-core")
        self.run(AXE.read_text(encoding="utf-8"))
        return self.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then(result => done(result.violations.map(each =>"
            " [each.id, each.nodes.map(node => node.html.slice(0, 120))])))")

    def printed(self) -> str:
        """The text of the open page's PDF, without spaces and line ends."""
        reader = pytest.importorskip("pypdf", reason="pypdf isn't installed")
        data = base64.b64decode(self.tell("Page.printToPDF", printBackground=True)["data"])
        return squeezed(" ".join(page.extract_text() for page in reader.PdfReader(io.BytesIO(data)).pages))


def squeezed(text: str) -> str:
    """The text without spaces, and without what fonts make of letters."""
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", text))
