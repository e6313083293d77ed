"""The site as a reader has it: opened from the disk, without a network."""

import pytest
from helpers import build_site

WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def offline(browser, request):
    """A page without a network, that remembers what it asked another host for."""
    context = browser.new_context(viewport=request.param)
    page = context.new_page()
    page.asked = []
    context.route(
        lambda url: not url.startswith(("file:", "data:", "blob:")),
        lambda route: (page.asked.append(route.request.url), route.abort()),
    )
    yield page
    context.close()


def at(site, page, name, query=""):
    page.goto((site / name).as_uri() + query, wait_until="load")
    page.wait_for_timeout(300)


@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "notebooks/03-one-wide-layer.html",
        "notebooks/15-explorer.html",
        "book/theorems.html",
        "book/verdicts.html",
        "book/api.html",
    ],
)
def test_a_page_fits_the_window_and_asks_no_other_host(site, offline, name):
    at(site, offline, name)
    offline.wait_for_function("() => document.querySelector('h1') !== null")
    assert offline.asked == []
    wider = "() => document.documentElement.scrollWidth - window.innerWidth"
    assert offline.evaluate(wider) <= 1


def test_formulas_are_drawn(site, offline):
    at(site, offline, "notebooks/03-one-wide-layer.html")
    offline.locator("mjx-container svg").first.wait_for(state="attached")
    assert offline.locator("mjx-merror").count() == 0
    prose = offline.locator("article p:visible").all_inner_texts()
    assert [text for text in prose if "$" in text or "\\lambda" in text] == []


def test_links_lead_from_the_start_page_to_a_notebook_its_theorem_and_back(site, browser):
    page = browser.new_page(viewport=WIDE)
    at(site, page, "index.html")
    page.wait_for_url("**/book/index.html")
    page.locator("article").get_by_role("link", name="03 one wide layer").first.click()
    page.wait_for_url("**/notebooks/03-one-wide-layer.html")
    page.locator("article").get_by_role("link", name="Theorems").first.click()
    page.wait_for_url("**/book/theorems.html*")
    page.locator("article").get_by_role("link", name="notebook 03").first.click()
    page.wait_for_url("**/notebooks/03-one-wide-layer.html")
    page.close()


def test_the_search_finds_the_notebook_that_has_a_word(site, browser):
    page = browser.new_page(viewport=WIDE)
    at(site, page, "search.html", "?q=bottleneck")
    result = page.locator("#search-results a", has_text="bottleneck").first
    result.wait_for(timeout=20_000)
    assert page.locator("#search-results li").count() >= 3
    page.close()


def test_letters_are_large_enough_and_stand_out_from_the_page(site, browser):
    page = browser.new_page(viewport=PHONE)
    at(site, page, "notebooks/00-start-here.html")
    body = page.evaluate(
        """() => {
            const style = getComputedStyle(document.querySelector('article p'));
            const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
            return {size: parseFloat(style.fontSize), ink: rgb(style.color)};
        }"""
    )
    assert body["size"] >= 14
    assert contrast(body["ink"], (255, 255, 255)) >= 7  # WCAG 2, level AAA
    page.close()


def contrast(a, b) -> float:
    """The contrast of two colours by WCAG 2, from 1 to 21."""

    def luminance(rgb):
        linear = [
            c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
            for c in (v / 255 for v in rgb)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)
