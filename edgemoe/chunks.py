"""Work in chunks: here, in processes of this computer, or on a Dask cluster; what is done is kept in a folder.

A task is a pure function of what all chunks share and of one chunk, and returns named arrays. So it does not matter
where it runs, how often, or in which order: a worker that dies loses nothing but time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.reading import read_json
from pysim.extras import require
from pysim.files import new_file, read_npz

Arrays = dict[str, NDArray[Any]]
Task = Callable[[Any, Any], Arrays]
"""Function of what all chunks share and of a chunk; of a module, so that other processes find it by its name."""
Chunk = tuple[int, Any]
Done = tuple[int, Arrays]
Running = Generator[Done, None, None]

CHUNK_TOKENS = 16_384
"""Tokens of the images of a chunk: work of seconds, and memory of some hundred megabytes."""

MOST_DEATHS = 3
"""Times that workers may die, all together, without any chunk having been finished in between."""

AHEAD = 2
"""Chunks for each worker that are handed out at once, so that none waits for the next."""

SHORT_ADDRESS_SECONDS = 10
"""Time in which a scheduler has to answer."""

_log = logging.getLogger("edgemoe")


@dataclass(frozen=True)
class Places:
    """Places where chunks are worked on.

    Attributes:
        workers: processes of this computer, of one thread each; 0 is this process, with all its threads.
        scheduler: address of a Dask scheduler instead, such as `tcp://10.0.0.1:8786`.
        resume: folder that keeps finished chunks: the same work goes on from there.
    """

    workers: int = 0
    scheduler: str | None = None
    resume: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.workers < 0:
            raise InputError(f"workers = {self.workers}, expected 0 or more")
        if self.workers and self.scheduler is not None:
            raise InputError("workers and a scheduler", hint="choose one: a scheduler has workers of its own")

    def of(self, part: str) -> Places:
        """The same, with a folder for a part of the work."""
        return self if self.resume is None else replace(self, resume=self.resume / part)

    def __bool__(self) -> bool:
        """Whether anything but this process is asked for."""
        return self != HERE


HERE = Places()
"""This process, and nothing kept."""


def join(parts: list[Arrays]) -> Arrays:
    """Arrays of all chunks, one after the other, by name; each chunk has all of them."""
    return {name: np.concatenate([arrays[name] for arrays in parts]) for name in parts[0]}


def run_chunks(
    task: Task,
    shared: Any,
    chunks: Iterable[Callable[[], Any]],
    places: Places,
    identity: dict[str, Any],
    progress: Callable[[int], Any] | None = None,
) -> list[Arrays]:
    """Results of all chunks, in their order.

    Args:
        task: the function.
        shared: its first argument, the same for all chunks.
        chunks: for each chunk a function that makes the second argument, when it is its turn.
        places: where to run it, and where to keep results.
        identity: what results depend on, as JSON has it: a folder that was made for something else is refused.
        progress: called with the number of chunks done.

    Raises:
        InputError: the folder belongs to other work, no scheduler answers, or workers keep dying.
    """
    numbered = list(enumerate(chunks))
    store = None if places.resume is None else Store(places.resume, identity)
    results = {} if store is None else dict(store.finished(len(numbered)))
    if results:
        _log.info("%s: %d of %d chunks are there already", places.resume, len(results), len(numbered))

    def report() -> None:
        if progress:
            progress(len(results))

    report()
    waiting = ((number, make()) for number, make in numbered if number not in results)
    with contextlib.closing(_run(task, shared, waiting, places)) as done:
        for number, arrays in done:
            results[number] = arrays
            if store is not None:
                store.keep(number, arrays)
            report()
    return [results[number] for number, _ in numbered]


def _run(task: Task, shared: Any, chunks: Iterator[Chunk], places: Places) -> Running:
    if places.scheduler is not None:
        return _on_cluster(task, shared, chunks, places.scheduler)
    if places.workers:
        return _in_processes(task, shared, chunks, places.workers)
    return ((number, task(shared, chunk)) for number, chunk in chunks)


# --- Processes of this computer -----------------------------------------------------------------------------

_shared: Any = None


def _start(shared: Any) -> None:
    global _shared
    import signal

    from pysim.threads import one_thread

    # Ctrl-C reaches the whole group of processes; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    one_thread()
    _shared = shared


def _work(task: Task, chunk: Any) -> Arrays:
    return task(_shared, chunk)


def _in_processes(task: Task, shared: Any, chunks: Iterator[Chunk], workers: int) -> Running:
    """Results as they come. When a worker dies, its pool goes with it: another takes over what was not finished."""
    undone: dict[int, Any] = {}
    deaths = 0
    while True:
        # Not forked: a copy of a process whose threads hold locks waits for them for ever.
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(shared,)
        )
        futures: dict[Future[Arrays], int] = {}
        try:
            for number, chunk in undone.items():
                futures[pool.submit(_work, task, chunk)] = number
            while True:
                for number, chunk in islice(chunks, max(0, AHEAD * workers - len(futures))):
                    undone[number] = chunk
                    futures[pool.submit(_work, task, chunk)] = number
                if not futures:
                    return
                for future in wait(futures, return_when=FIRST_COMPLETED).done:
                    arrays = future.result()
                    number = futures.pop(future)
                    del undone[number]
                    deaths = 0
                    yield number, arrays
        except BrokenProcessPool:
            deaths = _another_death(deaths, "a worker process died")
        finally:
            _end(pool)


def _end(pool: ProcessPoolExecutor) -> None:
    """End a pool without waiting for what its processes are at."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _another_death(deaths: int, what: str) -> int:
    if deaths + 1 >= MOST_DEATHS:
        raise InputError(
            f"{what}, {MOST_DEATHS} times without finishing a chunk in between",
            hint="too little memory, perhaps: use fewer workers; or a program that asks for workers lacks its"
            ' `if __name__ == "__main__":`',
        )
    _log.warning("%s: its chunks are done again", what)
    return deaths + 1


# --- A Dask cluster -----------------------------------------------------------------------------------------


def _same(shared: Any) -> Any:
    return shared


def _work_on_cluster(task: Task, shared: Any, chunk: Any) -> Arrays:
    from pysim.threads import one_thread

    one_thread()
    return task(shared, chunk)


def _on_cluster(task: Task, shared: Any, chunks: Iterator[Chunk], address: str) -> Running:
    """Results as they come. The scheduler itself does again what was on a worker that died."""
    require("--scheduler", "distributed")
    from distributed import Client, as_completed
    from distributed.scheduler import KilledWorker

    with _connected(Client, address) as client, warnings.catch_warnings():
        # Weights of megabytes are sent once: as the result of a task, which a lost worker cannot take with it.
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        common = client.submit(_same, shared, pure=False)
        undone: dict[int, Any] = {}
        numbers: dict[str, int] = {}
        deaths = 0

        def submit(number: int, chunk: Any) -> Any:
            future = client.submit(_work_on_cluster, task, common, chunk, pure=False)
            undone[number], numbers[future.key] = chunk, number
            return future

        def more() -> list[Any]:
            threads = max(1, sum(client.nthreads().values()))
            return [submit(*each) for each in islice(chunks, max(0, AHEAD * threads - len(undone)))]

        queue = as_completed(more())
        for future in queue:
            number = numbers.pop(future.key)
            try:
                arrays = future.result()
            except KilledWorker:
                deaths = _another_death(deaths, f"{address}: workers died")
                queue.add(submit(number, undone[number]))
                continue
            except ModuleNotFoundError as error:
                raise InputError(
                    f"{address}: a worker cannot import {error.name}", hint="install the same edgemoe there"
                ) from None
            del undone[number]
            deaths = 0
            for another in more():
                queue.add(another)
            yield number, arrays


@contextlib.contextmanager
def _connected(client: Any, address: str) -> Iterator[Any]:
    # What the connection says of itself while it closes is of no use to anybody.
    for name in ("distributed.client", "distributed.comm", "distributed.core"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        connection = client(address, timeout=SHORT_ADDRESS_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--scheduler {address}: no Dask scheduler answers: {error}",
            hint="`dask scheduler` prints its address, such as tcp://10.0.0.1:8786",
        ) from None
    try:
        if not connection.nthreads():
            _log.warning("%s: the scheduler has no workers yet", address)
        with connection.as_current():
            yield connection
    finally:
        connection.close()


# --- What is done -------------------------------------------------------------------------------------------

_IDENTITY = "run.json"


class Store:
    """Folder of finished chunks: `run.json` says of what, and each chunk is an `.npz` file."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """Open a folder of the same work, or make one.

        Raises:
            InputError: the folder is of other work, or no such folder.
        """
        self._folder = folder
        wanted = json.loads(json.dumps(identity))
        file = folder / _IDENTITY
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            with new_file(file) as temporary:
                temporary.write_text(json.dumps(wanted, indent=1) + "\n")
            return
        if not file.is_file():
            raise InputError(f"{folder}: not a folder of an interrupted run", hint="name a new folder")
        found = read_json(file, hint="remove the folder to begin anew")
        if found != wanted:
            kept = found if isinstance(found, dict) else {}
            other = sorted(key for key in {*kept, *wanted} if kept.get(key) != wanted.get(key))
            raise InputError(
                f"{folder}: made for another run: {', '.join(other)} differ",
                hint="name another folder, or remove this one to begin anew",
            )

    def finished(self, count: int) -> Iterator[Done]:
        """Chunks that are there, of `count`; those that cannot be read are as good as not done."""
        for number in range(count):
            path = self._path(number)
            if path.is_file():
                try:
                    arrays = read_npz(path)
                except InputError:
                    path.unlink()
                else:
                    yield number, arrays

    def keep(self, number: int, arrays: Arrays) -> None:
        """Write a chunk, whole or not at all."""
        path = self._path(number)
        if not path.exists():
            with new_file(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]

    def _path(self, number: int) -> Path:
        return self._folder / f"chunk-{number:06}.npz"
