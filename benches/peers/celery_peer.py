"""Celery with two prefork processes and a redis-server of its own that keeps nothing on disk; a result per task.
`celery_peer.py COUNT [plus_one]`: so many `/bin/true`, or calls of a function that does next to nothing."""
import json, os, socket, subprocess, sys, tempfile, time
from importlib.metadata import version

from celery import Celery
from celery.result import ResultSet


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


# The worker's process finds the port that this one has chosen.
PORT = int(os.environ.setdefault("BENCH_REDIS_PORT", free_port()))
app = Celery("celery_peer", broker=f"redis://127.0.0.1:{PORT}/0", backend=f"redis://127.0.0.1:{PORT}/1")
app.conf.update(worker_prefetch_multiplier=64, worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)


@app.task(name="true")
def true(_):
    return subprocess.run(["/bin/true"]).returncode


@app.task(name="plus_one")
def plus_one(x):
    return x + 1


def submit(task, n):
    with app.pool.acquire(block=True) as connection, app.amqp.Producer(connection) as producer:
        return [task.apply_async((i,), producer=producer) for i in range(n)]


def main(n, task=true):
    folder = tempfile.mkdtemp()
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    redis = subprocess.Popen(["redis-server", "--port", str(PORT), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder], **quiet)
    time.sleep(0.5)
    here = os.path.dirname(os.path.abspath(__file__))
    options = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    worker = subprocess.Popen([sys.executable, "-m", "celery", "-A", "celery_peer", "worker", "-c", "2", "-l", "ERROR", *options],
                              cwd=here, env={**os.environ, "C_FORCE_ROOT": "1", "PYTHONDONTWRITEBYTECODE": "1"}, **quiet)
    try:
        submit(task, 1)[0].get(timeout=60)
        start = time.perf_counter()
        results = [m["result"] for _, m in ResultSet(submit(task, n), app=app).iter_native(timeout=900)]
        wall = time.perf_counter() - start
        assert len(results) == n and sum(results) == (0 if task is true else n * (n + 1) // 2)
    finally:
        worker.terminate()
        worker.wait(60)
        redis.terminate()
        redis.wait(30)
    print(json.dumps({"per_s": n / wall, "note": f"celery {version('celery')}, redis in memory only"}))


if __name__ == "__main__":
    main(int(sys.argv[1]), plus_one if "plus_one" in sys.argv else true)
