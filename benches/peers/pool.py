"""ProcessPoolExecutor with two processes, each of which runs /bin/true by subprocess."""
import json, platform, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor


def true(_):
    return subprocess.run(["/bin/true"]).returncode


if __name__ == "__main__":
    n = int(sys.argv[1])
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(true, range(10)))
        start = time.perf_counter()
        assert sum(f.result() for f in [pool.submit(true, i) for i in range(n)]) == 0
        wall = time.perf_counter() - start
    print(json.dumps({"per_s": n / wall, "note": f"Python {platform.python_version()}; nothing durable"}))
