#!/usr/bin/env python3
"""A throw-away SLURM cluster on this machine.

It starts in a fraction of a second, needs no set-up, touches nothing outside a private folder in /tmp, and disappears
with that folder when its owner process ends, however it ends. Several can run at once. From Python:

    with LocalCluster(nodes=2, cpus=4) as cluster:
        job_id = cluster.submit("hostname")
        cluster.wait_for(job_id, "COMPLETED")
        subprocess.run(["sinfo"], env=cluster.environment)

From the shell:

    python slurm/local_cluster.py -- bash                       a shell in which sbatch, srun, squeue, sacct work
    python slurm/local_cluster.py --gpus 2 -- python train.py   a cluster for the duration of a command
    python slurm/local_cluster.py                               a cluster until Ctrl-C; prints the variables to export
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from local_cluster_host import (
    SEARCH_PATH,
    ClusterError,
    isolation_works,
    need_programs,
    new_folder,
    remove,
    remove_abandoned,
    start_guardian,
    tail,
    wait_until,
    write_files,
)

STARTS = 3  # another process may take a free port before the daemon does
START_SECONDS = 20.0
STOP_SECONDS = 30.0
END_WITH_GUARDIAN = ("setpriv", "--pdeathsig", "KILL")
OTHER_CLUSTER = ("SLURM", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SINFO_", "SACCT_", "SCONTROL_")
JOB_FIELDS = ("JobArrayID", "Name", "State", "NodeList", "Reason", "RestartCnt")


class DaemonEndedError(ClusterError):
    """A daemon exited while the cluster started."""


@dataclass(frozen=True)
class Job:
    """A job as squeue shows it; each element of an array is a job."""

    id: str  # 12, or 12_3 for an element of an array
    name: str
    state: str  # PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, NODE_FAIL, PREEMPTED, ...
    nodes: str  # 127.0.0.[1-2]; empty while pending
    reason: str  # of waiting or failure: None, Resources, BeginTime, NonZeroExitCode, ...
    restarts: int


class LocalCluster:
    """A cluster of nodes 127.0.0.1, 127.0.0.2, ...; jobs of the partition `high` preempt those of `main`.

    cpus, gpus: per node; they need not exist, and a job with GPUs gets CUDA_VISIBLE_DEVICES. Memory limits are not
    enforced. isolate: use a PID namespace if the machine permits it; process ids differ inside. Raises ClusterError.
    """

    def __init__(self, *, nodes: int = 2, cpus: int = 4, gpus: int = 0, isolate: bool = True) -> None:
        if nodes not in range(1, 255) or cpus < 1 or gpus < 0:
            raise ClusterError(f"{nodes=}, {cpus=}, {gpus=} is not allowed: 1 to 254 nodes, CPUs from 1, GPUs from 0")
        self.names = [f"127.0.0.{index + 1}" for index in range(nodes)]  # names that resolve without set-up
        self.cpus = cpus
        self.gpus = gpus
        self.isolate = isolate

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the cluster and return when every node is idle. Raises ClusterError."""
        need_programs()
        remove_abandoned()
        for starts_left in reversed(range(STARTS)):
            self.folder = new_folder()
            self._guardian = start_guardian(self.folder, self.isolate and isolation_works())
            try:
                self._answer()
                write_files(self.folder, self.names, self.cpus, self.gpus)
                self._start_daemons()
                return
            except BaseException as error:
                self.stop()
                if starts_left == 0 or not isinstance(error, DaemonEndedError):
                    raise

    def stop(self) -> None:
        """Kill all processes, including jobs that ignore signals, and remove the folder; may be called twice."""
        if self._guardian.returncode is None:
            self._guardian.communicate(b'["stop"]\n', timeout=STOP_SECONDS)
        if self.folder.exists():  # the guardian was killed
            remove(self.folder)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of this process, with this cluster in place of any other, and a substitute for `sacct`."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(OTHER_CLUSTER)}
        path = os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", os.defpath)])
        return {**own, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def run(self, *command: str) -> str:
        """Run a SLURM command -> its output. Raises ClusterError with its message if it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def submit(self, script: str, *options: str) -> str:
        """Submit a shell command with options of sbatch -> job id."""
        return self.run("sbatch", "--parsable", *options, f"--wrap={script}").strip()

    def jobs(self) -> list[Job]:
        """All jobs, including those that ended in the last hour."""
        fields = ",".join(f"{field}:|" for field in JOB_FIELDS)
        lines = self.run("squeue", "--noheader", "--all", "--array", "--states=all", f"--Format={fields}").splitlines()
        rows = [[value.strip() for value in line.split("|")] for line in lines]
        return [
            Job(id=job_id, name=name, state=state, nodes=nodes, reason=reason, restarts=int(restarts))
            for job_id, name, state, nodes, reason, restarts, _ in rows
        ]

    def job(self, job_id: str) -> Job:
        """The job with this id. Raises ClusterError if there is none."""
        for job in self.jobs():
            if job.id == job_id:
                return job
        raise ClusterError(f"no job {job_id} on this cluster")

    def wait_for(self, job_id: str, *states: str, seconds: float = 60.0) -> Job:
        """Wait until a job has one of these states -> the job. Raises ClusterError after `seconds`."""
        wait_until(lambda: self.job(job_id).state in states, seconds, lambda: f"{self.job(job_id)} is not {states}")
        return self.job(job_id)

    def end_in(self, job_id: str, seconds: int) -> None:
        """Let a running job's time limit end in `seconds`; slurmctld checks time limits every 30 s."""
        self.run("scontrol", "update", f"JobId={job_id}", f"EndTime=now+{seconds}")

    def kill_node(self, name: str) -> None:
        """Crash a node: kill its daemon and jobs, and mark it down, so that SLURM requeues the jobs at once."""
        self._ask("kill", f"SLURMD_NODENAME={name}")
        self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=crash")

    def restore_node(self, name: str) -> None:
        """Restart a killed node and return when it accepts jobs."""
        self._start_node(name)
        wait_until(lambda: "down" not in self._node_states(name), START_SECONDS, lambda: f"{name} stays down")

    def _node_states(self, *names: str) -> set[str]:
        """States of these nodes, or of all: idle, mixed, down, down*, ..."""
        chosen = [f"--nodes={','.join(names)}"] if names else []
        states = self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T", *chosen)
        return set(states.split())

    def _start_daemons(self) -> None:
        names = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid"}
        names |= {"log-file": "munged.log", "seed-file": "munged.seed"}
        files = [f"--{option}={self.folder / name}" for option, name in names.items()]
        self._start_daemon("munged", "munged", "--foreground", "--force", *files)
        self._wait_for_daemon("munged", (self.folder / "munge.sock").exists)
        self._start_daemon("slurmctld", "slurmctld", "-D", "-c", "-i", "-f", str(self.folder / "slurm.conf"))
        self._wait_for_daemon("slurmctld", self._controller_answers)
        for name in self.names:
            self._start_node(name)
        self._wait_for_daemon("slurmd", lambda: self._node_states() == {"idle"})

    def _start_node(self, name: str) -> None:
        self._start_daemon(name, "slurmd", "-D", "-N", name, "-f", str(self.folder / "slurm.conf"))

    def _start_daemon(self, name: str, *command: str) -> None:
        environment = {"PATH": SEARCH_PATH, "SLURM_CONF": str(self.folder / "slurm.conf"), "SLURMD_NODENAME": name}
        self._ask("start", name, [*END_WITH_GUARDIAN, *command], environment, str(self.folder / f"{name}.out"))

    def _wait_for_daemon(self, name: str, is_up: Callable[[], bool]) -> None:
        """Wait until a daemon is up. Raises DaemonEndedError if any daemon exits."""
        wait_until(
            lambda: self._none_ended() and is_up(), START_SECONDS, lambda: f"{name} does not start: {self._log(name)}"
        )

    def _none_ended(self) -> bool:
        if ended := [str(name) for name in self._ask("ended")]:
            raise DaemonEndedError("; ".join(f"{name} ended: {self._log(name)}" for name in ended))
        return True

    def _controller_answers(self) -> bool:
        ping = subprocess.run(["scontrol", "ping"], env=self.environment, capture_output=True, text=True)
        return "is UP" in ping.stdout

    def _log(self, name: str) -> str:
        return tail(self.folder / f"{name}.out")

    def _ask(self, *command: object) -> list[object]:
        """Send a command to the guardian -> its answer. Raises ClusterError if the guardian has died."""
        assert self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died, and does not answer either
            self._guardian.stdin.write(json.dumps(command).encode() + b"\n")
        return self._answer()

    def _answer(self) -> list[object]:
        """Wait for the guardian's answer."""
        assert self._guardian.stdout is not None
        answer: list[object] | None = json.loads(self._guardian.stdout.readline() or "null")
        if answer is None:
            raise ClusterError("the guardian of the cluster has died, and the cluster with it")
        return answer


def main(arguments: list[str]) -> int:
    """Run a command with a cluster, or keep a cluster until Ctrl-C."""
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=2, help="number of nodes (default 2)")
    parser.add_argument("--cpus", type=int, default=4, help="processors per node, which need not exist (default 4)")
    parser.add_argument("--gpus", type=int, default=0, help="simulated GPUs per node (default 0)")
    parser.add_argument(
        "command", nargs="*", metavar="COMMAND", help="command to run, after --; the cluster ends with it"
    )
    given = parser.parse_args(arguments)
    try:
        cluster = LocalCluster(nodes=given.nodes, cpus=given.cpus, gpus=given.gpus)
        cluster.start()
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    environment = cluster.environment
    if given.command:  # replaces this process, so that signals and the exit status are those of the command
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores SIGPIPE, and the command would inherit that
        try:
            os.execvpe(given.command[0], given.command, environment)
        except OSError as error:
            cluster.stop()
            print(f"{given.command[0]}: {error.strerror}", file=sys.stderr)
            return 127
    print(f"export SLURM_CONF={environment['SLURM_CONF']} PATH={cluster.folder / 'bin'}:$PATH", flush=True)
    print(f"{given.nodes} nodes run until Ctrl-C", file=sys.stderr)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # scripts start background processes with it ignored
    try:
        signal.pause()
    except KeyboardInterrupt:
        cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
