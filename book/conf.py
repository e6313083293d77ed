"""The site of all notebooks as they are stored: `make book`. Nothing is executed, or loaded."""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import pages  # noqa: E402

project = "The smallest eigenvalue of the neural tangent kernel, measured"
author = "The ntk_utils developers"
html_title = "The smallest eigenvalue, measured"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_proof",
    "sphinxcontrib.bibtex",
]
# the source is the repository, so that links between files are links between pages
root_doc = "book/index"
include_patterns = ["book/*.md", "notebooks/*.ipynb"]
exclude_patterns = [".*", "build", "notebooks/data"]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # they would come from another host
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 3

# one count for all kinds: Theorem 4 stands behind Definition 3
_KINDS = ["corollary", "definition", "lemma", "proposition", "remark", "theorem"]
prf_realtyp_to_countertyp = dict.fromkeys(_KINDS, "theorem")

bibtex_bibfiles = ["../notebooks/references.bib"]
bibtex_default_style = "unsrt"
bibtex_reference_style = "author_year"

add_module_names = False
autodoc_member_order = "bysource"
autodoc_default_options = {"no-value": True, "exclude-members": "main"}
autodoc_typehints = "none"  # shapes stand in the text; jaxtyping's would bury a signature
default_role = "py:obj"
highlight_language = "none"
napoleon_use_rtype = False

html_theme = "sphinx_book_theme"
html_theme_options = {
    "navbar_persistent": [],  # the sidebar has the search
    "show_toc_level": 2,
    "use_download_button": False,
}
html_copy_source = False
html_extra_path = ["extra"]  # index.html, which leads to the start page
# A browser opens this page from a disk as well, without fonts or scripts of another host: formulas
# are drawn by one file, and as paths. Of the package that ships it nothing else is used.
_MATHJAX = importlib.util.find_spec("sphinx-mathjax-offline").submodule_search_locations[0]
html_static_path = ["_static", f"{_MATHJAX}/static/mathjax/tex-svg-full.js"]
html_css_files = ["book.css"]
mathjax_path = "tex-svg-full.js"


def setup(app):
    """Let the pages that are made of notebooks and tables be written when they are read."""
    app.connect("source-read", pages.complete)
    app.connect("autodoc-process-docstring", pages.readable, priority=400)  # before napoleon
