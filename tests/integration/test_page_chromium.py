"""Tests of the page in a browser: choose a wheel, read its details, and copy its commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from scripts.index import writer
from scripts.index.catalog import Catalog, Entry
from scripts.index.install_commands import commands, package_commands, torch_commands
from scripts.index.page import page
from scripts.index.page.page_data import DETAILS_UP_TO
from scripts.matrix import matrix
from scripts.matrix.matrix import Matrix
from scripts.model import Cell
from scripts.publish.serve import static
from tests.catalogs import catalog, entry, many
from tests.index_factory import pure

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -r requirements/tests.txt")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="needs Chromium: apt-get install --no-install-recommends chromium chromium-driver",
    ),
]
AXES = ("system", "python", "torch", "cuda", "release")
HOSTILE = "</script><img src=x onerror=document.title='taken'><b>&amp;"
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
SITE = "a $(site) & 'more'"
"""The folder name in the page's URL, with characters that a shell interprets."""


@dataclass
class Browser:
    """A browser and the index that it shows."""

    driver: Any
    root: str
    folder: Path
    catalog: Catalog

    def open(self, state: str = "", *, width: int = 1100, script: bool = True, base: str | None = None) -> None:
        """Load the page with ``state`` as the end of its URL."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        self.driver.get("about:blank")
        self.driver.get(f"{base or self.root}/index.html{state}")
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    def click(self, axis: str, value: str) -> None:
        self.option(axis, value).click()

    def option(self, axis: str, value: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, f'input[name="{axis}"][value="{value}"]')

    def choose(self, one: Entry) -> None:
        for axis, value in zip(AXES, place(one), strict=True):
            self.click(axis, value)

    def chosen(self) -> list[str]:
        return [self.run(f"document.querySelector('input[name={axis}]:checked').value") for axis in AXES]

    def text(self, name: str) -> str:
        found: str = self.driver.find_element(By.ID, name).text
        return found

    def raw(self, name: str) -> str:
        return str(self.run(f"document.getElementById('{name}').textContent"))

    def run(self, expression: str) -> Any:
        return self.driver.execute_script(f"return {expression}")

    def reason(self, axis: str, value: str) -> str:
        """Return the visible and accessible reason why an option is disabled."""
        option = self.option(axis, value)
        assert not option.is_enabled()
        reason = self.driver.find_element(By.ID, option.get_attribute("aria-describedby"))
        assert reason.is_displayed()
        assert value.removeprefix("cu") in reason.text.replace(".", "") or value in reason.text
        return str(reason.text)


PACKAGES = (
    pure("custom-rasterizer", requires=["torch>=2.1", "torch-rasterizer>=0.1.0"]),
    pure(requires=["numpy", "torch>=2.1"]),
)


def place(one: Entry) -> list[str]:
    return [one.platform, one.python, one.torch, one.cuda, one.release]


def _changes(cell: Cell) -> dict[str, Any]:
    if cell.release.version == "0.3.5":
        return {"yanked": HOSTILE}
    if cell.release.version == "0.3.4":
        return {"gpu": "waived", "waiver": HOSTILE}
    return {"gpu": "untested"} if cell.release.version == "0.3.3" else {}


@pytest.fixture(scope="module")
def loaded() -> Matrix:
    return matrix.load()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in [*_FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def opened(driver: Any, loaded: Matrix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Yield an index of the matrix's wheels without 0.4.0 and without Python 3.10."""
    cells = [cell for cell in loaded.cells if cell.release.version != "0.4.0" and cell.python != "3.10"]
    made = replace(catalog(cells, _changes), packages=PACKAGES)
    with _served(driver, loaded, made, tmp_path_factory.mktemp("site")) as browser:
        yield browser


@pytest.fixture
def browser(opened: Browser) -> Iterator[Browser]:
    """Check after each test that the browser logged no problem and sent no request to another host."""
    for kind in ("browser", "performance"):
        opened.driver.get_log(kind)
    yield opened
    assert opened.driver.get_log("browser") == []
    events = [json.loads(line["message"])["message"] for line in opened.driver.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    allowed = (opened.root.rpartition("/")[0] + "/", "about:", "data:", opened.folder.as_uri())
    assert urls
    assert [url for url in urls if not url.startswith(allowed)] == []


@contextmanager
def _served(driver: Any, loaded: Matrix, held: Catalog, root: Path) -> Iterator[Browser]:
    """Serve an index of the catalog ``held`` at a URL with characters that a shell interprets."""
    generation = root / SITE
    stated = {one.sha256 for one in held.entries if one.torch != "2.9"}
    writer.generate(held, generation, page=page.render(held, loaded, stated))
    with static(root) as url:
        yield Browser(driver, f"{url.rstrip('/')}/a%20%24%28site%29%20%26%20%27more%27", generation, held)


def _entries(browser: Browser) -> list[Entry]:
    kept = [one for one in browser.catalog.entries if one.yanked is None]
    return kept[:: len(kept) // 6]


def test_page_shows_the_commands_of_the_chosen_wheel(browser: Browser) -> None:
    browser.open()
    for one in _entries(browser):
        browser.choose(one)
        expected = commands(browser.root, one)
        assert browser.chosen() == place(one)
        assert browser.raw("pip") == "\n".join(expected.pip)
        assert browser.raw("uv") == "\n".join(expected.uv)
        assert browser.raw("pyproject") == expected.pyproject
        details = browser.text("wheel")
        assert one.name in details
        assert one.sha256 in details
        assert page.megabytes(one.size) in details
        assert page.architectures(one) in details
        links = {link.get_attribute("href") for link in browser.driver.find_elements(By.CSS_SELECTOR, "#wheel a")}
        assert f"{browser.root}/records/{one.sha256}.audit.json" in links
        assert (f"{browser.root}/records/{one.sha256}.gpu.json" in links) == (one.gpu == "passed")
        for kind in ("cdx", "provenance"):
            assert (f"{browser.root}/records/{one.sha256}.{kind}.json" in links) == (one.torch != "2.9")


def test_page_shows_the_torch_command_first(browser: Browser, loaded: Matrix) -> None:
    browser.open()
    cells = ("0.3.3.1-cp312-cu130-torch2.14-linux_x86_64", "0.3.3.1-cp312-cu126-torch2.8-win_amd64")
    for cell in loaded.select(cells):
        browser.choose(entry(cell))
        expected = torch_commands(cell.torch.version, cell.toolkit.tag, cell.torch.origin)
        assert (browser.raw("torch-pip"), browser.raw("torch-uv")) == (expected.pip, expected.uv)
        text = browser.text("how")
        assert text.index(expected.pip) < text.index("pip install --index-url")
        assert ("download.pytorch.org" in expected.pip) == (cell.torch.line == "2.8")


def test_url_in_commands_is_safe_in_a_shell(browser: Browser) -> None:
    one = _entries(browser)[0]
    browser.open(base=browser.root.replace("%24%28", "$(").replace("%29%20%26%20%27", ")%20&%20'"))
    assert "$(site)" in browser.driver.current_url
    browser.choose(one)
    assert browser.raw("pip") == "\n".join(commands(browser.root, one).pip)


def test_package_commands_have_the_address_of_the_page(browser: Browser) -> None:
    browser.open()
    shown = [found.text for found in browser.driver.find_elements(By.CSS_SELECTOR, "pre.address")]
    assert shown == ["\n".join(package_commands(browser.root, package, PACKAGES).pip) for package in PACKAGES]
    assert "ADDRESS" not in browser.driver.find_element(By.TAG_NAME, "body").text


def test_disabled_options_have_a_reason(browser: Browser) -> None:
    browser.open("#system=win_amd64&python=3.13&torch=2.13&cuda=cu130&release=0.3.3.1")
    assert "not yet published" in browser.reason("python", "3.10")
    assert "not yet published" in browser.reason("release", "0.4.0")
    expected = "torch has no CUDA build for Python 3.13 on Windows x86-64 (as of 2026-08)"
    assert expected in browser.reason("torch", "2.2")
    assert "published no 2.5.1 for CPython 3.13 on Windows" in browser.reason("torch", "2.5")
    assert "MSVC's /Zc:preprocessor" in browser.reason("cuda", "cu132")
    assert "torch 2.13 has no such build for Python 3.13" in browser.reason("cuda", "cu118")
    assert "(according to PyTorch's release notes, not observed)" in browser.reason("cuda", "cu118")
    browser.open("#system=linux_x86_64&python=3.12&torch=2.6&cuda=cu124&release=0.3.3.1")
    assert "torch has a build (as of 2026-08), but no wheel for it is planned" in browser.reason("cuda", "cu126")
    assert "0.3.3.1 has every C++ and CUDA file of 0.3.3" in browser.reason("release", "0.3.3")


def test_url_has_the_choice(browser: Browser) -> None:
    one = _entries(browser)[1]
    browser.open()
    browser.choose(one)
    address = browser.driver.current_url
    assert address == f"{browser.root}/index.html#" + "&".join(map("=".join, zip(AXES, place(one), strict=True)))
    browser.open("#" + address.split("#")[1])
    assert browser.chosen() == place(one)
    assert browser.text("notice") == ""
    browser.run("location.hash = 'system=linux_x86_64&python=3.11&torch=2.9&cuda=cu128&release=0.3.3.1'")
    wait(browser, "document.querySelector('input[name=cuda]:checked').value === 'cu128'")
    assert browser.driver.current_url.endswith("#system=linux_x86_64&python=3.11&torch=2.9&cuda=cu128&release=0.3.3.1")


@pytest.mark.parametrize("state", ["#", "#system=<b>&python=&x", "#torch=9.9&cuda=__proto__", "#%%%"])
def test_invalid_url_gives_the_default_choice(browser: Browser, state: str) -> None:
    browser.open()
    first = browser.chosen()
    browser.open(state)
    assert browser.chosen() == first


def test_url_of_an_unavailable_combination_is_explained(browser: Browser) -> None:
    browser.open("#system=win_amd64&python=3.12&torch=2.15&cuda=cu132&release=0.3.3.1")
    assert "torch 2.15 → torch 2.13" in browser.text("notice")
    assert "no CUDA build for Python 3.12 on Windows" in browser.text("notice")
    browser.click("system", "linux_x86_64")
    assert browser.chosen() == ["linux_x86_64", "3.12", "2.15", "cu132", "0.3.3.1"]
    assert browser.text("notice") == ""


def test_page_works_with_the_keyboard(browser: Browser) -> None:
    browser.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    browser.open("#system=linux_x86_64&python=3.12&torch=2.9&cuda=cu130&release=0.3.3.1")
    press(browser, Keys.TAB)
    assert browser.run("document.activeElement.name") == "system"
    while browser.run("document.activeElement.name") != "cuda":
        press(browser, Keys.TAB)
    outline = "getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
    assert browser.run(outline) == "solid"
    press(browser, Keys.ARROW_RIGHT)
    assert browser.chosen()[3] == "cu128"
    for tool in ("pip", "uv", "pyproject"):
        while browser.run("document.activeElement.dataset.copies ?? ''") != tool:
            press(browser, Keys.TAB)
        press(browser, Keys.ENTER)
        wait(browser, "document.activeElement.textContent === 'Copied'")
        assert browser.text("copied") == f"Copied for {tool}"
        read = "const done = arguments[0]; navigator.clipboard.readText().then(done, (error) => done(String(error)))"
        assert browser.driver.execute_async_script(read) == browser.raw(tool)
        assert "cu128" in browser.raw(tool)


def test_warnings_are_shown_as_text(browser: Browser) -> None:
    browser.open("#system=linux_x86_64&python=3.12&torch=2.11&cuda=cu130&release=0.3.5")
    assert browser.text("warnings").startswith("Yanked")
    assert HOSTILE in browser.text("warnings")
    assert not browser.driver.find_element(By.ID, "how").is_displayed()
    browser.click("release", "0.3.4")
    assert browser.text("warnings") == f"Not run on a GPU: {HOSTILE}"
    assert browser.driver.find_element(By.ID, "how").is_displayed()
    browser.click("release", "0.3.3")
    assert browser.text("warnings").startswith("Untested")
    browser.click("release", "0.3.3.1")
    assert browser.text("warnings") == ""
    assert browser.driver.title == "nvdiffrast wheels"


def test_yanked_wheel_is_not_the_default(browser: Browser) -> None:
    browser.open("#system=linux_x86_64&python=3.12&torch=2.11&cuda=cu130")
    assert browser.chosen()[4] == "0.3.4"


@pytest.mark.parametrize("width", [320, 375, 768])
def test_page_is_not_wider_than_the_screen(browser: Browser, width: int) -> None:
    for state in ("", "#system=win_amd64&python=3.12&torch=2.13&cuda=cu130&release=0.3.5"):
        browser.open(state, width=width)
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("document.getElementById('pip').scrollWidth") <= width


def test_page_follows_the_color_scheme_of_the_system(browser: Browser) -> None:
    colors = set()
    for scheme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        browser.open()
        colors.add(browser.run("getComputedStyle(document.body).backgroundColor"))
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(colors) == 2


def test_page_without_scripts_shows_the_table(browser: Browser) -> None:
    browser.open(script=False)
    assert not browser.driver.find_element(By.ID, "chooser").is_displayed()
    rows = browser.driver.find_elements(By.CSS_SELECTOR, "tbody tr")
    assert len(rows) == len({one.channels for one in browser.catalog.entries}) + len(PACKAGES)
    assert all(row.is_displayed() for row in rows)
    assert "ADDRESS/whl/" in browser.driver.find_element(By.TAG_NAME, "noscript").text
    target = rows[0].find_element(By.TAG_NAME, "a").get_attribute("href")
    assert (browser.folder / target.removeprefix(f"{browser.root}/")).is_file()


def test_page_works_as_a_local_file(browser: Browser) -> None:
    one = _entries(browser)[2]
    browser.open(base=browser.folder.as_uri())
    browser.choose(one)
    assert one.sha256 in browser.text("wheel")
    assert "#system=" in browser.driver.current_url


def test_details_of_many_wheels_are_fetched(browser: Browser, loaded: Matrix, driver: Any, tmp_path: Path) -> None:
    held = many(loaded.cells, DETAILS_UP_TO + 1)
    one = entry(loaded.select(["0.3.3.1-cp312-cu128-torch2.9-linux_x86_64"])[0])
    with _served(driver, loaded, held, tmp_path) as other:
        other.open()
        other.choose(one)
        wait(other, f"document.getElementById('wheel').textContent.includes('{one.sha256}')")
        assert page.megabytes(one.size) in other.text("wheel")
        other.open(base=other.folder.as_uri())
        other.choose(one)
        wait(other, "document.querySelector('#wheel a')")
        assert "whl/cu128-torch2.9/nvdiffrast/index.html" in other.run("document.querySelector('#wheel a').href")
        # The browser blocks and logs the request of a local page, which then links to the channel's list.
        driver.get_log("browser")
    driver.get_log("performance")
    browser.open()


def test_page_of_an_empty_index(browser: Browser, loaded: Matrix, driver: Any, tmp_path: Path) -> None:
    with _served(driver, loaded, Catalog(), tmp_path) as other:
        other.open()
        assert not driver.find_element(By.ID, "chooser").is_displayed()
        assert "No wheel is published here yet." in driver.find_element(By.TAG_NAME, "main").text
    driver.get_log("performance")
    browser.open()


def press(browser: Browser, key: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser.driver).send_keys(key).perform()


def wait(browser: Browser, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser.driver, 10).until(lambda _: browser.run(f"!!({condition})"))
