"""Processes that start in milliseconds: a server imports torch and the project once, then forks for every request.

`start`, `run` and `run_group` take what follows `python -m`, or a file. Each process leads its own session and receives
signals under its own id; only its imports are done already.

The server imports on its first request, so it costs nothing where no test asks for it. A fork copies one thread, so the
server must never start a second; it checks that before each fork. It ends when its stdin is closed.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

ADDRESS = "JEPA_FORK_SERVER"  # environment variable: the path of the server's socket
IMPORTS = [
    *("jepa.launch", "jepa.evaluate.run", "jepa.report.page", "jepa.training.fsdp", "jepa.checkpoint.shards"),
    *("jepa.embedding.command", "jepa.embedding.run"),
    *("modalities.image", "modalities.image_text", "modalities.video", "open_clip", "torchvision.transforms.v2"),
    *("torch._dynamo", "torch.nn.parallel", "tensorboard.summary.writer.record_writer"),
    *("tensorboard.compat.proto.event_pb2", "tensorboard.compat.proto.summary_pb2"),
]
# Libraries that would start threads when they are imported; the processes themselves have OMP_NUM_THREADS threads.
SINGLE_THREADED = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
GRACE = 10.0  # seconds that a group has to end after one of its processes failed
START = 120.0  # seconds that the server has to import everything
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Process:
    """A process of the server; `wait`, `poll` and `send_signal` work as those of subprocess.Popen."""

    def __init__(self, connection: socket.socket, args: Sequence[str], stdout: Path, stderr: Path) -> None:
        self.args, self.stdout, self.stderr = list(args), stdout, stderr
        self.returncode: int | None = None
        self._connection = connection
        self.pid = self._answer(START)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._answer(timeout)
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Wait for the end -> exit status and everything that was printed."""
        return subprocess.CompletedProcess(self.args, self.wait(), self.stdout.read_text(), self.stderr.read_text())

    def _answer(self, timeout: float | None) -> int:
        self._connection.settimeout(timeout)
        try:
            answer = self._connection.recv(32)
        except (TimeoutError, BlockingIOError):
            raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
        if not answer:
            raise RuntimeError(f"the fork server has ended: {Path(os.environ[ADDRESS]).with_name('log').read_text()}")
        return int(answer)


def start(
    *command: str, cwd: Path | None = None, stdout: Path | None = None, stderr: Path | None = None, **environment: str
) -> Process:
    """Start `python -m command` with variables added to the environment of this process, by default with one thread.

    stdout, stderr: files to append to, by default new ones.
    """
    stdout, stderr = stdout or new_file(), stderr or new_file()
    request = {
        "argv": command,
        "cwd": str(cwd or Path.cwd()),
        "environment": {**os.environ, "OMP_NUM_THREADS": "1", **environment},
        "path": sys.path,
        "executable": sys.executable,
        "outputs": [str(stdout), str(stderr)],
    }
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(address())
    connection.send(json.dumps(request).encode())
    return Process(connection, command, stdout, stderr)


def new_file() -> Path:
    """An empty file beside the server's socket."""
    descriptor, path = tempfile.mkstemp(dir=Path(address()).parent)
    os.close(descriptor)
    return Path(path)


def run(*command: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m command` to its end."""
    return start(*command, cwd=cwd, **environment).finish()


def run_group(size: int, *command: str, patience: float = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m command` in the processes of one group, as torchrun does -> the first failure, if any.

    patience: seconds that the others have to end on their own once one has failed.
    """
    if size == 1:
        return run(*command, **environment)
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as the agent of torchrun holds one
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), **environment}
    outputs = {"stdout": new_file(), "stderr": new_file()}
    group = [start(*command, **outputs, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(size)]
    while not any(process.poll() for process in group) and any(process.returncode is None for process in group):
        time.sleep(0.01)
    first = next((process for process in group if process.returncode), group[0])
    given_up = time.monotonic() + patience
    while any(process.poll() is None for process in group) and time.monotonic() < given_up:
        time.sleep(0.01)
    for process in group:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in group:
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return first.finish()


def address() -> str:
    """Path of the server's socket; starts a server where this process and its parents have none."""
    if ADDRESS not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="fork-server-")
        path = Path(folder.name) / "socket"
        with (path.with_name("log")).open("w") as log:
            server = subprocess.Popen(
                [sys.executable, __file__, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **SINGLE_THREADED},
                start_new_session=True,
            )
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdout.readline()  # it listens
        atexit.register(folder.cleanup)
        atexit.register(server.communicate)  # closes its stdin, and waits
        os.environ[ADDRESS] = str(path)
    return os.environ[ADDRESS]


class Server:
    """Listens on a socket, forks for every request and reports process ids and exit statuses."""

    def __init__(self, path: str) -> None:
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        self.running: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: process id and whom to tell

    def serve(self) -> dict[str, Any]:
        """Answer requests; returns in forked processes only, each with its request."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is sys.stdin:
                    raise SystemExit
                if key.fileobj is not self.listener:
                    self.report_end(key.fd)
                elif request := self.accept():
                    return request

    def accept(self) -> dict[str, Any] | None:
        connection, _ = self.listener.accept()
        request = connection.recv(1 << 20)
        import_everything()
        pid = os.fork()
        if pid == 0:
            self.close(connection)
            return json.loads(request)  # type: ignore[no-any-return]
        connection.send(str(pid).encode())
        pidfd = os.pidfd_open(pid)
        self.running[pidfd] = pid, connection
        self.selector.register(pidfd, selectors.EVENT_READ)
        return None

    def report_end(self, pidfd: int) -> None:
        self.selector.unregister(pidfd)
        os.close(pidfd)
        pid, connection = self.running.pop(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(OSError), connection:  # the process that asked may have ended
            connection.send(str(status).encode())

    def close(self, connection: socket.socket) -> None:
        """Close all files of the server, in a forked process."""
        connection.close()
        self.listener.close()
        self.selector.close()
        for pidfd, (_, other) in self.running.items():
            os.close(pidfd)
            other.close()


def import_everything() -> None:
    """Import what processes need, on the first call; check that no import and no request has started a thread."""
    if "torch" not in sys.modules:
        for module in IMPORTS:
            importlib.import_module(module)
        gc.collect()
        gc.freeze()  # the memory of these objects stays shared
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: a fork would copy one of them"


def become(request: dict[str, Any]) -> NoReturn:
    """Turn a forked process into `python -m command`."""
    server = os.getppid()
    os.setsid()
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != server:
        raise SystemExit
    for standard, path in enumerate([os.devnull, *request["outputs"]]):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND if standard else os.O_RDONLY)
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:] = [request["cwd"], *filter(None, os.environ.get("PYTHONPATH", "").split(":")), *request["path"]]
    set_threads(int(os.environ["OMP_NUM_THREADS"]))
    sys.executable = request["executable"]
    sys.argv = request["argv"]
    warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
    run_and_exit(sys.argv[0])


def run_and_exit(program: str) -> NoReturn:
    """Run a module or a file, and end as an interpreter does but without freeing objects, which would copy them all."""
    status: object = 0
    try:
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def set_threads(count: int) -> None:
    import torch

    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


if __name__ == "__main__":
    listening = Server(sys.argv[1])
    print("listening", flush=True)
    become(listening.serve())
