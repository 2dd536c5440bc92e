"""TensorBoard events, written at once: the writer of torch writes in a thread, where a full disk is a traceback."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepa.disk import writing


class Events:
    """TensorBoard events of one attempt of a run; TensorBoard hides events that an earlier attempt logged beyond it."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # only rank 0 needs tensorboard

        self.path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        start = Event(step=first_step + 1, session_log=SessionLog(status=SessionLog.START))
        self._append(Event(file_version="brain.Event:2"), start)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._append(Event(step=step, summary=Summary(value=scalars)))

    def _append(self, *events: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with writing(self.path), self.path.open("ab") as file:
            for event in events:
                event.wall_time = time.time()
                RecordWriter(file).write(event.SerializeToString())
