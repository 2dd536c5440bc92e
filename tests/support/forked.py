"""`python forked.py MODULE ARGUMENT ...`: as `python -m MODULE ...` in the same environment, from the fork server."""

import os
import sys
from pathlib import Path

import fork_server

if __name__ == "__main__":
    sys.path.pop(0)  # this folder is no part of the environment
    own = Path("/proc") / str(os.getpid()) / "fd"
    sys.exit(fork_server.start(*sys.argv[1:], stdout=own / "1", stderr=own / "2").wait())
