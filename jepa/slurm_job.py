"""The former name of `jepa.cluster.job`, which jobs that were queued under it have pickled."""

from jepa.cluster.job import Command as Command
