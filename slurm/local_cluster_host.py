"""Programs, ports, folder and guardian of the throw-away cluster in local_cluster.py."""

import fcntl
import functools
import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from string import Template

from local_cluster_guardian import children_by_parent, every_process, kill_until_none, marked

HERE = Path(__file__).resolve().parent
PREFIX = "local-slurm-"
PROGRAMS = ("munged", "slurmctld", "slurmd", "scontrol", "sinfo", "squeue", "sbatch", "setpriv")
INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
ISOLATION = ("unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
MEMORY_MB = 64_000  # of a node; not enforced
ABANDONED_AFTER = 60.0  # seconds; a younger folder may not have its lock yet


class ClusterError(RuntimeError):
    """The cluster cannot start, or a command to it fails; the message says what to do."""


def missing_programs() -> list[str]:
    """Programs of SLURM and munge that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program, path=SEARCH_PATH) is None]


def need_programs() -> None:
    """Raise ClusterError with the installation command if programs are missing."""
    if missing := missing_programs():
        raise ClusterError(f"{', '.join(missing)} not found; on Debian and Ubuntu: {INSTALL}")


@functools.cache
def isolation_works() -> bool:
    """Whether this machine permits PID namespaces."""
    if shutil.which(ISOLATION[0]) is None:
        return False
    return subprocess.run([*ISOLATION, "true"], capture_output=True).returncode == 0


def free_ports(count: int) -> list[int]:
    """Currently free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def wait_until(
    condition: Callable[[], bool], seconds: float, message: Callable[[], str], *, every: float = 0.05
) -> None:
    """Check a condition every few seconds until it is true. Raises ClusterError with the message after `seconds`."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise ClusterError(f"{message()} after {seconds:g} s")
        time.sleep(every)


def tail(log: Path) -> str:
    """The last three lines of a log; empty if it does not exist."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-3:]) if log.exists() else ""


def new_folder() -> Path:
    """Path of a new folder, not yet created; short, because paths of sockets must be."""
    return Path(f"/tmp/{PREFIX}{os.urandom(4).hex()}")


def remove_abandoned() -> None:
    """Remove processes and folders of clusters whose owner and guardian were both killed."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        try:
            if folder.stat().st_uid == os.getuid() and time.time() - folder.stat().st_mtime > ABANDONED_AFTER:
                remove_unlocked(folder)
        except FileNotFoundError:
            continue  # another process has just removed it


def remove_unlocked(folder: Path) -> None:
    """Remove a folder unless a process holds its lock."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(folder)
    except BlockingIOError:
        return  # in use
    finally:
        os.close(lock)


def remove(folder: Path) -> None:
    """Kill the processes that use the slurm.conf of a folder, and remove the folder."""
    mark = f"SLURM_CONF={folder / 'slurm.conf'}"
    kill_until_none(lambda: marked(every_process(), mark, children_by_parent()) - {os.getpid()})
    shutil.rmtree(folder)


def write_files(folder: Path, names: list[str], cpus: int, gpus: int) -> None:
    """Write all files that the daemons read."""
    ports = free_ports(1 + len(names))
    (folder / "slurm.conf").write_text(slurm_conf(folder, ports[0]) + nodes_conf(names, ports[1:], cpus, gpus))
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={folder}/nvidia{index}\n" for index in range(gpus)))
    (folder / "plugstack.conf").touch()
    for name in ("bin", "state", "spool"):
        (folder / name).mkdir()
    for index in range(gpus):
        (folder / f"nvidia{index}").symlink_to(os.devnull)  # SLURM accepts any character device as a GPU
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    sacct = Path(shutil.copy(HERE / "local_cluster_sacct.sh", folder / "bin" / "sacct"))
    sacct.chmod(0o755)


def slurm_conf(folder: Path, port: int) -> str:
    """The filled-in template, without the nodes."""
    values = {
        "folder": folder,
        "name": folder.name.replace("-", "").replace("_", ""),
        "first_job": random.SystemRandom().randrange(1, 10_000_000),  # clusters must not share job ids
        "port": port,
        "user": pwd.getpwuid(os.getuid()).pw_name,
    }
    return Template((HERE / "local_cluster.conf").read_text()).substitute(values)


def nodes_conf(names: list[str], ports: list[int], cpus: int, gpus: int) -> str:
    """Lines of the nodes, without NodeHostname: some builds (no --enable-multiple-slurmd) refuse it twice."""
    return "".join(
        f"NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus}"
        f" ThreadsPerCore=1 RealMemory={MEMORY_MB} Gres=gpu:{gpus} State=UNKNOWN\n"
        for name, port in zip(names, ports, strict=True)
    )


def start_guardian(folder: Path, isolate: bool) -> subprocess.Popen[bytes]:
    """Start local_cluster_guardian.py, which creates the folder and removes it when this process ends."""
    owner = os.pidfd_open(os.getpid())
    guardian = [sys.executable, "-I", "-S", str(HERE / "local_cluster_guardian.py")]
    command = [*(ISOLATION if isolate else ()), *guardian, str(owner), str(folder)]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=(owner,),
            start_new_session=True,  # Ctrl-C must reach only the owner
            cwd="/",
        )
    finally:
        os.close(owner)
