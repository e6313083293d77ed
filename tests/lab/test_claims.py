import html
import json
import os
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from ntk_utils import Claims, ClaimsFail, Exponent
from ntk_utils.lab import claims as lab_claims
from ntk_utils.lab.claims import KINDS, counts

WITH_CONTROL = [kind for kind in KINDS if kind != "identity"]
REGIMES = ["rate", "observation"]


@pytest.fixture(autouse=True)
def without_records(monkeypatch):
    monkeypatch.delenv("NTK_UTILS_VERDICTS", raising=False)


@pytest.fixture
def in_a_notebook(monkeypatch):
    """The objects that a notebook would have displayed."""
    displayed = []
    monkeypatch.setattr("IPython.get_ipython", lambda: "a shell")
    monkeypatch.setattr("IPython.display.display", displayed.append)
    return displayed


def judge(claims, claim="λ_min > 0", kind="rate", holds=True, **changes):
    """A verdict, with the control that its kind asks for."""
    given = {"predicted": "> 0", "measured": 0.5, "source": "derived here"} | changes
    if kind != "identity":
        given.setdefault("control", False)
    claims.verdict(claim, kind=kind, holds=holds, **given)


def outcome(capsys, **given):
    """The first word or words of what a verdict prints."""
    judge(Claims(), **given)
    return capsys.readouterr().out.partition(" · ")[0]


# --- the outcome ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_claim_holds_if_its_test_does_and_fails_if_not(kind, capsys):
    assert outcome(capsys, kind=kind) == "holds"
    assert outcome(capsys, kind=kind, holds=False) == "FAILS"


@pytest.mark.parametrize("kind", WITH_CONTROL)
@pytest.mark.parametrize("holds", [True, False])
def test_a_control_that_comes_out_true_makes_the_claim_fail_and_the_verdict_says_so(
    kind, holds, capsys
):
    judge(Claims(), kind=kind, holds=holds, control=True)
    out = capsys.readouterr().out
    assert out.startswith(f"FAILS · {kind} · λ_min > 0\n")
    assert "the control came out True" in out
    assert "control: True" in out


def test_no_reason_is_given_where_the_control_came_out_false_or_there_is_none(capsys):
    judge(Claims(), holds=False)
    assert capsys.readouterr().out == (
        "FAILS · rate · λ_min > 0\n  predicted > 0; measured 0.5; control: False\n  derived here\n"
    )
    judge(Claims(), kind="identity")
    assert capsys.readouterr().out == (
        "holds · identity · λ_min > 0\n"
        "  predicted > 0; measured 0.5; control: none\n"
        "  derived here\n"
    )


@pytest.mark.parametrize("kind", REGIMES)
@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("control", [True, False])
def test_a_regime_that_is_not_reached_is_its_own_outcome_whatever_was_measured(
    kind, holds, control, capsys
):
    claims = Claims()
    why = "N = 50; expected from N = 5000"
    judge(claims, kind=kind, holds=holds, control=control, not_reached=why)
    out = capsys.readouterr().out
    assert out.startswith(f"not reached · {kind} · λ_min > 0\n  {why}\n")
    assert "the control came out" not in out
    claims.conclude()
    assert "1 claims: not reached 1" in capsys.readouterr().out


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("kind", WITH_CONTROL)
def test_only_an_identity_has_no_control(kind):
    claims = Claims()
    with pytest.raises(ValueError, match=rf"control: expected the same test .* {kind}, got none"):
        judge(claims, kind=kind, control=None)
    for control in (True, False, np.False_):
        with pytest.raises(ValueError, match="control: expected none for an identity"):
            judge(claims, kind="identity", control=control)
    with pytest.raises(ValueError, match="at least one verdict"):  # what was refused is not kept
        claims.conclude()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in REGIMES])
def test_what_is_true_on_every_draw_cannot_be_out_of_reach(kind):
    with pytest.raises(ValueError, match=rf"not_reached: expected none for a {kind}.* 'N < 10'"):
        judge(Claims(), kind=kind, not_reached="N < 10")


@pytest.mark.parametrize(("value", "expected"), [(np.True_, "FAILS"), (np.False_, "holds")])
def test_numpys_booleans_are_taken_and_shown_like_pythons(value, expected, capsys):
    assert outcome(capsys, holds=np.True_, control=value) == expected
    judge(Claims(), control=value)
    assert f"control: {bool(value)}\n" in capsys.readouterr().out
    assert outcome(capsys, holds=value, control=np.False_) == ("holds" if value else "FAILS")


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("argument", ["holds", "control"])
@pytest.mark.parametrize(
    "value",
    [1, 0, "True", np.array(True), np.array([True, False]), jnp.asarray(True), [True]],
    ids=repr,
)
def test_what_is_not_one_boolean_is_no_outcome(argument, value):
    with pytest.raises(TypeError, match=f"{argument}: expected True or False, got"):
        judge(Claims(), **{argument: value})


# --- how it is shown ------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1 ± 0.25", "1 ± 0.25"),
        (3, "3"),
        (-1.23456e-5, "-1.23e-05"),
        (Exponent(1, 0.9, 1.12), "1.00 [0.90, 1.12]"),
        ([1.23456, 2], "1.23, 2"),
        ((0.1, 1234567), "0.1, 1.23e+06"),
        (np.array([[0.1, 2.0]]), "0.1, 2"),
        (pd.Series([0.5, 0.25]), "0.5, 0.25"),
        (np.float64(2 / 3), "0.667"),
        (jnp.asarray(2 / 3), "0.667"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_are_shown_to_three_figures_and_text_as_it_is(value, text, capsys):
    judge(Claims(), predicted=value, measured="m")
    judge(Claims(), predicted="p", measured=value)
    first, second = capsys.readouterr().out.splitlines()[1::3]
    assert first == f"  predicted {text}; measured m; control: False"
    assert second == f"  predicted p; measured {text}; control: False"


def test_a_verdict_is_one_row_of_a_table_with_all_that_its_text_says(in_a_notebook):
    judge(Claims(), "a claim", kind="rate", control=True, measured=1 / 3, source="Theorem 1")
    (verdict,) = in_a_notebook
    page = verdict._repr_html_()
    assert (page.count("<table>"), page.count("<tr>"), page.count("</table>")) == (1, 1, 1)
    words = re.sub(r"<[^>]*>", " ", page)
    for text in ("FAILS", "rate", "a claim", verdict.reason, "0.333", "Theorem 1", "True"):
        assert text in words
        assert text in str(verdict)
    assert repr(verdict) == str(verdict)


def test_text_that_looks_like_html_is_escaped(in_a_notebook):
    texts = ("<b>λ</b> & n < N", "<i>p", "q > r & s", '<u title="4">', "<script>")
    claim, predicted, measured, source, why = texts
    claims = Claims()
    judge(claims, claim, predicted=predicted, measured=measured, source=source, not_reached=why)
    claims.conclude()
    verdict, conclusion = (shown._repr_html_() for shown in in_a_notebook)
    for page in (verdict, conclusion):
        assert "&lt;b&gt;λ&lt;/b&gt; &amp; n &lt; N" in page
        assert not any(text in page for text in texts)
    for escaped in ("&lt;i&gt;p", "q &gt; r &amp; s", "&lt;u title=", "&lt;script&gt;"):
        assert escaped in verdict


def test_a_number_and_its_interval_stay_on_one_line_and_keep_their_characters(in_a_notebook):
    texts = [
        "1 ± 0.25",
        "0.98 [0.91, 1.05]",
        "1.2e-05, -3",
        "between 2 & 4.5, > 1",
        "[0, 1] of n^2",
    ]
    for text in texts:
        judge(Claims(), measured=text, predicted="p")
        page = in_a_notebook[-1]._repr_html_()
        shown = re.search(r"measured <b>(.*?)</b>", page)[1]
        assert html.unescape(re.sub(r"<[^>]*>", "", shown)) == text
        unbroken = re.findall(r'<span style="white-space: nowrap">([^<]*)</span>', shown)
        assert text not in texts[:2] or unbroken == [text]


def test_the_same_verdicts_are_shown_by_the_same_text_twice(in_a_notebook):
    for _ in range(2):
        claims = Claims()
        judge(claims, "one")
        judge(claims, "two", kind="certificate")
        claims.conclude()
    pages = [shown._repr_html_() for shown in in_a_notebook]
    assert pages[:3] == pages[3:]
    assert not any(" id=" in page or "object at" in page for page in pages)


def test_nothing_is_printed_where_a_notebook_displays(in_a_notebook, capsys):
    claims = Claims()
    judge(claims)
    claims.conclude()
    assert len(in_a_notebook) == 2
    assert capsys.readouterr().out == ""


def test_a_plain_python_process_prints_text_and_ends_with_the_claims_that_fail():
    code = """
from ntk_utils import Claims
claims = Claims(made_for="N >= 100")
claims.verdict("1 = 1", kind="identity", predicted=1, measured=1.0, holds=True, source="algebra")
claims.verdict("1 > 2", kind="observation", predicted="> 2", measured=1, holds=False,
               control=False, source="derived here")
claims.conclude()
"""
    environment = {k: v for k, v in os.environ.items() if k != "NTK_UTILS_VERDICTS"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**environment, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == (
        "holds · identity · 1 = 1\n  predicted 1; measured 1; control: none\n  algebra\n"
        "FAILS · observation · 1 > 2\n"
        "  predicted > 2; measured 1; control: False\n  derived here\n"
        "holds · identity · 1 = 1\nFAILS · observation · 1 > 2\n"
        "2 claims: holds 1 identity; FAILS 1 observation\n"
    )
    assert "1 of 2 claims fail" in done.stderr


# --- the conclusion -------------------------------------------------------------------------------


def test_the_conclusion_names_the_claims_that_fail_alone_and_the_sizes_they_are_made_for(capsys):
    claims = Claims(made_for="N_SEEDS >= 4")
    judge(claims, "this one holds")
    judge(claims, "this one fails", holds=False, measured=-3)
    judge(claims, "a blunt one", control=True)
    judge(claims, "too small", holds=False, not_reached="N = 5")
    capsys.readouterr()
    with pytest.raises(ClaimsFail) as raised:
        claims.conclude()
    message = str(raised.value)
    assert message.startswith("2 of 4 claims fail\n- FAILS · rate · this one fails\n")
    assert "measured -3" in message
    assert "- FAILS · rate · a blunt one\n  the control came out True" in message
    assert message.endswith("\nThe claims are made for: N_SEEDS >= 4")
    assert "holds ·" not in message
    assert "too small" not in message
    assert issubclass(ClaimsFail, AssertionError)
    # the table is shown before
    assert "this one holds" in capsys.readouterr().out


def test_without_sizes_the_error_says_nothing_of_them():
    claims = Claims()
    judge(claims, holds=False)
    with pytest.raises(ClaimsFail) as raised:
        claims.conclude()
    assert "made for" not in str(raised.value)


def test_a_notebook_without_a_verdict_cannot_conclude():
    with pytest.raises(ValueError, match="conclude: expected at least one verdict, got none"):
        Claims().conclude()


def test_a_claim_that_is_judged_again_replaces_its_earlier_verdict(capsys):
    claims = Claims()
    judge(claims, "again", holds=False)
    judge(claims, "another")
    judge(claims, "again", holds=True)
    claims.conclude()
    assert capsys.readouterr().out.endswith("2 claims: holds 2 rate\n")
    judge(claims, "again", control=True)
    with pytest.raises(ClaimsFail, match="1 of 2 claims fail"):
        claims.conclude()


def test_the_conclusion_lists_the_verdicts_by_kind_and_counts_them(in_a_notebook):
    claims = Claims()
    judge(claims, "o", kind="observation")
    judge(claims, "r1", kind="rate", not_reached="N = 5")
    judge(claims, "c", kind="certificate")
    judge(claims, "r2", kind="rate")
    judge(claims, "i", kind="identity")
    claims.conclude()
    *_, conclusion = in_a_notebook
    *lines, total = str(conclusion).splitlines()
    assert lines == [
        "holds · identity · i",
        "holds · certificate · c",
        "not reached · rate · r1",
        "holds · rate · r2",
        "holds · observation · o",
    ]
    found = "holds 1 identity, 1 certificate, 1 rate, 1 observation; not reached 1 rate"
    assert total == f"5 claims: {found}"
    page = conclusion._repr_html_()
    assert (page.count("<table>"), page.count("<tr>")) == (1, 5)
    assert [kind for kind in re.findall(r">(\w+)</td>", page) if kind in KINDS] == [
        "identity",
        "certificate",
        "rate",
        "rate",
        "observation",
    ]
    assert page.endswith(f"<p>5 claims: {found}</p>")


def test_verdicts_are_counted_by_outcome_and_kind():
    records = pd.DataFrame(
        {
            "outcome": ["FAILS", "holds", "holds", "not reached", "FAILS", "holds"],
            "kind": ["rate", "rate", "identity", "rate", "certificate", "rate"],
        }
    )
    assert counts(records) == (
        "holds 1 identity, 2 rate; FAILS 1 certificate, 1 rate; not reached 1 rate"
    )


# --- records --------------------------------------------------------------------------------------


def test_verdicts_are_recorded_one_json_object_a_line_each_time(tmp_path, monkeypatch):
    file = tmp_path / "verdicts.jsonl"
    monkeypatch.setenv(lab_claims.VERDICTS_FILE, str(file))
    claims = Claims()
    judge(claims, "λ_min > 0", measured=[0.5, 1 / 3], holds=np.True_, source="Theorem 1")
    judge(claims, "two\nlines", control=np.True_)
    assert len(file.read_text(encoding="utf-8").splitlines()) == 2  # at once, not at the end
    judge(claims, "an identity", kind="identity", holds=False)
    claims = Claims()
    judge(claims, "in another object", not_reached="N = 5")
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert records[0] == {
        "claim": "λ_min > 0",
        "kind": "rate",
        "outcome": "holds",
        "predicted": "> 0",
        "measured": "0.5, 0.333",
        "control": "False",
        "source": "Theorem 1",
        "reason": "",
    }
    assert [record["outcome"] for record in records] == ["holds", "FAILS", "FAILS", "not reached"]
    assert [record["control"] for record in records] == ["False", "True", "none", "False"]
    assert records[1]["claim"] == "two\nlines"
    assert records[3]["reason"] == "N = 5"


def test_without_the_environment_variable_no_verdict_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    claims = Claims()
    judge(claims)
    claims.conclude()
    assert list(tmp_path.iterdir()) == []


def test_a_refused_verdict_leaves_no_record(tmp_path, monkeypatch):
    file = tmp_path / "verdicts.jsonl"
    monkeypatch.setenv("NTK_UTILS_VERDICTS", str(file))
    with pytest.raises(ValueError, match="kind: expected one of"):
        judge(Claims(), kind="theorem")
    assert not file.exists()
