"""Runs that cannot be lost: finished batches are kept, and a run goes on from them, on any number of processes."""

from medrecon.runs.kept import Differs, Kept, discard, drop_finished
from medrecon.runs.memo import Memo
from medrecon.runs.run import Run, Stopped
from medrecon.runs.shard import Shard
from medrecon.runs.task import Task, Work

__all__ = ["Differs", "Kept", "Memo", "Run", "Shard", "Stopped", "Task", "Work", "discard", "drop_finished"]
