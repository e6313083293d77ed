"""What the tests in a browser start from: pages, servers, a notebook in JupyterLab."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]

# commands run in the page; the shared model is what the kernel and the file see, and the page
# itself holds only the cells in view
READY = """async (path) => {
    const app = window.jupyterapp;
    await app.restored;
    const widget = await app.commands.execute('docmanager:open', {path});
    await widget.context.ready;
    await widget.sessionContext.ready;
    await widget.sessionContext.session.kernel.info;
}"""
RUN_ALL = """async () => {
    await window.jupyterapp.commands.execute('notebook:run-all-cells');
}"""
OUTPUTS = """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells
    .filter(cell => cell.cell_type === 'code')
    .map(cell => ({count: cell.execution_count, outputs: cell.outputs}))"""


@contextlib.contextmanager
def watched_page(browser):
    """A page 1400 × 900; at the end, no script in it may have raised."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextlib.contextmanager
def serving(command, url, folder):
    """A server that answers at `url`, started in `folder`, where it keeps all that it remembers."""
    own = {
        "JUPYTER_CONFIG_DIR": folder / "config",
        "JUPYTER_RUNTIME_DIR": folder / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
    }
    environment = os.environ | {name: str(path) for name, path in own.items()}
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while not answers(url):
                assert server.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < deadline, (folder / "server.log").read_text()
                time.sleep(0.2)
            yield
        finally:
            server.terminate()
            server.wait(20)


def answers(url) -> bool:
    try:
        urllib.request.urlopen(url).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


class Notebook:
    """A notebook open in JupyterLab, with a kernel that is ready."""

    def __init__(self, page, lab, name):
        url, token = lab
        self.page = page
        page.goto(f"{url}/lab?reset&token={token}")
        page.wait_for_function("() => window.jupyterapp !== undefined")
        page.evaluate(READY, f"notebooks/{name}.ipynb")

    def run_all(self):
        """Run all cells, wait for the last, and return the outputs of the code cells."""
        self.page.evaluate(RUN_ALL)
        cells = self.page.evaluate(OUTPUTS)
        assert [cell["count"] for cell in cells if cell["count"]], "nothing was run"
        return cells

    def show(self, text):
        """Scroll to the first cell that contains a text."""
        self.page.evaluate(
            """async (text) => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                const i = notebook.model.sharedModel.cells.findIndex(
                    cell => cell.source.includes(text));
                notebook.activeCellIndex = i;
                await notebook.scrollToItem(i, 'start');
            }""",
            text,
        )

    def screenshot(self, name):
        """Where a picture of the page is put, for whoever wants to look at it."""
        folder = ROOT / "build" / "screenshots"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.png"


def errors_of(cells) -> list:
    """What went wrong in cells, as the notebook shows it."""
    outputs = [output for cell in cells for output in cell["outputs"]]
    return [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]


LATENCY = """() => {
    window.latencies = [];
    if (window.watched) return;
    window.watched = true;
    let began = null;
    const start = () => { began ??= performance.now(); };
    document.addEventListener('keydown', start, true);
    const image = document.querySelector('.widget-image');
    new MutationObserver(() => image.decode().then(() => requestAnimationFrame(() => {
        if (began !== null) { window.latencies.push(performance.now() - began); began = null; }
    }))).observe(image, {attributes: true, attributeFilter: ['src']});
}"""


class Explorer:
    """The widgets of notebook 15."""

    def __init__(self, notebook):
        self.notebook, self.page = notebook, notebook.page
        self.errors = errors_of(notebook.run_all())
        notebook.show("for control in controls")
        self.page.locator(".widget-image").wait_for()

    @property
    def picture(self):
        return self.page.locator(".widget-image").get_attribute("src")

    @property
    def status(self):
        return self.page.locator("[role=status]").inner_text()

    @property
    def code(self):
        return self.page.locator(".widget-textarea textarea").input_value()

    def slider(self, description):
        row = self.page.locator(".widget-inline-hbox", has=self.page.get_by_text(description))
        return row.locator(".noUi-handle")

    def choose(self, description, option):
        row = self.page.locator(".widget-dropdown", has=self.page.get_by_text(description))
        row.locator("select").select_option(option)

    def press(self, name):
        self.page.locator(".widget-toggle-button", has_text=name).first.click()

    def after(self, action):
        """Do something, and wait until another picture has come and nothing more is to come."""
        before = self.picture
        action()
        self.page.wait_for_function(
            "before => document.querySelector('.widget-image').src !== before", arg=before
        )
        self.page.locator("[role=status]", has_text="ready").wait_for()
        return self.picture

    def latencies(self, description, steps):
        """Move a slider to and fro, and return the milliseconds from each key to its picture."""
        self.page.evaluate(LATENCY)
        self.slider(description).focus()
        for i in range(steps):
            self.page.keyboard.press("ArrowLeft" if i % 2 else "ArrowRight")
            self.page.wait_for_function(f"window.latencies.length > {i}")
            self.page.locator("[role=status]", has_text="ready").wait_for()
        return self.page.evaluate("window.latencies")
