"""The pages of a run, a dataset and a study in a real browser: wide and narrow, light and dark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from momalit.cli import main
from tests.cli.conftest import TINY

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
STUDY = Path(__file__).parents[2] / "docs/studies/conflicting_icg"
PAGES = ("runs/one/report.html", "inspected.html", "study/report.html")
# The least contrast of any text with what lies behind it (WCAG 2.2: 4.5 for normal text).
CONTRAST = """
() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const part = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const found = channels(getComputedStyle(element).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  let least = 21;
  for (const element of document.querySelectorAll("h1, h2, p, th, td, figcaption, summary")) {
    const [a, b] = [channels(getComputedStyle(element).color), behind(element)].map(luminance);
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
}
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a dataset's page and a study's report, made by the commands."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "tiny.yaml").write_text(TINY)
    before = Path.cwd()
    os.chdir(folder)
    try:
        data = f"data/{'a_recording_with_a_long_name' * 3}"
        assert main(["collect", "icg/unfavourable", "--transitions", "1000", "--output", data]) == 0
        assert main(["fit", "--config", "tiny.yaml", "--run_dir", "runs/one", "--data.dataset", data]) == 0
        assert main(["inspect", "icg/unfavourable", "--output", "inspected.html"]) == 0
        assert main(["report", str(STUDY), "--output", "study"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=BROWSER, args=list(OPTIONS))
        yield found
        found.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_page(name: str, scheme: str, width: int, pages: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    requests: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    address = (pages / name).as_uri()
    page.goto(address)
    assert not problems
    assert [url for url in requests if not url.startswith("data:")] == [address]  # the page needs no other file
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("table tr").count() > 3
    assert page.evaluate("[...document.querySelectorAll('svg')].every(x => x.getBoundingClientRect().height > 50)")
    assert page.evaluate(CONTRAST) >= 4.5
    page.close()
