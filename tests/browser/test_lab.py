"""Notebooks in a real JupyterLab: they run, and make a talk."""

import urllib.error
import urllib.request

import pytest
from browsing import errors_of


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
