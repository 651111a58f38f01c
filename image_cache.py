"""The cache of decoded pictures: files of records that every process maps into memory.

A record holds a picture, whether it could be read, and a checksum of both. A file appears when it
is complete; one process decodes while the others wait; a damaged file is decoded again. Where no
file can be written the records stay in memory.
"""

import errno
import logging
import math
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

logger = logging.getLogger("perigan")

CHECKED_BYTES = 2**28  # of a cache file that is opened, so much is held against its checksums


def record_type(img_size: int) -> np.dtype:
    image = ("image", np.uint8, (img_size, img_size, 3))
    return np.dtype([("checksum", "<u4"), ("readable", np.bool_), image])


def checksum(record: np.void) -> int:
    return zlib.crc32(record["image"].tobytes(), int(record["readable"]))


def cached(
    file: Path, count: int, record_type: np.dtype, decode: Callable[[], Iterator[np.void]]
) -> np.ndarray:
    """The records in `file`, decoded into it if need be; in memory where that cannot be done."""
    records = _open_cache(file, count, record_type)
    try:
        if records is None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with _lock(file):
                # while this process waited, another may have done the work
                records = _open_cache(file, count, record_type)
                if records is None:
                    _write_cache(file, count * record_type.itemsize, decode())
                    records = _open_cache(file, count, record_type)
    except OSError as error:
        logger.warning("cannot cache images in %s (%s): keeping them in memory", file, error)
    if records is None:
        records = np.empty(count, record_type)
        for i, record in enumerate(decode()):
            records[i] = record
    return records


def _open_cache(file: Path, count: int, record_type: np.dtype) -> np.ndarray | None:
    """Map a complete and undamaged cache file, read-only; None if there is none."""
    try:
        if file.stat().st_size != count * record_type.itemsize:
            return None
        records = np.memmap(file, record_type, mode="r", shape=(count,))
    except OSError:
        return None
    sample = records[:: math.ceil(records.nbytes / CHECKED_BYTES)]
    return records if all(checksum(r) == r["checksum"] for r in sample) else None


def _write_cache(file: Path, size: int, records: Iterator[np.void]) -> None:
    """Write next to `file`, then take its place: no reader ever sees half of it."""
    for left in file.parent.glob(f"{file.stem}.*.tmp"):  # by a process that was killed
        left.unlink(missing_ok=True)
    if file.exists():
        logger.warning("%s is damaged: decoding the images again", file)
    if shutil.disk_usage(file.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    temporary = file.with_name(f"{file.stem}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as output:
            for record in records:
                output.write(record.tobytes())
            output.flush()
            os.fsync(output.fileno())
        os.replace(temporary, file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    """Let one process in at a time; where the system has no locks, all at once."""
    with open(file.with_suffix(".lock"), "w") as lock:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
