"""The systems that run Python functions, each the way its own manual says, behind three calls: `map`, `one` and `close`.

Every system has two processes. `setup` makes, from `data`, what the function gets as its first argument, once in each process.
"""

import sys
from importlib.metadata import version

_state = None


def keep(setup, data):
    """What a process of a peer does before its first task."""
    global _state
    _state = setup(data)


def with_state(function, item):
    return function(_state, item)


class Plain:
    """One process, no system: the floor."""

    def __init__(self, setup=None, data=None):
        self.prepared = setup
        if setup:
            keep(setup, data)

    def call(self, function):
        return WithState(function) if self.prepared else function

    def map(self, function, items):
        return map(self.call(function), items)

    def one(self, function, item):
        return self.call(function)(item)

    def note(self):
        return f"Python {sys.version.split()[0]}, one process"

    def close(self):
        pass


class WithState:
    """A function that gets its process's state; it can be pickled wherever the function can."""

    def __init__(self, function):
        self.function = function

    def __call__(self, item):
        return with_state(self.function, item)


class Pool(Plain):
    """ProcessPoolExecutor, a future for each task."""

    def __init__(self, setup=None, data=None):
        from concurrent.futures import ProcessPoolExecutor

        self.prepared = setup
        start = dict(initializer=keep, initargs=(setup, data)) if setup else {}
        self.pool = ProcessPoolExecutor(2, **start)

    def map(self, function, items):
        function = self.call(function)
        futures = [self.pool.submit(function, item) for item in items]
        return (future.result() for future in futures)

    def one(self, function, item):
        return self.pool.submit(self.call(function), item).result()

    def note(self):
        return f"Python {sys.version.split()[0]}; nothing durable"

    def close(self):
        self.pool.shutdown()


class Chunked(Pool):
    """The same with 500 tasks packed into one by hand."""

    def map(self, function, items):
        return self.pool.map(self.call(function), items, chunksize=500)


class Halves(Pool):
    """Half of the tasks to each process at once: what two processes get out of the machine with nothing between them."""

    def map(self, function, items):
        return self.pool.map(self.call(function), items, chunksize=-(-len(items) // 2))

    def note(self):
        return f"Python {sys.version.split()[0]}; half of them in each of two processes, nothing between"


def on_ray(function, setup, item, data):
    if setup is None:
        return function(item)
    if _state is None:
        keep(setup, data)
    return with_state(function, item)


class Ray(Plain):
    """Ray on this machine; a process's state is made by its first task."""

    def __init__(self, setup=None, data=None):
        import ray

        ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", object_store_memory=512 << 20,
                 logging_level="ERROR", log_to_driver=False)
        self.ray, self.setup = ray, setup
        self.data = ray.put(data)

    def call(self, function):
        setup = self.setup

        def task(item, data):
            # Ray sends this function by value, and the state must be in the process's module.
            import systems

            return systems.on_ray(function, setup, item, data)

        remote = self.ray.remote(task)
        return lambda item: remote.remote(item, self.data)

    def map(self, function, items):
        call = self.call(function)
        return iter(self.ray.get([call(item) for item in items]))

    def one(self, function, item):
        if getattr(self, "last", None) is not function:
            self.last, self.last_call = function, self.call(function)
        return self.ray.get(self.last_call(item))

    def note(self):
        return f"ray {version('ray')}; nothing durable"

    def close(self):
        self.ray.shutdown()


class Dask(Plain):
    """Dask distributed, two worker processes of one thread."""

    def __init__(self, setup=None, data=None):
        import logging

        import dask
        from dask.distributed import Client, LocalCluster

        dask.config.set({"distributed.logging.distributed": "error"})
        self.prepared = setup
        self.cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1",
                                    silence_logs=logging.ERROR)
        self.client = Client(self.cluster)
        if setup:
            self.client.run(keep, setup, data)

    def map(self, function, items):
        return iter(self.client.gather(self.client.map(self.call(function), list(items), pure=False)))

    def one(self, function, item):
        return self.client.submit(self.call(function), item, pure=False).result()

    def note(self):
        return f"distributed {version('distributed')}; nothing durable"

    def close(self):
        self.client.close()
        self.cluster.close()


class Tidemill(Plain):
    """`Grid.map`: results come while tasks go."""

    def __init__(self, setup=None, data=None, **options):
        from tidemill import Grid

        state = {key: value for key, value in (("setup", setup), ("data", data)) if value is not None}
        self.grid = Grid(progress=False, name="bench", **state, **options)
        self.session = None

    def map(self, function, items):
        results = self.grid.map(function, items)
        self.session = results.session
        return results

    def one(self, function, item):
        return self.grid.submit(function, item).result()

    def note(self):
        return "every task and result durable"

    def close(self):
        self.grid.shutdown()


class TidemillFutures(Tidemill):
    """`Grid.submit`: a future for each task."""

    def map(self, function, items):
        futures = [self.grid.submit(function, item) for item in items]
        self.session = futures[0].session
        return (future.result() for future in futures)


SYSTEMS = {
    "plain": Plain,
    "pool": Pool,
    "chunked": Chunked,
    "halves": Halves,
    "ray": Ray,
    "dask": Dask,
    "tidemill": Tidemill,
    "tidemill-futures": TidemillFutures,
}
