"""The file behind the journal: one JSON record a line, in Optuna's format, so that its own tools read it.

Beyond Optuna's file: many records go out in one write, a crash or a full disk leaves no half record behind that the
next one would be glued to, and damage is named by file and line.
"""

import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages.journal import BaseJournalBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from hms_ray.study.journal_records import Contents, Record, damage, parsed

log = logging.getLogger(__name__)


class JournalFile(BaseJournalBackend):
    """Records that are only ever added; one driver writes, anyone may read meanwhile.

    There is no lock: a record goes out in one write to the end of the file, which another program's cannot split.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.starts = [0]  # where each record read so far begins, and the next one will
        self.contents = Contents()
        self.held: list[Record] | None = None

    def read_logs(self, log_number_from: int) -> Iterator[Record]:
        """Yield the records from that number on; a last line that is none is passed over, it may be half written.

        Raises:
            DataError: a line before the last is no record, or one that does not follow from those before it: lines are
                missing, or stand twice.
        """
        if not self.path.is_file():
            return
        broken = 0
        with open(self.path, "rb") as file:
            file.seek(self.starts[log_number_from])
            for number, line in enumerate(file, log_number_from):
                if broken:
                    raise damage(self.path, broken, "not a record")
                record = parsed(line)
                if record is None:
                    broken = number + 1
                    continue
                if number + 1 == len(self.starts):
                    if fault := self.contents.fault(record, number + 1):
                        raise damage(self.path, number + 1, fault)
                    self.starts.append(self.starts[number] + len(line))
                yield record

    def append_logs(self, logs: list[Record]) -> None:
        """Add records: now, or at the end of `together`."""
        if self.held is not None:
            self.held += logs
        else:
            self._write(logs)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold records back and write them in one go at the end, or not at all after an error; nothing reads them
        before."""
        self.held = []
        try:
            yield
            records = self.held
        finally:
            self.held = None
        self._write(records)

    def mend(self) -> None:
        """Cut off a last line that a crash left unfinished. Only who holds the study may do this."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        last = content[content.rfind(b"\n", 0, max(0, len(content) - 1)) + 1 :]
        if not last or parsed(last) is not None:
            return
        os.truncate(self.path, len(content) - len(last))
        log.warning(
            "%s: its last record was cut short by a crash (%d bytes, %r ...) and is dropped; what it said will be "
            "recorded again",
            self.path,
            len(last),
            last[:40],
        )

    def _write(self, logs: list[Record]) -> None:
        content = memoryview("".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode())
        with open(self.path, "ab", buffering=0) as file:
            size = file.tell()
            try:
                while content:
                    content = content[file.write(content) :]
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, size)  # what a full disk still took is no record
                raise


def opened(file: JournalFile) -> JournalStorage:
    """Read the whole file into Optuna's storage.

    Raises:
        DataError: a line before the last is no record, or says what cannot be, is missing, or stands twice.
    """
    try:
        return JournalStorage(file)
    except (KeyError, TypeError, ValueError, AssertionError) as error:  # whatever Optuna meets in a damaged record
        raise damage(file.path, len(file.starts) - 1, f"a record that cannot be ({error!r})") from error


def read_trials(path: Path) -> list[tuple[str, FrozenTrial]]:
    """Return space and trial of every trial in a journal, space by space; [] where there is none. Errors as in
    `opened`."""
    storage = opened(JournalFile(path))
    return [
        (study.study_name, trial)
        for study in storage.get_all_studies()
        for trial in storage.get_all_trials(study._study_id, deepcopy=False)
    ]


def own_score(trial: FrozenTrial) -> float:
    """Return the score of a complete trial's own predictions, whatever its sampler was told; NaN for others."""
    return trial.user_attrs.get("score", trial.value) if trial.state == TrialState.COMPLETE else math.nan
