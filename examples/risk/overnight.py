"""Value at risk over night: the portfolio in this folder, revalued by QuantLib on a grid.

    pip install QuantLib cloudpickle ../../python      # here; the workers' Python needs QuantLib and cloudpickle, too
    python overnight.py                                # finds the server of this machine

Every trade is one task in each scenario. A trade that cannot be valued, or whose value is no number, is named, and with it its book, its desk and the
firm are not known: it does not vanish from a sum.
"""

import argparse
import itertools
import math
import sys
from pathlib import Path

import cloudpickle
import quantlib_portfolio as portfolio
from tidemill import Grid

cloudpickle.register_pickle_by_value(portfolio)


def block(state, bounds):
    """Values of trades ``a..b`` under some scenarios, those of each scenario in turn. One that is no number is an error that names the trade."""
    first, last, scenarios = bounds
    values = []
    for scenario in scenarios:
        for trade in range(first, last):
            value = state.value(trade, scenario)
            if not math.isfinite(value):
                raise ValueError(f"the value of {state.trades[trade]['trade_id']} in scenario {scenario} is {value}")
            values.append(value)
    return values


def cut(trades, scenarios, size):
    """Tasks in the order in which engines move their market least often."""
    for at in range(0, len(scenarios), size[1]):
        for first in range(0, trades, size[0]):
            yield first, min(first + size[0], trades), scenarios[at : at + size[1]]


def run(data, trades, scenarios, size, name):
    """Values by trade and scenario, and errors by trade and scenario."""
    tasks = list(cut(len(trades), scenarios, size))
    values, errors = {}, {}
    with Grid(setup=portfolio.Portfolio, data=data, name=name) as grid:
        results = grid.map(block, tasks, return_exceptions=True)
        print(f"session {results.session}", file=sys.stderr, flush=True)
        for (first, last, some), found in zip(tasks, results):
            places = [(trade, scenario) for scenario, trade in itertools.product(some, range(first, last))]
            if isinstance(found, Exception):
                errors.update((place, found) for place in places)
            else:
                values.update(zip(places, found))
    return values, errors


def report(trades, scenarios, values, errors):
    """The measures of each book, each desk and the firm, as lines of CSV."""
    broken = {trade for trade, _ in errors}
    rows = [[values.get((trade, scenario), math.nan) for trade in range(len(trades))] for scenario in scenarios]
    yield "node,VaR99,ES97.5"
    for node, (risk, shortfall) in portfolio.measures(trades, rows).items():
        whole = not any(node in (f"{trades[t]['desk']}/{trades[t]['book']}", trades[t]["desk"], "FIRM") for t in broken)
        yield f"{node},{risk!r},{shortfall!r}" if whole else f"{node},not known,not known"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--folder", default=Path(__file__).parent, help="where the portfolio is")
    options.add_argument("--scenarios", help="such as 0,1,473 with 0, which is today, first; without it all")
    options.add_argument("--block", default="1x1", help="trades x scenarios of one task")
    options.add_argument("--name", default="overnight", help="of the session")
    options.add_argument("--values", type=Path, help="a file for every value, CSV")
    args = options.parse_args()
    data = portfolio.read(args.folder)
    state = portfolio.Portfolio(data)
    trades = state.trades
    scenarios = [int(s) for s in args.scenarios.split(",")] if args.scenarios else list(range(len(state.scenarios)))
    values, errors = run(data, trades, scenarios, [int(n) for n in args.block.split("x")], args.name)
    if args.values:
        lines = (f"{trades[trade]['trade_id']},{scenario},{value!r}\n" for (trade, scenario), value in sorted(values.items()))
        args.values.write_text("trade_id,scenario,value\n" + "".join(lines))
    for (trade, scenario), error in list(errors.items())[:10]:
        print(f"{trades[trade]['trade_id']} in scenario {scenario}: {error}", file=sys.stderr)
    print("\n".join(report(trades, scenarios, values, errors)))
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
