"""The guardian process of local_cluster.py: kills the daemons and removes the folder when the owner ends.

`python local_cluster_guardian.py OWNER FOLDER`: OWNER is a pidfd of the owner process. The guardian creates and locks
FOLDER, answers [], then reads commands from stdin and answers them, one JSON list per line:

    ["start", name, argv, environment, log file]
    ["kill", "VARIABLE=value"]    kill processes that were started with this variable, and their descendants
    ["ended"]                     answer with the names of the daemons that have exited; all other answers are []
    ["stop"]                      kill all processes, remove FOLDER and exit; the same happens when the owner ends

All processes of the daemons stay descendants of the guardian: it is the init of a PID namespace, or adopts orphans.
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
GIVE_UP_AFTER = 20.0  # seconds; only a process that hangs in the kernel survives SIGKILL for so long


class Guardian:
    """Starts, watches and kills daemons."""

    def __init__(self) -> None:
        self.running: dict[int, str] = {}
        self.ended: list[str] = []

    def answer(self, command: list[object]) -> list[str]:
        """Execute a command -> answer."""
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
        """Start a daemon in a new session."""
        into_log = (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        files = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), into_log, (os.POSIX_SPAWN_DUP2, 1, 2)]
        pid = os.posix_spawnp(argv[0], argv, environment, file_actions=files, setsid=True, setsigdef=[signal.SIGPIPE])
        self.running[pid] = name

    def reap(self) -> None:
        """Collect all children that have exited."""
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
        """Descendants of this process: all, or the marked ones and their descendants."""
        self.reap()
        children = children_by_parent()
        candidates = below(os.getpid(), children)
        return marked(candidates, mark, children) if mark else set(candidates)


def every_process() -> list[int]:
    """All process ids."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def children_by_parent() -> dict[int, list[int]]:
    """Process ids of children by parent."""
    children: dict[int, list[int]] = {}
    for pid in every_process():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        parent = int(stat.rpartition(")")[2].split()[1])  # the process name may contain anything
        children.setdefault(parent, []).append(pid)
    return children


def below(pid: int, children: dict[int, list[int]]) -> list[int]:
    """All descendants of a process."""
    found = list(children.get(pid, []))
    for child in found:
        found.extend(children.get(child, []))  # the list grows while it is walked
    return found


def marked(candidates: Iterable[int], mark: str, children: dict[int, list[int]]) -> set[int]:
    """Candidates that were started with `VARIABLE=value` in their environment, and all their descendants."""
    own = [pid for pid in candidates if mark.encode() in environment_of(pid)]
    return {*own, *(descendant for pid in own for descendant in below(pid, children))}


def environment_of(pid: int) -> list[bytes]:
    """Initial environment of a process as `VARIABLE=value`; empty if it has exited."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def kill_until_none(find: Callable[[], set[int]]) -> None:
    """Kill the processes found until none is left. Raises TimeoutError.

    They are stopped first: the child of a killed process loses its parent, by which alone it may be found, and a
    process that still runs could start one unseen.
    """
    stopped: set[int] = set()
    while running := find() - stopped:
        send(signal.SIGSTOP, running)
        stopped |= running
    give_up = time.monotonic() + GIVE_UP_AFTER
    while found := find():
        if time.monotonic() > give_up:
            raise TimeoutError(f"processes survive SIGKILL: {sorted(found)}")
        send(signal.SIGKILL, found)
        time.sleep(0.002)


def send(which: signal.Signals, pids: set[int]) -> None:
    """Send a signal to all of these processes that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has just exited
            os.kill(pid, which)


def say(answer: list[str]) -> None:
    """Send an answer to the owner."""
    with contextlib.suppress(BrokenPipeError):  # the owner has exited
        os.write(1, json.dumps(answer).encode() + b"\n")


def serve(guardian: Guardian, owner: int) -> None:
    """Answer commands until the owner ends or sends stop."""
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
                events.unregister(0)  # the owner has replaced itself by its command


def main(owner: int, folder: Path) -> None:
    """Create the folder, serve commands, and clean up."""
    os.set_inheritable(owner, False)
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed, so orphans cannot be adopted")
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
