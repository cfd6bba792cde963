"""`risk.py SYSTEM blocks|values COUNT`: the portfolio of `examples/risk` with QuantLib-Python, in 2,550 tasks of 20 trades and 10 scenarios or
in 501,000 tasks of one valuation; a smaller COUNT takes the first of them. A whole run is compared with the expected measures.
`risk.py tidemill bundled 0`: the same by Tidemill's own pricing engine. The folder is on PYTHONPATH."""

import csv
import json
import os
import struct
import sys
import time

from systems import SYSTEMS, Tidemill

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../examples/risk")
TRADES, SCENARIOS = 1_000, 501
PART = 5


def blocks():
    return [(a, a + 20, s, min(s + 10, SCENARIOS)) for a in range(0, TRADES, 20) for s in range(0, SCENARIOS, 10)]


def rows_of_blocks(tasks, results):
    rows = [[None] * TRADES for _ in range(SCENARIOS)]
    for (a, b, s, _), part in zip(tasks, results):
        for offset, values in enumerate(part):
            rows[s + offset][a:b] = values
    return rows


def valuations():
    return [(trade, scenario) for scenario in range(SCENARIOS) for trade in range(TRADES)]


def rows_of_valuations(tasks, results):
    del tasks
    return [results[at : at + TRADES] for at in range(0, len(results), TRADES)]


def check(rows):
    """How far the measures are from the expected ones, in parts of them."""
    import quantlib_portfolio

    with open(os.path.join(FOLDER, "trades.csv"), encoding="utf-8") as file:
        got = quantlib_portfolio.measures(list(csv.DictReader(file)), rows)
    with open(os.path.join(FOLDER, "expected_nodes.csv"), encoding="utf-8") as file:
        expected = {row["node"]: (float(row["VaR99"]), float(row["ES97.5"])) for row in csv.DictReader(file)}
    assert got.keys() == expected.keys()
    return max(abs(g - e) / abs(e) for node in got for g, e in zip(got[node], expected[node]))


def quantlib(name, kind, count):
    import quantlib_portfolio as mine

    if name.startswith("tidemill"):
        import cloudpickle

        cloudpickle.register_pickle_by_value(mine)
    make, function, rows = {"blocks": (blocks, mine.block, rows_of_blocks), "values": (valuations, mine.value, rows_of_valuations)}[kind]
    tasks = make()[:count]
    system = SYSTEMS[name](mine.Portfolio, mine.read(FOLDER))
    try:
        # Every process has its portfolio before the clock starts.
        list(system.map(function, tasks[:1] * 100))
        start, cpu = time.perf_counter(), time.process_time()
        results = list(system.map(function, tasks))
        answer = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
        answer.update(count=len(tasks), note=system.note(), session=getattr(system, "session", None))
    finally:
        system.close()
    assert len(results) == len(tasks)
    if len(tasks) == len(make()):
        answer["off"] = check(rows(tasks, results))
        assert answer["off"] < 1e-9, f"a measure is off by {answer['off']}"
    return answer


def bundled():
    """The bundled engine by its function `value`, a block of a few trades to a task."""
    import quantlib_portfolio

    texts = quantlib_portfolio.read(FOLDER)
    data = {"static": texts["static"], "market_history": texts["history"], "trades": texts["trades"]}
    start = time.perf_counter()
    system = Tidemill(engine="pricing", input="json", output="bytes", data=data)
    try:
        tasks = [{"trades": [a, a + PART], "scenarios": [0, SCENARIOS]} for a in range(0, TRADES, PART)]
        results = list(system.map("value", tasks))
        seconds = time.perf_counter() - start
    finally:
        system.close()
    by_trade = []
    for result in results:
        values = struct.unpack(f"<{len(result) // 8}d", result)
        by_trade += [values[at : at + SCENARIOS] for at in range(0, len(values), SCENARIOS)]
    # American options depend on the scheme, and so do the nodes that they are in.
    off = check([list(row) for row in zip(*by_trade)])
    assert off < 3e-3, f"a measure is off by {off}"
    return {"seconds": seconds, "count": len(tasks), "off": off, "note": system.note(), "session": system.session}


if __name__ == "__main__":
    name, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print(json.dumps(bundled() if kind == "bundled" else quantlib(name, kind, count)))
