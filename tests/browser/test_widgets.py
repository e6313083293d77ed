"""The widgets of notebook 15, in JupyterLab and under Voilà: what one moves is seen to move."""

import sys

import numpy as np
import pytest
from browsing import free_port, serving


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
