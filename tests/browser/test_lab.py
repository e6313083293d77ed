"""Notebooks in a real JupyterLab: they run, and what one moves is seen to move."""

import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from browsing import errors_of, free_port, serving


@pytest.mark.parametrize("name", ["00-start-here", "03-one-wide-layer"])
def test_a_notebook_runs_in_jupyterlab_without_an_error_and_its_claims_hold(open_notebook, name):
    notebook = open_notebook(name)
    cells = notebook.run_all()
    assert errors_of(cells) == []
    counts = [cell["count"] for cell in cells]
    assert counts[-1] == max(filter(None, counts))
    assert "holds" in str(cells[-1]["outputs"])
    assert "FAILS" not in str(cells[-1]["outputs"])
    notebook.page.screenshot(path=notebook.screenshot(name))


def test_a_wrong_token_is_refused(lab):
    url, token = lab
    with urllib.request.urlopen(f"{url}/api/contents?token={token}") as answer:
        assert answer.status == 200
    for wrong in ("?token=wrong", ""):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{url}/api/contents{wrong}")
        assert error.value.code == 403
        error.value.close()


def test_every_kind_of_widget_changes_the_picture_and_the_code(explorer):
    assert explorer.errors == []
    assert explorer.status == "ready"
    explorer.page.screenshot(path=explorer.notebook.screenshot("15-bounds"))

    def key(description, name="ArrowRight"):
        return lambda: explorer.slider(description).press(name)

    actions = {
        "n=201": key("samples N"),
        "d=51": key("dimension d"),
        "hidden=(1000, 50)": key("n_1"),
        "hidden=(1000, 60)": key("n_2"),
        "seed=1": key("seed"),
        "init='lecun'": lambda: explorer.press("lecun"),
        "activation='tanh'": lambda: explorer.choose("activation", "tanh"),
        "data='gaussian'": lambda: explorer.choose("data", "gaussian"),
        "hidden=(1000, 60, 50)": key("hidden"),
        "data='digits'": lambda: explorer.choose("data", "digits"),
        "'spectrum'": lambda: explorer.press("spectrum"),
        "'layer terms'": lambda: explorer.press("layer terms"),
        "'training'": lambda: explorer.press("training"),
    }
    for said, action in actions.items():
        explorer.after(action)
        assert said in explorer.code
    explorer.page.screenshot(path=explorer.notebook.screenshot("15-training"))
    assert explorer.page.get_by_text("n_3").is_visible()


def test_a_table_of_ones_own_is_drawn_and_a_bad_one_is_explained(explorer, tmp_path):
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    np.savetxt(good, np.random.default_rng(0).normal(size=(30, 4)), delimiter=",")
    bad.write_text("1,2,3\n4,oops,6\n7,8,9\n")
    explorer.choose("data", "own CSV")
    explorer.page.locator("[role=status]", has_text="choose a CSV file").wait_for()

    def upload(path):
        with explorer.page.expect_file_chooser() as chooser:
            explorer.page.locator("button.widget-upload, .jupyter-button", has_text="CSV").click()
        chooser.value.set_files(path)

    explorer.after(lambda: upload(good))
    assert "ntk.explorer.read('good.csv')" in explorer.code
    assert "n=30" in explorer.code
    assert "30 of 30 rows" in explorer.page.locator("body").inner_text()
    upload(bad)
    explorer.page.locator("[role=status]", has_text="oops").wait_for()
    assert not explorer.page.locator(".widget-image").is_visible()
    assert explorer.code == ""
    explorer.after(lambda: explorer.choose("data", "sphere"))
    assert explorer.status == "ready"


def test_an_error_is_not_overwritten_by_the_picture_of_an_older_request(explorer):
    explorer.slider("samples N").press("End")  # 1000, which takes a while
    explorer.page.locator("[role=status]", has_text="busy").wait_for()
    explorer.choose("data", "own CSV")
    explorer.page.wait_for_timeout(3000)
    # the table that was uploaded last is the bad one
    assert "oops" in explorer.status
    assert not explorer.page.locator(".widget-image").is_visible()
    explorer.after(lambda: explorer.choose("data", "sphere"))
    explorer.after(lambda: explorer.slider("samples N").press("Home"))


def test_a_slider_that_is_dragged_ends_on_the_picture_of_its_last_place(explorer):
    def drag():
        explorer.slider("n_2").focus()
        for _ in range(12):
            explorer.page.keyboard.press("ArrowLeft")

    explorer.after(drag)
    last = explorer.code.splitlines()[1]
    explorer.page.wait_for_timeout(500)
    assert explorer.code.splitlines()[1] == last
    picture = explorer.after(lambda: explorer.press("spectrum"))
    assert picture != explorer.after(lambda: explorer.press("bounds"))


def test_every_step_of_a_slider_has_its_picture(explorer):
    assert len(explorer.latencies("n_1", steps=10)) == 10  # how long: in the benchmark


def test_slides_show_one_thing_each_without_code(open_notebook):
    notebook = open_notebook("01-the-neural-tangent-kernel")
    page = notebook.page
    page.evaluate("() => window.jupyterapp.commands.execute('deck:start')")
    page.wait_for_function("() => document.body.dataset.jpDeckMode === 'presenting'")
    seen = []
    for i in range(13):
        page.wait_for_timeout(700)
        seen.append(page.evaluate(ON_THE_SLIDE))
        if i in (0, 1, 11):
            page.screenshot(path=notebook.screenshot(f"slide-{i}"))
        page.keyboard.press("Space")
    assert all(slide["inputs"] == 0 for slide in seen)
    assert all(slide["figures"] <= 1 for slide in seen)
    assert any(slide["figures"] and "holds" in slide["text"] for slide in seen)
    assert len({slide["text"] for slide in seen}) > 4


ON_THE_SLIDE = """() => {
    const shown = [...document.querySelectorAll('.jp-deck-mod-visible, .jp-deck-mod-onscreen')]
        .filter(cell => cell.offsetParent !== null);
    const visible = query => shown.flatMap(cell => [...cell.querySelectorAll(query)])
        .filter(node => node.offsetParent !== null);
    return {
        inputs: visible('.jp-CodeCell .jp-Cell-inputArea, .jp-InputArea-editor').length,
        figures: visible('.jp-RenderedImage img').length,
        text: shown.map(cell => cell.innerText).join(' ').slice(0, 2000),
    };
}"""


@pytest.mark.slow
def test_the_explorer_works_under_voila(page, workspace):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "voila", "15-explorer.ipynb", "--no-browser", f"--port={port}"]
    with serving(command, f"{url}/voila/static/none", workspace / "notebooks"):
        page.goto(url, timeout=120_000)
        page.locator(".widget-image").wait_for(timeout=120_000)
        before = page.locator(".widget-image").get_attribute("src")
        page.locator(".widget-toggle-button", has_text="spectrum").first.click()
        page.wait_for_function(
            "before => document.querySelector('.widget-image').src !== before", arg=before
        )
        assert page.locator(".jp-InputArea-editor").count() == 0
