"""Who does the work: executors of `concurrent.futures`, on this machine or a Dask cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager

from medrecon.numerics.threads import cores
from medrecon.runs.worker import begin

Pool = Callable[[], AbstractContextManager[Executor]]
"""Makes an executor; called again where its workers died."""


def processes(workers: int) -> Pool:
    """Return what makes `workers` processes on this machine, which share its cores, and its GPUs one by one."""

    @contextmanager
    def make() -> Iterator[Executor]:
        context = multiprocessing.get_context("spawn")  # torch's threads do not live through a fork
        others = set(multiprocessing.active_children())
        threads = max(1, cores() // workers)
        executor = ProcessPoolExecutor(workers, context, begin, (threads, context.Value("i", 0)))
        try:
            yield executor
        except Exception:
            raise
        except BaseException:  # a second signal: at once, without the batches in flight
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise
        finally:
            executor.shutdown(cancel_futures=True)

    return make


def dask(scheduler: str) -> Pool:
    """Return what reaches the workers of a Dask scheduler, such as tcp://10.0.0.1:8786; "local" starts some here.

    They have to see the measurement and the output's folder under the same paths.

    Raises:
        ImportError: Dask is not installed, from the executor.
    """

    @contextmanager
    def make() -> Iterator[Executor]:
        try:
            from distributed import Client
        except ImportError as error:
            raise ImportError("--scheduler needs Dask: pip install 'medrecon[dask]'") from error
        with Client(**({} if scheduler == "local" else {"address": scheduler})) as client:
            yield client.get_executor(pure=False)

    return make
