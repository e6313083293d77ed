"""Finished measurements on disk, so that an interrupted sweep goes on where it was stopped."""

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from ntk_utils.lab._fingerprint import fingerprint

_CREATE = """CREATE TABLE IF NOT EXISTS
measured (name TEXT PRIMARY KEY, numbers TEXT, checksum TEXT) WITHOUT ROWID"""  # no index beside it
_DAMAGED = sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR


class Store:
    """The measurements of one function in an SQLite file of their own, a transaction for each."""

    def __init__(self, folder: str | os.PathLike, measure: Callable):
        """Create the folder, and read what is there; warn of what is damaged."""
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cache: expected a folder, got {folder} ({error})") from error
        self._file = Path(folder, f"sweep-{fingerprint(measure)}.sqlite")
        self._lock = threading.Lock()
        self._found = self._read() if self._file.exists() and self._file.stat().st_size else {}

    def load(self, point: str, seed: int) -> dict[str, float] | None:
        """Return what was measured there, or None."""
        return self._found.get(_name(point, seed))

    def save(self, point: str, seed: int, measured: Mapping[str, float]) -> None:
        """Put a measurement on disk at once, from any thread; warn if that is impossible."""
        row = _name(point, seed), json.dumps(measured)
        try:
            self._write(*row, _checksum(*row))
        except sqlite3.Error as error:  # the disk is full, the folder is read-only, …
            _warn(f"{row[0]} could not be kept ({error})")
        except KeyboardInterrupt:
            self._write(*row, _checksum(*row))
            raise

    def _write(self, *row: str) -> None:
        with self._lock, self._open() as db, db:
            db.execute("PRAGMA synchronous = NORMAL")  # a fifth of the time; safe against all kills
            db.execute(_CREATE)
            db.execute("REPLACE INTO measured VALUES (?, ?, ?)", row)

    def _open(self):
        return contextlib.closing(sqlite3.connect(self._file, timeout=60))

    def _read(self) -> dict[str, dict[str, float]]:
        found, damage = {}, None
        try:
            with self._open() as db:
                db.text_factory = bytes  # damaged text may be none
                for row in db.execute("SELECT * FROM measured"):
                    try:
                        name, numbers, checksum = (text.decode() for text in row)
                        if checksum != _checksum(name, numbers):
                            raise ValueError("a checksum is wrong")
                        found[name] = json.loads(numbers)
                    except (AttributeError, ValueError) as error:
                        damage = error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise
            damage = error
        if damage:
            _warn(f"{self._file} is damaged, what cannot be read is measured again ({damage})")
            self._set_aside(found, damage)
        return found

    def _set_aside(self, found: Mapping[str, Mapping[str, float]], damage: Exception) -> None:
        code = getattr(damage, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        with contextlib.suppress(OSError):  # in a folder that is read-only
            if code & 0xFF in _DAMAGED:  # and not: no permission to read it
                self._file.replace(self._file.with_suffix(".damaged"))
                for name, measured in found.items():
                    self.save(*json.loads(name), measured)


def _name(point: str, seed: int) -> str:
    return json.dumps([point, seed])


def _checksum(name: str, numbers: str) -> str:
    return hashlib.blake2b(f"{name} {numbers}".encode(), digest_size=16).hexdigest()


def _warn(message: str) -> None:
    warnings.warn(f"cache: {message}", RuntimeWarning, stacklevel=4)
