"""Claims with verdicts: what is stated, what was measured, and what would have refuted it.

A claim is worth as much as the ways in which it could have failed. Its kind says where it comes
from, and its control how one knows that the test can fail:

| kind | what it is | control |
|---|---|---|
| identity | algebra, true on every input; it tests the code | none: a unit test breaks the code |
| certificate | an inequality without hidden constant, true on every draw | required |
| rate | what a theorem states up to constants | required |
| observation | a measured fact that no theorem states | required |

A control is the same test where exactly one hypothesis is broken. It has to come out False: a test
that also passes there has shown nothing, so the verdict is then FAILS.
"""

import html
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from ntk_utils.lab.exponents import Exponent

VERDICTS_FILE = "NTK_UTILS_VERDICTS"
"""Environment variable: the file to which verdicts append their records, one JSON object a line."""

KINDS = ("identity", "certificate", "rate", "observation")
OUTCOMES = ("holds", "FAILS", "not reached")


class ClaimsFail(AssertionError):
    """Some claims of a notebook do not hold."""


@dataclass(frozen=True)
class Verdict:
    """One claim and its outcome, shown as one row in a notebook and as three lines of text."""

    claim: str
    kind: str
    outcome: str
    """one of `OUTCOMES`"""
    predicted: str
    measured: str
    control: str
    """what the control came out as: "False", as it must, "True", or "none" for an identity"""
    source: str
    reason: str
    """why it was not reached, or why the control makes it fail; else empty"""

    def __str__(self) -> str:
        reason = f"\n  {self.reason}" if self.reason else ""
        return (
            f"{self.outcome} · {self.kind} · {self.claim}{reason}\n"
            f"  predicted {self.predicted}; measured {self.measured}; control: {self.control}\n"
            f"  {self.source}"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        figures = [
            f"{label} <b>{_unbroken(text)}</b>"
            for label, text in (
                ("predicted", self.predicted),
                ("measured", self.measured),
                ("control", self.control),
            )
        ]
        reason = f"<br><i>{html.escape(self.reason)}</i>" if self.reason else ""
        return _table(
            [
                _outcome(self.outcome),
                html.escape(self.kind),
                f"{html.escape(self.claim)}{reason}",
                "<br>".join(figures),
                f"<small>{html.escape(self.source)}</small>",
            ]
        )


class Claims:
    """The claims of one notebook, each judged right under its figure, and all of them at the end.

        claims = Claims(made_for="N_SEEDS >= 4; SIZES over a range of 4 or more")
        claims.verdict("λ_min / n_1 does not fall while N grows", kind="rate", …)
        claims.conclude()

    `make reproduce` collects the verdicts through the file that the environment variable
    NTK_UTILS_VERDICTS names; without it no record is kept.

    Args:
      made_for: the sizes for which the claims are made; `conclude` quotes it when one fails.
    """

    def __init__(self, made_for: str = ""):
        """Start without claims."""
        _text("made_for", made_for)
        self._made_for = made_for
        self._verdicts: dict[str, Verdict] = {}

    def verdict(
        self,
        claim: str,
        *,
        kind: str,
        predicted,
        measured,
        holds: bool | np.bool_,
        control: bool | np.bool_ | None = None,
        not_reached: str | None = None,
        source: str,
    ) -> None:
        """Show whether a claim holds, and keep a record of it.

        It FAILS if `holds` is False or `control` is True. A claim that is judged again, because its
        cell is run again, replaces its earlier verdict.

        Args:
          claim: what is claimed, in words, no stronger than what was measured.
          kind: "identity", "certificate", "rate" or "observation".
          predicted: what the statement predicts, with its tolerance: text such as "1 ± 0.25", a
            number, an `Exponent`, or several numbers.
          measured: what was measured, likewise; numbers are shown to 3 significant figures.
          holds: whether the measurement agrees, as one bool.
          control: the same test where one hypothesis is broken; only an identity has none.
          not_reached: why the sizes do not reach the regime of an asymptotic statement (a rate or
            an observation), and at which size it is expected. The outcome is then "not reached",
            whatever was measured.
          source: what states exactly this, with its version, e.g. "Theorem 4.1,
            arXiv:2012.11654v5"; or "derived here".

        Raises:
          ValueError: an unknown kind; a control of an identity, or none of another kind; an
            identity or a certificate that is not reached; an empty text.
          TypeError: `holds` or `control` is not one bool (an array, a number); a text is no text;
            `predicted` or `measured` is neither text nor numbers.
        """
        for name, text in (("claim", claim), ("source", source)):
            _words(name, text)
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        _one_bool("holds", holds)
        if kind == "identity" and control is not None:
            raise ValueError(
                "control: expected none for an identity, which no data can break, "
                f"got {control!r}; a unit test breaks the code instead"
            )
        if kind != "identity":
            if control is None:
                raise ValueError(
                    f"control: expected the same test on a broken hypothesis for a {kind}, got none"
                )
            _one_bool("control", control)
        if not_reached is not None:
            _words("not_reached", not_reached)
            if kind in ("identity", "certificate"):
                raise ValueError(
                    f"not_reached: expected none for a {kind}, which has no asymptotic regime, "
                    f"got {not_reached!r}"
                )
        verdict = Verdict(
            claim=claim,
            kind=kind,
            outcome=_decide(holds, control, not_reached),
            predicted=_shown("predicted", predicted),
            measured=_shown("measured", measured),
            control="none" if control is None else str(bool(control)),
            source=source,
            reason=_reason(control, not_reached),
        )
        self._verdicts[claim] = verdict
        _display(verdict)
        if path := os.environ.get(VERDICTS_FILE):
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(verdict)) + "\n")

    def conclude(self) -> None:
        """Show a table of all verdicts, and raise if some claim fails.

        Raises:
          ClaimsFail: with the claims that fail, and the sizes for which they are made.
          ValueError: there is no verdict.
        """
        if not self._verdicts:
            raise ValueError("conclude: expected at least one verdict, got none")
        verdicts = sorted(self._verdicts.values(), key=lambda verdict: KINDS.index(verdict.kind))
        _display(_Conclusion(verdicts))
        failed = [verdict for verdict in verdicts if verdict.outcome == "FAILS"]
        if failed:
            listed = "\n".join(f"- {verdict}" for verdict in failed)
            made_for = f"\nThe claims are made for: {self._made_for}" if self._made_for else ""
            raise ClaimsFail(f"{len(failed)} of {len(verdicts)} claims fail\n{listed}{made_for}")


class _Conclusion:
    """All verdicts, by kind: a table in a notebook, a line each as text, and their counts."""

    def __init__(self, verdicts: Sequence[Verdict]):
        self.verdicts = verdicts

    def __repr__(self) -> str:
        lines = [f"{v.outcome} · {v.kind} · {v.claim}" for v in self.verdicts]
        return "\n".join([*lines, f"{len(lines)} claims: {self._counts()}"])

    def _repr_html_(self) -> str:
        rows = [
            [_outcome(v.outcome), html.escape(v.kind), html.escape(v.claim)] for v in self.verdicts
        ]
        return _table(*rows) + f"<p>{len(rows)} claims: {html.escape(self._counts())}</p>"

    def _counts(self) -> str:
        return counts(pd.DataFrame(map(asdict, self.verdicts)))


def counts(verdicts: pd.DataFrame) -> str:
    """Count the verdicts by outcome and kind, in words; columns `kind` and `outcome`."""
    numbers = verdicts.groupby(["outcome", "kind"]).size()
    return "; ".join(
        f"{outcome} "
        + ", ".join(
            f"{numbers[outcome, kind]} {kind}" for kind in KINDS if (outcome, kind) in numbers
        )
        for outcome in OUTCOMES
        if outcome in numbers
    )


def _decide(holds, control, not_reached) -> str:
    if not_reached is not None:
        return "not reached"
    return "holds" if holds and not control else "FAILS"


def _reason(control, not_reached) -> str:
    if not_reached is not None:
        return not_reached
    return "the control came out True: this test cannot tell a broken hypothesis" if control else ""


def _outcome(outcome: str) -> str:
    # bold and capitals, not colour, tell them apart
    return f"<b>{html.escape(outcome)}</b>"


# a number with its tolerance or its interval; a browser would break lines inside of it
_NUMBER = re.compile(r"[-+]?\d[\w.+-]*(?: ± [\w.+-]+| \[[^]]*\])?|\[[^]]*\]")


def _unbroken(text: str) -> str:
    keep = r'<span style="white-space: nowrap">\g<0></span>'
    return _NUMBER.sub(keep, html.escape(text, quote=False))


def _table(*rows: Sequence[str]) -> str:
    cells = ["".join(f'<td style="text-align: left">{cell}</td>' for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _display(shown) -> None:
    """Show an object in a notebook, or as text where there is none."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        print(shown)
        return
    display(shown) if get_ipython() else print(shown)


def _shown(name: str, value) -> str:
    if isinstance(value, str | Exponent):
        text = str(value)
    else:
        try:
            text = ", ".join(f"{float(number):.3g}" for number in np.ravel(value))
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: expected text or numbers, got {value!r}") from error
    if not text:
        raise ValueError(f"{name}: expected text or numbers, got none")
    return text


def _text(name: str, value) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected text, got {value!r}")


def _words(name: str, value) -> None:
    _text(name, value)
    if not value:
        raise ValueError(f"{name}: expected some words, got none")


def _one_bool(name: str, value) -> None:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
