"""Files that are whole or absent, and locks between processes."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import current_process
from pathlib import Path

from filelock import FileLock, Timeout

from momalit.core.errors import MAIN_GUARD_HINT

logger = logging.getLogger(__name__)

PARTIAL = ".partial-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a new empty file that takes the place of ``path`` when the block ends.

    Other processes see the old file or the new one, also after the machine lost power. If the block raises, the old
    file stays. The temporary name ends like ``path``, for libraries that read the format from it.
    """
    handle, name = tempfile.mkstemp(prefix=f"{PARTIAL}{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)  # mkstemp creates files that only their owner can read
        flush_to_disk(partial)
        partial.replace(path)
        flush_to_disk(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yields an empty directory that becomes ``path`` when the block ends; if the block raises, nothing remains.

    If another process has made ``path`` in the meantime, that one is left in place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=path.parent))
    try:
        partial.chmod(0o755)
        yield partial
        try:
            partial.rename(path)
        except OSError:
            if not path.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Returns when a file's content or a directory's entries are on the disk. Does nothing where that is unknown."""
    flags = os.O_RDONLY if os.name == "posix" else os.O_RDWR
    try:
        handle = os.open(path, flags)
    except OSError:  # Windows does not open directories
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir():  # some network file systems cannot flush a directory
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, waiting: str | None = None) -> Iterator[bool]:
    """Holds a lock named after ``path`` during the block. The operating system releases it when the process dies.

    Args:
        path: what is locked; it need not exist. The lock is the file ``.NAME.lock`` beside it.
        waiting: message that is logged before waiting for another process. None does not wait.

    Yields:
        whether the lock is held. It is not if another process holds it and ``waiting`` is None.

    Raises:
        RuntimeError: this process would wait while it still imports the script that started it. Who started it may
            hold the lock, and wait for it in turn.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if waiting is None:
            yield False
            return
        if getattr(current_process(), "_inheriting", False):  # it imports the script of its parent
            raise RuntimeError(f"{path}: locked by another process; {MAIN_GUARD_HINT}") from None
        logger.info(waiting)
        lock.acquire()
    try:
        yield True
    finally:
        lock.release()


def remove_partial(directory: Path) -> None:
    """Deletes temporary files and directories that killed processes left. Call it where nobody else writes."""
    for path in directory.glob(f"{PARTIAL}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
