"""The best checkpoint of a run so far, kept as best/ in its directory.

best/ holds the run's files as they were, and metrics.json with the measurement that chose them: the
first number of the first of the stage's `eval_metrics`. It is replaced in one go, so that a kill
leaves the old one or the new one. Numbers of different protocols are not compared: when the size of
the pictures grows, the best is sought anew.
"""

import json
import math
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from metrics.protocols import Protocol
from training.state import link_files

RECORD = "metrics.json"


class Best:
    """What best/ in a run's directory holds."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._folder, self._new = directory / "best", directory / "best.new"
        self._old = directory / "best.old"

    def record(self) -> dict[str, Any]:
        """The measurement of what is kept, empty if nothing is."""
        self._recover()
        with suppress(OSError, ValueError):
            record = json.loads((self._folder / RECORD).read_text())
            if isinstance(record, dict):
                return record
        return {}

    def is_beaten_by(self, numbers: Mapping[str, Any], chosen: Protocol) -> bool:
        """Whether new numbers are better by the chosen metric, or are the first of their kind."""
        key, record = chosen.keys[0], self.record()
        value = numbers.get(key)
        if value is None or math.isnan(value):
            return False
        if record.get("protocol") != numbers.get("protocol") or key not in record:
            return True
        return value > record[key] if chosen.higher_is_better else value < record[key]

    def keep(self, line: Mapping[str, Any]) -> None:
        """Replace best/ by the run's present files, in links that cost no room."""
        self._recover()
        for folder in (self._new, self._old):
            shutil.rmtree(folder, ignore_errors=True)
        link_files(self._directory, self._new)
        (self._new / RECORD).write_text(json.dumps(dict(line)) + "\n")  # last: it is complete now
        if self._folder.exists():
            self._folder.rename(self._old)
        self._new.rename(self._folder)
        shutil.rmtree(self._old, ignore_errors=True)

    def _recover(self) -> None:
        """Finish a replacement that was cut off between its two renames."""
        if not self._folder.exists() and (self._new / RECORD).is_file():
            self._new.rename(self._folder)
