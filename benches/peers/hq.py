"""HyperQueue through its Python wheel: server and a worker of two cores in this process."""
import json, os, sys, tempfile, time
from importlib.metadata import version

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

n = int(sys.argv[1])
os.chdir(tempfile.mkdtemp())


def run(client, count):
    job = Job()
    for _ in range(count):
        job.program(["/bin/true"], stdout=None, stderr=None)
    submitted = client.submit(job)
    assert client.wait_for_jobs([submitted], False)


with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=2))
    client = cluster.client()
    run(client, 20)
    start = time.perf_counter()
    run(client, n)
    wall = time.perf_counter() - start
print(json.dumps({"per_s": n / wall, "note": f"hyperqueue {version('hyperqueue')} by its Python API, no journal, no output kept"}))
