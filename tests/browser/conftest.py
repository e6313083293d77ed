"""A real JupyterLab in the system's Chromium."""

import os
import secrets
import shutil
import sys
from pathlib import Path

import pytest
from browsing import ROOT, Explorer, Notebook, free_port, serving, watched_page
from helpers import CHROMIUM
from playwright.sync_api import sync_playwright


def pytest_collection_modifyitems(items):
    if CHROMIUM or os.environ.get("CI"):
        return
    skip = pytest.mark.skip(reason="no Chromium; in CI this is a failure")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox"],  # CI runs as root
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    with watched_page(browser) as page:
        yield page


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """Copies of the notebooks, which Lab saves by itself."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    return folder


@pytest.fixture(scope="session")
def lab(workspace):
    """The address of a JupyterLab, and its token."""
    port, token = free_port(), secrets.token_hex(8)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", f"--IdentityProvider.token={token}"),
        "--LabApp.expose_app_in_browser=True",
    ]
    url = f"http://127.0.0.1:{port}"
    with serving(command, f"{url}/api", workspace):
        yield url, token


@pytest.fixture
def open_notebook(page, lab):
    return lambda name: Notebook(page, lab, name)


@pytest.fixture(scope="module")
def explorer(browser, lab):
    """Notebook 15, run once: what one test has moved the next one finds moved."""
    with watched_page(browser) as page:
        yield Explorer(Notebook(page, lab, "15-explorer"))
