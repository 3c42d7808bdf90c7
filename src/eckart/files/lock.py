"""One process at a time on one output: a lock that ends with the process that holds it."""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TypedDict

from eckart.errors import Refused

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""A link is not followed, and a pipe not waited for."""
_BEYOND = 1 << 30
"""Windows keeps others from reading what is locked there, so that a byte is locked which no holder writes."""


class Holder(TypedDict):
    """What the file of a lock says of the process that holds it."""

    pid: int
    host: str
    since: str


def lock_path(target: Path) -> Path:
    """The file that stands beside a target while a process works on it."""
    return target.with_name(target.name + ".lock")


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Holds `<target>.lock`; directories that are made for it go again where nothing else came into them.

    The system's own lock on the file is what counts. It ends with the process, however that ends, so that a file which
    a killed process left keeps nobody out. NFS carries the lock to the server, and so to other hosts. Where a file
    system has no locks at all, what the file says counts instead: it is taken over from a process of this host that is
    gone.

    Raises:
        Refused: another process holds it; it is named. Or something is there that is no lock of eckart's.
        OSError: the file cannot be made.
    """
    file = lock_path(target)
    made = [parent for parent in file.absolute().parents if not parent.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, own = _acquire(file, target)
        try:
            yield
        finally:
            _release(descriptor, file, own)
    finally:
        for directory in made:
            with suppress(OSError):
                directory.rmdir()


def _acquire(file: Path, target: Path) -> tuple[int, bool]:
    """An open, locked descriptor of the file, with this process written into it; and whether the file is eckart's."""
    while True:
        try:
            descriptor = os.open(file, _FLAGS)
        except FileNotFoundError:
            new = _new(file)
            if new is not None:
                return new, True
            continue  # another process was faster
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise _strange(target, file) from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _strange(target, file)
            if not _lock(descriptor, _read(file)):
                raise _held(target, file)
            if _same(descriptor, file):
                # Nobody writes to it now, so that what it says is whole.
                size = os.fstat(descriptor).st_size
                if size and _read(file) is None:
                    raise _strange(target, file)
                _write(descriptor)
                return descriptor, size > 0
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed the file in the meantime: lock the one that is there now


def _new(file: Path) -> int | None:
    """An open, locked descriptor of a file that was not there, with this process written into it; None where it is."""
    # It is locked and written before it gets its name, so that nobody meets it empty.
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _lock(descriptor, None)
        _write(descriptor)
        try:
            os.link(temporary, file)
        except FileExistsError:
            os.close(descriptor)
            return None
        except OSError:  # a file system without links
            os.rename(temporary, file)
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()
    return descriptor


def _release(descriptor: int, file: Path, own: bool) -> None:
    """Removes the file while it is still locked, so that it is never another's; Windows lets no open file go.

    One that was there before, and empty, may be somebody else's: it is left as it was found.
    """
    if not own:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)
    elif sys.platform == "win32":
        os.close(descriptor)
        with suppress(OSError):
            file.unlink()
    else:
        with suppress(OSError):
            file.unlink()
        os.close(descriptor)


def _strange(target: Path, file: Path) -> Refused:
    return Refused(
        f"{file} is in the way: that is where eckart locks {target}, and this is no lock of its; move it elsewhere, or "
        "name another directory to make"
    )


def _lock(descriptor: int, holder: Holder | None) -> bool:
    """Locks an open file at once; False where another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _BEYOND, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return holder is None or not _alive(holder)
    return True


def _alive(holder: Holder) -> bool:
    """Whether the process may still run; one of another host may."""
    if holder["host"] != socket.gethostname() or sys.platform == "win32":
        return True
    if holder["pid"] == os.getpid():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's, or one that cannot be asked
    return True


def _same(descriptor: int, file: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _write(descriptor: int) -> None:
    since = datetime.now(timezone.utc).astimezone().isoformat(sep=" ", timespec="seconds")
    holder = Holder(pid=os.getpid(), host=socket.gethostname(), since=since)
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(holder).encode())


def _read(file: Path) -> Holder | None:
    """What the file says; None where its holder has not written it yet."""
    try:
        found = json.loads(file.read_text("utf-8"))
        if set(found) != set(Holder.__annotations__):
            return None
        return Holder(pid=int(found["pid"]), host=str(found["host"]), since=str(found["since"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _held(target: Path, file: Path) -> Refused:
    holder = _read(file)
    who = "another process"
    if holder is not None:
        who = f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    return Refused(f"{target} is being made by {who}: wait for it, stop it, or name another directory")
