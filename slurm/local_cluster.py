#!/usr/bin/env python3
"""A real SLURM cluster on this machine, to try things on and throw away.

It takes a fraction of a second to start, needs no set-up, touches nothing outside a private folder in /tmp, and is gone
with that folder when its owner ends, however it ends. Several may run at once. From Python:

    with LocalCluster(nodes=2, cpus=4) as cluster:
        job_id = cluster.submit("hostname")
        cluster.wait_for(job_id, "COMPLETED")
        subprocess.run(["sinfo"], env=cluster.environment)

By hand:

    python slurm/local_cluster.py -- bash                       a shell in which sbatch, srun, squeue, sacct work
    python slurm/local_cluster.py --gpus 2 -- python train.py   the cluster is there while the command runs
    python slurm/local_cluster.py                               stays until Ctrl-C; prints what to export elsewhere
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

STARTS = 3  # a port that was free may be taken before the daemon comes to it
START_SECONDS = 20.0
STOP_SECONDS = 30.0
END_WITH_GUARDIAN = ("setpriv", "--pdeathsig", "KILL")
OTHER_CLUSTER = ("SLURM", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SINFO_", "SACCT_", "SCONTROL_")  # settings of one
JOB_FIELDS = ("JobArrayID", "Name", "State", "NodeList", "Reason", "RestartCnt")


class DaemonEndedError(ClusterError):
    """A daemon ended while the cluster started."""


@dataclass(frozen=True)
class Job:
    """A job as squeue shows it; elements of an array are jobs of their own."""

    id: str  # 12, or 12_3 for an element of an array
    name: str
    state: str  # PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, NODE_FAIL, PREEMPTED, ...
    nodes: str  # 127.0.0.[1-2]; empty while it waits
    reason: str  # why it waits or failed: None, Resources, BeginTime, NonZeroExitCode, ...
    restarts: int


class LocalCluster:
    """A cluster with nodes named 127.0.0.1, 127.0.0.2, ... and two partitions: `main`, and `high`, which preempts it.

    `cpus` and `gpus` are those of each node, and need not be there: nodes claim them, and a job with GPUs gets
    CUDA_VISIBLE_DEVICES. Jobs are not held to the memory they ask for. `isolate` puts it all in a PID namespace where
    the machine permits that; process ids in there differ from those out here. Raises ClusterError.
    """

    def __init__(self, *, nodes: int = 2, cpus: int = 4, gpus: int = 0, isolate: bool = True) -> None:
        if nodes not in range(1, 255) or cpus < 1 or gpus < 0:
            raise ClusterError(f"no cluster has {nodes=}, {cpus=}, {gpus=}: 1 to 254 nodes, CPUs from 1, GPUs from 0")
        self.names = [f"127.0.0.{index + 1}" for index in range(nodes)]  # they resolve, with nothing to set up
        self.cpus = cpus
        self.gpus = gpus
        self.isolate = isolate

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and return when every node is idle. Raises ClusterError."""
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
        """Kill everything, whatever signals jobs ignore, and remove the folder; nothing if that is done already."""
        if self._guardian.returncode is None:
            self._guardian.communicate(b'["stop"]\n', timeout=STOP_SECONDS)
        if self.folder.exists():  # the guardian was killed
            remove(self.folder)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of this process with the cluster instead of any other; `sacct` there is a stand-in."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(OTHER_CLUSTER)}
        path = os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", os.defpath)])
        return {**own, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def run(self, *command: str) -> str:
        """What a command of SLURM prints. Raises ClusterError with what it says when it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def submit(self, script: str, *options: str) -> str:
        """Queue a line of shell with options of sbatch; returns the job id."""
        return self.run("sbatch", "--parsable", *options, f"--wrap={script}").strip()

    def jobs(self) -> list[Job]:
        """All jobs of the last hour, ended ones too."""
        fields = ",".join(f"{field}:|" for field in JOB_FIELDS)
        lines = self.run("squeue", "--noheader", "--all", "--array", "--states=all", f"--Format={fields}").splitlines()
        rows = [[value.strip() for value in line.split("|")] for line in lines]
        return [
            Job(id=job_id, name=name, state=state, nodes=nodes, reason=reason, restarts=int(restarts))
            for job_id, name, state, nodes, reason, restarts, _ in rows
        ]

    def job(self, job_id: str) -> Job:
        """One job by its id. Raises ClusterError when there is none."""
        for job in self.jobs():
            if job.id == job_id:
                return job
        raise ClusterError(f"no job {job_id} on this cluster")

    def wait_for(self, job_id: str, *states: str, seconds: float = 60.0) -> Job:
        """The job as soon as its state is one of these. Raises ClusterError when it isn't after `seconds`."""
        wait_until(lambda: self.job(job_id).state in states, seconds, lambda: f"{self.job(job_id)} is not {states}")
        return self.job(job_id)

    def end_in(self, job_id: str, seconds: int) -> None:
        """Move the time limit of a running job there; slurmctld looks at time limits every 30 s."""
        self.run("scontrol", "update", f"JobId={job_id}", f"EndTime=now+{seconds}")

    def kill_node(self, name: str) -> None:
        """Crash a node: its daemon and all processes of its jobs die. SLURM is told, and so requeues them at once."""
        self._ask("kill", f"SLURMD_NODENAME={name}")
        self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=crash")

    def restore_node(self, name: str) -> None:
        """Bring a killed node back, and return when it takes jobs."""
        self._start_node(name)
        wait_until(lambda: "down" not in self._node_states(name), START_SECONDS, lambda: f"{name} stays down")

    def _node_states(self, *names: str) -> set[str]:
        """States of these nodes or of all: idle, mixed, down, down*, ..."""
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

    def _wait_for_daemon(self, name: str, there: Callable[[], bool]) -> None:
        """Wait for a daemon. Raises DaemonEndedError when one ends instead."""
        wait_until(
            lambda: self._none_ended() and there(), START_SECONDS, lambda: f"{name} does not start: {self._log(name)}"
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
        """Let the guardian do something. Raises ClusterError when it is gone."""
        assert self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and does not answer either
            self._guardian.stdin.write(json.dumps(command).encode() + b"\n")
        return self._answer()

    def _answer(self) -> list[object]:
        """Wait for what the guardian answers."""
        assert self._guardian.stdout is not None
        answer: list[object] | None = json.loads(self._guardian.stdout.readline() or "null")
        if answer is None:
            raise ClusterError("the guardian of the cluster has ended, and the cluster with it")
        return answer


def main(arguments: list[str]) -> int:
    """Run a command with a cluster, or keep one until Ctrl-C."""
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=2, help="how many nodes (default 2)")
    parser.add_argument("--cpus", type=int, default=4, help="processors of each, which need not be there (default 4)")
    parser.add_argument("--gpus", type=int, default=0, help="make-believe GPUs of each (default 0)")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what to run, after --; it ends with the command")
    given = parser.parse_args(arguments)
    try:
        cluster = LocalCluster(nodes=given.nodes, cpus=given.cpus, gpus=given.gpus)
        cluster.start()
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    environment = cluster.environment
    if given.command:  # it takes this process's place, so that it is the owner: signals and exit status are its own
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what follows would inherit that
        try:
            os.execvpe(given.command[0], given.command, environment)
        except OSError as error:
            cluster.stop()
            print(f"{given.command[0]}: {error.strerror}", file=sys.stderr)
            return 127
    print(f"export SLURM_CONF={environment['SLURM_CONF']} PATH={cluster.folder / 'bin'}:$PATH", flush=True)
    print(f"{given.nodes} nodes, until Ctrl-C", file=sys.stderr)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it would be ignored
    try:
        signal.pause()
    except KeyboardInterrupt:
        cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
