"""The notebook as a reader meets it: opened in JupyterLab in a browser, run from the menu, looked at.

Needs Chromium or Chrome. Without it the test is skipped, or fails where S9_BROWSER=required says that it
must not be.
"""

import os
import shutil
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from conftest import REPO, free_port
from playwright.sync_api import sync_playwright
from test_notebook import copy_sources

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-sync", "--no-first-run", "--disable-quic"]
OVERRIDES = """{
  "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none", "autoStartDefaultKernel": true},
  "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}
}"""
"""JupyterLab otherwise takes cells that are not in sight out of the page."""

WATCH = """() => {
  window.seen = {bars: new Set(), images: new Set()};
  new MutationObserver(() => {
    for (const bar of document.querySelectorAll('.jp-OutputArea .widget-hprogress .progress-bar'))
      if (parseFloat(bar.style.width) > 0) window.seen.bars.add(bar.style.width);
    for (const image of document.querySelectorAll('.jp-OutputArea img'))
      window.seen.images.add(image.src);
  }).observe(document.body, {subtree: true, childList: true, attributes: true});
}"""
"""Keeps what is to be seen only while the notebook runs."""

KERNEL_IS_IDLE = '.jp-StatusBar-TextItem:has-text("| Idle")'
"""The notebook's own indicator says so too, but before there is a kernel as well; cells are then not run."""

ENDED = """() => {
  const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.innerText);
  const idle = document.querySelector('.jp-Notebook-ExecutionIndicator').dataset.status === 'idle';
  return idle && /[0-9]/.test(prompts[0]) && !prompts.some(prompt => prompt.includes('*'));
}"""

LOOK = """() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(cell => {
  const wide = [...cell.querySelectorAll('.cm-scroller, .jp-OutputArea-output, .jp-OutputArea-output pre')];
  return {
    code: cell.classList.contains('jp-CodeCell'),
    count: (cell.querySelector('.jp-InputPrompt')?.innerText.match(/[0-9]+/) ?? [''])[0],
    error: cell.querySelector('[data-mime-type="application/vnd.jupyter.error"]')?.innerText ?? '',
    warning: cell.querySelector('[data-mime-type="application/vnd.jupyter.stderr"]')?.innerText ?? '',
    text: cell.querySelector('.jp-OutputArea')?.innerText ?? '',
    sideways: wide.filter(part => part.scrollWidth > part.clientWidth + 1).length,
  };
})"""

IN_SIGHT = """image => {
  const box = image.getBoundingClientRect();
  const page = image.closest('.jp-WindowedPanel-outer, .jp-Notebook').getBoundingClientRect();
  const high = box.top < page.bottom && box.bottom > page.top;
  const inside = high && box.left >= page.left && box.right <= page.right;
  return image.complete && image.naturalWidth > 100 && box.width > 100 && inside;
}"""


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; the test is skipped, or fails, where it is missing."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        say = pytest.fail if os.environ.get("S9_BROWSER") == "required" else pytest.skip
        say("the notebook is not looked at in a browser, for lack of one: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):
    """JupyterLab in a copy of these sources; (its address, the copy of the notebook)."""
    copy, own = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("jupyter")
    copy_sources(copy)
    notebook = nbformat.read(REPO / "S9.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, copy / "S9.ipynb")
    (own / "settings").mkdir()
    (own / "settings" / "overrides.json").write_text(OVERRIDES, encoding="utf-8")
    port = free_port()
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "ServerApp.root_dir": copy,
        "IdentityProvider.token": "",
        "LabApp.app_settings_dir": own / "settings",
    }
    environment = {name: value for name, value in os.environ.items() if name not in ("DATA_DIR", "RUN_DIR")}
    environment |= {f"JUPYTER_{name}_DIR": str(own) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment |= {"DATASET": "digits", "EPOCHS": "2"}
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
    with (own / "log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=copy)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, server, own / "log")
        yield address, copy / "S9.ipynb"
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(address, server, log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')}")


def run_all(browser, address):
    """Opens the notebook, runs all its cells from the menu; the page when the kernel has come to rest."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{address}/lab/tree/S9.ipynb?reset")
    page.wait_for_selector(KERNEL_IS_IDLE, timeout=60_000)
    page.evaluate(WATCH)
    page.click('.lm-MenuBar-itemLabel:text-is("Run")')
    page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
    page.wait_for_function(ENDED, timeout=150_000, polling=200)
    return page


def problems(page, notebook):
    """What a reader of the page would call broken, in words."""
    found = []
    for cell, look in zip(notebook.cells, page.evaluate(LOOK), strict=True):
        if look["code"] and not look["count"]:
            found.append(f"{cell.id} was not run")
        told = [kind for kind in ("error", "warning") if look[kind]]
        found += [f"{cell.id} shows: {look[kind]}" for kind in told]
        if look["sideways"]:
            found.append(f"{cell.id} scrolls sideways")
    shown = page.locator(".jp-Notebook .jp-Cell")
    for number, cell in enumerate(notebook.cells):
        images = shown.nth(number).locator(".jp-OutputArea img")
        if ".plot_" in cell.source and cell.cell_type == "code" and images.count() != 1:
            found.append(f"{cell.id} shows {images.count()} pictures")
        for image in images.all():
            image.scroll_into_view_if_needed()
            if not image.evaluate(IN_SIGHT):
                found.append(f"{cell.id} has a picture that is not to be seen")
    if page.evaluate("() => document.documentElement.scrollWidth > window.innerWidth"):
        found.append("the page scrolls sideways")
    return found


def test_the_notebook_in_a_browser(browser, lab):
    address, path = lab
    page = run_all(browser, address)
    assert problems(page, nbformat.read(path, as_version=4)) == []

    bars, images = page.evaluate("() => [[...window.seen.bars], [...window.seen.images]]")
    last = page.evaluate("() => [...document.querySelectorAll('.jp-OutputArea img')].map(image => image.src)")
    assert bars, "no bar was a widget that filled up"
    assert len(set(images) - set(last)) == 1, "the curves after the first of two epochs, and no other picture"

    photo = str(REPO / "Images" / "metrics.png")
    with page.expect_file_chooser() as chooser:
        page.click(".jp-OutputArea .widget-upload")
    chooser.value.set_files(photo)
    large = "() => document.querySelector('.jp-OutputArea img.widget-image')?.naturalWidth > 1000"
    page.wait_for_function(large, timeout=40_000, polling=200)

    page.keyboard.press("Control+s")
    page.wait_for_selector(".jp-mod-dirty", state="detached")
    page.close()
    cells = {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}
    outputs = [output for output in cells["train"].outputs if output.get("data") != {"text/plain": ""}]
    assert {output.output_type for output in outputs} == {"stream"}
    with_widgets = [name for name, cell in cells.items() if "widget-view" in str(cell.get("outputs"))]
    assert with_widgets == ["tryout"]
    assert path.stat().st_size < 3_000_000
