"""Finished measurements on disk, so that an interrupted sweep goes on where it was stopped."""

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import joblib

from ntk_utils.lab._fingerprint import fingerprint


class Store:
    """The measurements of one function, each in a file of its own below a folder.

    joblib writes a file under another name first and then renames it, so one that is there is
    whole. A measurement belongs to the function's fingerprint, its point and its seed.
    """

    def __init__(self, folder: str | os.PathLike, measure: Callable):
        """Open or create the folder."""
        self._measure = fingerprint(measure)
        self._entry = joblib.Memory(Path(folder), verbose=0).cache(_entry, ignore=["measured"])

    def load(self, point: str, seed: int) -> dict[str, float] | None:
        """Return what was measured there, or None; warn of a file that cannot be trusted."""
        name = self._measure, point, seed
        if not self._entry.check_call_in_cache(*name, None):
            return None
        try:
            measured, checksum = self._entry.call_and_shelve(*name, None).get()
            if checksum == joblib.hash(measured):
                return measured
            error = "its checksum is wrong"
        except Exception as damage:  # a damaged pickle can raise anything
            error = f"{type(damage).__name__}: {damage}"
        warnings.warn(
            f"cache: the entry of {point}, seed {seed} is damaged; it is measured again ({error})",
            RuntimeWarning,
            stacklevel=3,
        )
        return None

    def save(self, point: str, seed: int, measured: Mapping[str, float]) -> None:
        """Put a measurement on disk, at once."""
        self._entry.call(self._measure, point, seed, measured)


def _entry(measure: str, point: str, seed: int, measured):  # noqa: ARG001  (joblib names it by them)
    return measured, joblib.hash(measured)
