"""One thread for a process: what a worker beside others, and a fair measurement, want."""

from __future__ import annotations

# BLAS is limited where it is loaded already: numpy has its own, and so has scipy.
import scipy.linalg  # noqa: F401
from numba import config
from threadpoolctl import threadpool_limits


def one_blas_thread() -> threadpool_limits:
    """A context in which BLAS has one thread.

    Many products of small matrices take half the time so: waiting for a second thread costs more than it does. Results
    do not depend on the number of cores either.
    """
    return threadpool_limits(1, user_api="blas")


def one_thread() -> None:
    """Keep BLAS, and the threads of kernels, of this process to one from now on."""
    threadpool_limits(1)
    config.NUMBA_NUM_THREADS = 1
