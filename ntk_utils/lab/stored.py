"""How notebooks are stored: ``python -m ntk_utils.lab.stored notebooks/*.ipynb``.

JupyterLab adds to a notebook that it saves: the version of the interpreter, the state of widgets,
views of widgets that no reader without a kernel can see. That is taken out again, and what a cell
is in a talk is written in. A notebook that was only opened and saved is then what it was.

In a talk (JupyterLab's deck, in the toolbar) a slide holds one statement or one figure:

| cell | in a talk |
|---|---|
| a heading and what is below it; of a statement, the statement alone | a slide |
| a figure, a table, widgets; a statement without heading; an exercise | a slide below that |
| a verdict | under its figure |
| prose | notes for the lecturer |
| other code, a heading alone, hints and solutions, further reading | left out |

Code is folded there, and letters are half as large again on a screen of usual height.
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat

_WIDGET = "application/vnd.jupyter.widget-view+json"

_HIDDEN = {"display": "none"}
_ON_A_SLIDE = {
    ".jp-CodeCell.jp-deck-mod-visible .jp-Cell-inputWrapper": _HIDDEN,
    ".jp-deck-mod-visible .jp-OutputPrompt": _HIDDEN,
    # by the height of the screen: what fits on one fits on all
    ".jp-deck-mod-visible .jp-RenderedHTMLCommon": {"fontSize": "2.3vh"},
    ".jp-deck-mod-visible .jp-RenderedHTMLCommon table": {"fontSize": "1.9vh"},
    ".jp-deck-mod-visible .jp-RenderedMarkdown:has(> blockquote ~ blockquote)": {
        "fontSize": "1.9vh"
    },
    ".jp-deck-mod-visible .jp-RenderedImage img": {"width": "min(62vw, 100%)"},
    # what is said about a statement, but for displayed formulas
    **{
        f".jp-deck-mod-visible .jp-RenderedMarkdown:has(> blockquote) > {prose}"
        ":not(:has(mjx-container[display='true']))": _HIDDEN
        for prose in ("p", "ul", "ol")
    },
}
"""Styles as jupyterlab-fonts takes them, which comes with the deck; a comma would be misread."""

_METADATA = {
    "@deathbeds/jupyterlab-fonts": {"styles": _ON_A_SLIDE},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def tidied(notebook):
    """Bring a notebook into the form in which it is stored, in place, and return it.

    Of a cell's metadata the tags are kept, and the alternative text of its figure.

    Args:
      notebook: as nbformat reads it.
    """
    notebook.metadata = nbformat.from_dict(_METADATA)
    for cell in notebook.cells:
        kept = {name: cell.metadata[name] for name in ("tags", "mystnb") if name in cell.metadata}
        if place := slide_type(cell):
            kept["slideshow"] = {"slide_type": place}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if _WIDGET not in o.get("data", {})]
    return notebook


def slide_type(cell) -> str:
    """Return what a cell is in a talk: "slide", "subslide", "notes", "skip", or "" on the last one.

    Args:
      cell: of a notebook, as nbformat reads it.
    """
    source = cell.source
    if cell.cell_type == "code":
        if source == "claims.conclude()":
            return "slide"
        if "claims.verdict(" in source:
            return ""
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        has_widgets = "nbval-ignore-output" in cell.metadata.get("tags", [])
        return "subslide" if has_widgets or kinds & {"image/png", "text/html"} else "skip"
    if "<summary>" in source or source.startswith("## Further reading"):
        return "skip"
    if re.match("##? ", source):
        return "slide" if "\n" in source.strip() else "skip"
    of_a_talk = r"^>|^\*\*\d \((easy|standard|research)\)"  # a statement, or an exercise
    return "subslide" if re.search(of_a_talk, source, re.MULTILINE) else "notes"


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, and write those notebooks that are not yet as they are stored."""
    parser = argparse.ArgumentParser(prog="python -m ntk_utils.lab.stored", description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path, help="notebooks to tidy")
    for path in parser.parse_args(argv).notebooks:
        text = path.read_text(encoding="utf-8")
        stored = nbformat.writes(tidied(nbformat.reads(text, as_version=4))) + "\n"
        if stored != text:
            path.write_text(stored, encoding="utf-8")
            print(f"tidied {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
