"""The site of all notebooks: complete, without a broken link, and readable without a network."""

import importlib.util
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from helpers import build_site
from test_layout import stub
from test_notebooks import NOTEBOOKS, cells, for_each_notebook, source

pytest.importorskip("sphinx", reason="the site is built by Sphinx: pip install -e '.[book]'")
bs4 = pytest.importorskip("bs4", reason="its pages are read by Beautiful Soup")

ROOT = Path(__file__).parents[1]
LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built without a warning."""
    return build_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def pages(site):
    """Every page, parsed, by its path."""
    return {
        path: bs4.BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in site.rglob("*.html")
        if "_static" not in path.parts  # templates of the theme
    }


@pytest.fixture(scope="module")
def generators():
    """The module that writes the pages of tables and statements."""
    spec = importlib.util.spec_from_file_location("pages", ROOT / "book" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cited():
    """The arXiv numbers in the notebooks and in the README."""
    texts = [path.read_text(encoding="utf-8") for path in [*NOTEBOOKS, ROOT / "README.md"]]
    return set(re.findall(r"arxiv(?:\.org/abs/|:)(\d{4}\.\d{5})", "\n".join(texts), re.IGNORECASE))


def loaded(page):
    """The addresses of what a browser loads for a page."""
    for name, attribute in LOADED.items():
        yield from (tag[attribute] for tag in page.find_all(name) if tag.get(attribute))


@for_each_notebook
def test_every_notebook_has_a_page_with_its_title(path, site, pages):
    page = pages[site / "notebooks" / f"{path.stem}.html"]
    title = source(cells(path, "markdown")[0]).splitlines()[0].removeprefix("# ")
    assert page.find("h1").get_text().startswith(title.split("$")[0])


@for_each_notebook
def test_every_figure_of_a_notebook_is_on_its_page(path, site, pages):
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    article = pages[site / "notebooks" / f"{path.stem}.html"].find("article")
    assert len(article.find_all("img")) == figures


@for_each_notebook
def test_every_statement_of_a_notebook_is_a_box_and_the_page_links_it(path, site, pages):
    texts = map(source, cells(path, "markdown"))
    quoted = [text for text in texts if text.startswith("## The statement")]
    n_quotes = sum(len(re.findall(r"(?:^>.*\n?)+", text, re.MULTILINE)) for text in quoted)
    page = pages[site / "notebooks" / f"{path.stem}.html"]
    links = page.find_all("a", href=re.compile(r"theorems\.html#statement"))
    assert len(links) == n_quotes
    assert n_quotes > 0 or path.stem.startswith(("00", "15"))


def test_every_box_names_the_notebook_that_measures_it(site, pages):
    boxes = pages[site / "book" / "theorems.html"].find_all(class_="proof")
    assert len(boxes) >= 20
    for box in boxes:
        number = box["id"].split("-")[1]
        assert box.find_all("a", href=re.compile(rf"notebooks/{number}-"))


def test_every_internal_link_and_every_anchor_has_a_target(site, pages):
    ids = {path: {tag["id"] for tag in page.find_all(id=True)} for path, page in pages.items()}
    missing = []
    for path, page in pages.items():
        links = [tag["href"] for tag in page.find_all("a", href=True)]
        for link in [*links, *loaded(page)]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            found = target.exists() and (
                not parts.fragment or target not in ids or unquote(parts.fragment) in ids[target]
            )
            if not found:
                missing.append((str(path.relative_to(site)), link))
    assert missing == []


def test_nothing_is_loaded_from_another_host(site, pages):
    addresses = {address for page in pages.values() for address in loaded(page)}
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        addresses |= set(re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", text))
    assert {a for a in addresses if urlsplit(a).netloc} == set()
    assert any("tex-svg" in address for address in addresses)


def test_every_picture_has_a_description(site, pages):
    pictures = {
        (str(path.relative_to(site)), picture["src"])
        for path, page in pages.items()
        for picture in page.find_all("img")
        # without a description Sphinx puts the address there
        if not picture.get("alt") or picture["alt"].endswith(picture["src"].split("/")[-1])
    }
    assert pictures == set()


def test_the_search_finds_words_and_functions(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert all(f'"{word}"' in index for word in ("condit", "eigenvalu"))  # stems
    assert "conditioning_report" in index


def test_the_bibliography_has_the_papers_that_are_cited_and_no_other(site, pages):
    text = pages[site / "book" / "bibliography.html"].find("article").get_text()
    assert set(re.findall(r"arXiv:(\d{4}\.\d{5})", text)) == cited()


def test_the_list_of_functions_has_every_public_name(site, pages):
    ids = {tag["id"] for tag in pages[site / "book" / "api.html"].find_all(id=True)}
    names = {
        f"module-ntk_utils.{module}" if module == name else f"ntk_utils.{module}.{name}"
        for name, module in stub()
        if name != "plotting"
    }
    assert names - ids == set()
    assert "module-ntk_utils.lab.plotting" in ids


def test_a_formula_of_a_docstring_stands_as_it_was_written(site, pages):
    text = pages[site / "book" / "api.html"].get_text()
    assert "Σ_{k=0}^{L-1} λ_min(F_k F_kᵀ) · min_i ‖(B_{k+1})_i:‖²" in text
    assert "E |L_M - L_N|, for large M and N - M" in text


def test_a_claim_is_shown_as_it_stands_in_the_table_of_verdicts(generators, tmp_path):
    path = tmp_path / "verdicts.csv"
    path.write_text(
        "notebook,kind,claim,source,control,holds,not_reached,fails\n"
        "03-one-wide-layer,rate,|a*b|_min < n_1,here,False,9,1,0\n"
        "03-one-wide-layer,rate,another,here,False,10,0,0\n",
        encoding="utf-8",
    )
    text = generators.verdicts(path)
    assert "2 claims: rate 2. Over all seeds, 19 hold, 1 are not reached and 0 fail." in text
    assert r"\|a\*b\|\_min \< n\_1 | rate | here | False | 9 | 1 | 0 |" in text


def test_without_verdicts_the_page_says_so(generators, tmp_path):
    assert "is missing" in generators.verdicts(tmp_path / "verdicts.csv")
