"""Locks between real processes: who holds one, what is left when it is killed, and file systems without locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eckart.errors import Refused
from eckart.files.lock import lock_path, locked

HOLD = """
import sys
from pathlib import Path
from eckart.files.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
COUNT = """
import sys
from pathlib import Path
from eckart.errors import Refused
from eckart.files.lock import locked
target, count = Path(sys.argv[1]), Path(sys.argv[2])
done = 0
while done < 50:
    try:
        with locked(target):
            count.write_text(str(int(count.read_text()) + 1))
            done += 1
    except Refused:
        pass
"""


def child(code: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@contextmanager
def another(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a target."""
    process = child(HOLD, target)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with another(target) as process:
        who = re.escape(f"process {process.pid} on {socket.gethostname()}, since 20")
        with pytest.raises(Refused, match=f"{target} is being made by {who}"), locked(target):
            pytest.fail("both hold it")
        assert lock_path(target).exists()
    with locked(target):
        pass
    assert not list(tmp_path.iterdir())


def test_a_killed_holder_keeps_nobody_out(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with another(target) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert json.loads(lock_path(target).read_text())["pid"] == process.pid
        with locked(target):
            assert json.loads(lock_path(target).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_process_keeps_itself_out(tmp_path: Path) -> None:
    with locked(tmp_path / "out"), pytest.raises(Refused, match=f"process {os.getpid()} on"), locked(tmp_path / "out"):
        pass


def test_many_processes_take_turns(tmp_path: Path) -> None:
    """Each removes the file that the others may just have opened."""
    count = tmp_path / "count"
    count.write_text("0")
    processes = [child(COUNT, tmp_path / "out", count) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    for process in processes:
        process.communicate()
    assert count.read_text() == "150"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_directories_made_for_it_go_again(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b" / "out"):
        assert (tmp_path / "a" / "b" / "out.lock").is_file()
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "a" / "b" / "out"):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_an_error_inside_releases_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "out"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


class TestWithoutLocks:
    """A file system that has none: what the file says counts."""

    @pytest.fixture(autouse=True)
    def unsupported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def flock(*_: Any) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", flock)

    def left(self, tmp_path: Path, **holder: Any) -> Path:
        lock_path(tmp_path / "out").write_text(json.dumps(holder))
        return tmp_path / "out"

    def test_it_is_free(self, tmp_path: Path) -> None:
        with locked(tmp_path / "out"):
            assert json.loads(lock_path(tmp_path / "out").read_text())["pid"] == os.getpid()
        assert not list(tmp_path.iterdir())

    def test_a_living_process_holds_it(self, tmp_path: Path) -> None:
        target = self.left(tmp_path, pid=os.getppid(), host=socket.gethostname(), since="today")
        with pytest.raises(Refused, match=f"process {os.getppid()} on .*, since today"), locked(target):
            pass

    def test_a_dead_one_does_not(self, tmp_path: Path) -> None:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        with locked(self.left(tmp_path, pid=process.pid, host=socket.gethostname(), since="today")):
            pass

    def test_another_host_may(self, tmp_path: Path) -> None:
        target = self.left(tmp_path, pid=1, host="elsewhere", since="today")
        with pytest.raises(Refused, match="process 1 on elsewhere, since today"), locked(target):
            pass

    def test_a_file_that_says_nothing_holds_nothing(self, tmp_path: Path) -> None:
        lock_path(tmp_path / "out").touch()
        with locked(tmp_path / "out"):
            pass


FOREIGN: dict[str, Callable[[Path], object]] = {
    "text": lambda file: file.write_text("[[package]]\nname = 'torch'\n"),
    "JSON": lambda file: file.write_text('{"pid": 1, "host": "here", "since": "today", "version": 1}'),
    "a directory": lambda file: file.mkdir(),
    "a pipe": lambda file: os.mkfifo(file),
    "a link": lambda file: file.symlink_to(file.with_name("other")),
    "a link to a lock": lambda file: (
        file.with_name("other").write_text('{"pid": 1, "host": "here", "since": "today"}'),
        file.symlink_to(file.with_name("other")),
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_lock_that_is_not_ours_is_left_alone(kind: str, tmp_path: Path) -> None:
    """poetry.lock beside a directory that is to be called poetry."""
    file = lock_path(tmp_path / "out")
    FOREIGN[kind](file)

    def state() -> tuple[object, ...]:
        """Without the time of the last access, which reading may change."""
        found = file.lstat()
        text = file.read_text() if kind in ("text", "JSON") else None
        return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, text

    before = state()
    for _ in range(2):
        with pytest.raises(Refused, match=r"out\.lock is in the way: .* move it elsewhere"), locked(tmp_path / "out"):
            pytest.fail("it was taken for a lock")
    assert state() == before


def test_an_empty_file_is_used_and_left(tmp_path: Path) -> None:
    file = lock_path(tmp_path / "out")
    file.touch()
    with locked(tmp_path / "out"), pytest.raises(Refused, match="is being made by process"), locked(tmp_path / "out"):
        pass
    assert file.read_bytes() == b""
