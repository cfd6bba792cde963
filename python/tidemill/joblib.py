"""The grid behind joblib. Importing this module registers the backend::

    import joblib, tidemill.joblib

    with joblib.parallel_config(backend="tidemill"):
        joblib.Parallel()(joblib.delayed(price)(trade) for trade in trades)
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from joblib import register_parallel_backend
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

from .grid import Grid

_RUN = "tidemill.engine.payload:run_calls"


class TidemillBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """joblib's batches as tasks. Engines need not have joblib. Options are those of :class:`~tidemill.Grid`, or ``grid=``, one that is
    there already."""

    supports_retrieve_callback = True
    supports_return_generator = True
    supports_timeout = True
    default_n_jobs = -1

    def __init__(self, grid: Optional[Grid] = None, nesting_level: Optional[int] = None, inner_max_num_threads: Optional[int] = None, **options: Any) -> None:
        super().__init__(nesting_level=nesting_level or 0, inner_max_num_threads=inner_max_num_threads)
        self._given, self._options = grid, options
        self._grid: Optional[Grid] = None

    def effective_n_jobs(self, n_jobs: int) -> int:
        """How many batches joblib keeps under way. The grid has as many engines as it has: two batches for each of many."""
        return 256 if n_jobs is None or n_jobs < 0 else max(1, n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Called when a ``Parallel`` begins."""
        self.parallel = parallel
        self._grid = self._given or Grid(**self._options)
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Any, callback: Optional[Callable[[Any], None]] = None) -> Any:
        """Schedules a batch."""
        if self._grid is None:
            raise RuntimeError("the backend is used outside a Parallel")
        future = self._grid.submit(_RUN, list(func.items))
        if callback is not None:
            future.add_done_callback(callback)
        return future

    # Its name before joblib 1.5.
    apply_async = submit

    def retrieve_result_callback(self, out: Any) -> Any:
        """A batch's results."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stops what runs, after an error."""
        if self._grid is not None and self._grid is not self._given:
            self._grid.shutdown(wait=False, cancel_futures=True)
            self._grid = Grid(**self._options) if ensure_ready else None

    def terminate(self) -> None:
        """Called when a ``Parallel`` ends."""
        if self._grid is not None and self._grid is not self._given:
            self._grid.shutdown()
        self._grid = None


register_parallel_backend("tidemill", TidemillBackend)
