"""`calls.py SYSTEM COUNT`: a function that does next to nothing, called so often; prints how long it took.
`calls.py SYSTEM COUNT trips`: the same one after another, each when the one before has its result.
`calls.py SYSTEM COUNT collect`: results that lie ready, read again from the server (Tidemill alone)."""

import json
import resource
import sys
import time

from systems import SYSTEMS


#: Tasks of each of two rounds before the clock starts.
WARM = 200


def plus_one(x):
    return x + 1


def all_at_once(system, count):
    start, cpu = time.perf_counter(), time.process_time()
    total = sum(system.map(plus_one, range(count)))
    seconds = time.perf_counter() - start
    assert total == count * (count + 1) // 2, f"the results add up to {total}"
    return {"seconds": seconds, "cpu_seconds": time.process_time() - cpu, "ended_us": time.time() * 1e6}


def one_by_one(system, count):
    clock, took = time.perf_counter, []
    for i in range(count):
        start = clock()
        assert system.one(plus_one, i) == i + 1
        took.append(1e3 * (clock() - start))
    took.sort()
    return {"seconds": sum(took) / 1e3, "median_ms": took[count // 2], "p99_ms": took[int(count * 0.99)]}


def collect(system, count):
    from tidemill import Session

    made = all_at_once(system, count)
    start = time.perf_counter()
    seen = total = 0
    for _, value in Session.attach(system.session).results(after=0, wait=False):
        seen, total = seen + 1, total + value
    seconds = time.perf_counter() - start
    assert (seen, total) == (count + 2 * WARM, count * (count + 1) // 2 + WARM * (WARM + 1)), f"{seen} results add up to {total}"
    return {"seconds": seconds, "made_seconds": made["seconds"]}


if __name__ == "__main__":
    name, count, what = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "all"
    system = SYSTEMS[name]()
    try:
        for _ in range(2):
            assert sum(system.map(plus_one, range(WARM))) == WARM * (WARM + 1) // 2
        answer = {"all": all_at_once, "trips": one_by_one, "collect": collect}[what](system, count)
        answer.update(count=count, note=system.note(), session=getattr(system, "session", None),
                      client_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    finally:
        system.close()
    print(json.dumps(answer))
