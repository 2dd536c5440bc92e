"""Runs daemons that must not outlive their owner, in a folder that must not either: what stays of local_cluster.py.

`python local_cluster_guardian.py OWNER FOLDER`: OWNER is a pidfd of the owner. It makes and locks FOLDER, answers [],
then reads commands from stdin and answers each, with one JSON list a line:

    ["start", name, argv, environment, log file]
    ["kill", "VARIABLE=value"]    kill what was started with this in its environment, and its children
    ["ended"]                     answered with the names of the daemons that are no more; the others with []
    ["stop"]                      kill everything, remove FOLDER and end; likewise when the owner ends, however it ends

What comes from a daemon stays below this process: it is the first of a PID namespace, or else adopts orphans.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
REAP_EVERY_MS = 200
GIVE_UP_AFTER = 20.0  # seconds; only a process that hangs in the kernel survives SIGKILL so long


class Guardian:
    """The daemons by process id."""

    def __init__(self) -> None:
        self.running: dict[int, str] = {}
        self.ended: list[str] = []

    def answer(self, command: list[object]) -> list[str]:
        """Do what a command says."""
        match command:
            case ["start", str(name), list(argv), dict(environment), str(log)]:
                self.start(name, argv, environment, log)
                return []
            case ["kill", str(mark)]:
                kill_until_none(lambda: self.mine(mark))
                return []
            case ["ended"]:
                return self.ended
            case ["stop"]:
                raise SystemExit
        raise ValueError(f"no such command: {command}")

    def start(self, name: str, argv: list[str], environment: dict[str, str], log: str) -> None:
        """Start a daemon in a session of its own."""
        into_log = (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        files = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), into_log, (os.POSIX_SPAWN_DUP2, 1, 2)]
        pid = os.posix_spawnp(argv[0], argv, environment, file_actions=files, setsid=True, setsigdef=[signal.SIGPIPE])
        self.running[pid] = name

    def reap(self) -> None:
        """Take note of every child that has ended."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.running:
                self.ended.append(self.running.pop(pid))

    def mine(self, mark: str = "") -> set[int]:
        """The processes below this one, or, of those, the marked ones with what is below them."""
        self.reap()
        children = children_by_parent()
        candidates = below(os.getpid(), children)
        return marked(candidates, mark, children) if mark else set(candidates)


def every_process() -> list[int]:
    """Process ids of all that runs."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def children_by_parent() -> dict[int, list[int]]:
    """Process ids of the children of every process."""
    children: dict[int, list[int]] = {}
    for pid in every_process():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        parent = int(stat.rpartition(")")[2].split()[1])  # the name before it may hold anything
        children.setdefault(parent, []).append(pid)
    return children


def below(pid: int, children: dict[int, list[int]]) -> list[int]:
    """All descendants of a process."""
    found = list(children.get(pid, []))
    for child in found:
        found.extend(children.get(child, []))  # the list grows while it is walked
    return found


def marked(candidates: Iterable[int], mark: str, children: dict[int, list[int]]) -> set[int]:
    """Those that were started with `VARIABLE=value` in their environment, and all that is below them."""
    own = [pid for pid in candidates if mark.encode() in environment_of(pid)]
    return {*own, *(descendant for pid in own for descendant in below(pid, children))}


def environment_of(pid: int) -> list[bytes]:
    """`VARIABLE=value` of a process as it was started; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def kill_until_none(find: Callable[[], set[int]]) -> None:
    """Kill what is found until nothing is; what is about to die starts other processes. Raises TimeoutError."""
    give_up = time.monotonic() + GIVE_UP_AFTER
    while found := find():
        if time.monotonic() > give_up:
            raise TimeoutError(f"processes that do not die: {sorted(found)}")
        for pid in found:
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def say(answer: list[str]) -> None:
    """Answer the owner."""
    with contextlib.suppress(BrokenPipeError):  # it has ended meanwhile
        os.write(1, json.dumps(answer).encode() + b"\n")


def serve(guardian: Guardian, owner: int) -> None:
    """Answer commands until the owner ends or says stop."""
    events = select.poll()
    events.register(owner, select.POLLIN)
    events.register(0, select.POLLIN)
    while True:
        ready = dict(events.poll(REAP_EVERY_MS))
        guardian.reap()
        if owner in ready:
            return
        if 0 in ready:
            line = sys.stdin.readline()
            if line:
                say(guardian.answer(json.loads(line)))
            else:
                events.unregister(0)  # the owner became another program, and goes on as that


def main(owner: int, folder: Path) -> None:
    """Guard until the end."""
    os.set_inheritable(owner, False)
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("cannot adopt orphans: prctl(PR_SET_CHILD_SUBREAPER) failed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    guardian = Guardian()
    folder.mkdir(mode=0o755)
    try:
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)  # as long as this process lives
        say([])
        serve(guardian, owner)
    finally:
        kill_until_none(guardian.mine)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
