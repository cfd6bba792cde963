"""`products.py KIND=SCENARIOS...`: the trades of each kind of `examples/risk` with QuantLib-Python under so many scenarios; how long it took in
this process's own time, and what the values add up to. `longstaff_schwartz=PATHS` values one American put. The folder is on PYTHONPATH."""

import json
import os
import sys
import time

import QuantLib as ql
import quantlib_portfolio as mine

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../examples/risk")


def product(portfolio, kind, scenarios):
    trades = [trade for trade in portfolio.trades if trade["type"] == kind]
    book = mine.Book(portfolio, trades)
    book.values(1)
    start, sums = time.process_time(), []
    for scenario in range(scenarios):
        sums.append(sum(book.values(scenario)))
    return {"values": len(trades) * scenarios, "seconds": time.process_time() - start, "sum": sum(sums)}


def longstaff_schwartz(paths):
    """Spot and strike 100, rate 5 %, yield 2 %, volatility 20 %, a year, 50 dates."""
    today = ql.Settings.instance().evaluationDate
    days, none = ql.Actual365Fixed(), ql.NullCalendar()
    flat = lambda rate: ql.YieldTermStructureHandle(ql.FlatForward(today, rate, days))
    volatility = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, none, 0.2, days))
    spot = ql.QuoteHandle(ql.SimpleQuote(100.0))
    process = ql.BlackScholesMertonProcess(spot, flat(0.02), flat(0.05), volatility)
    option = ql.VanillaOption(ql.PlainVanillaPayoff(ql.Option.Put, 100.0), ql.AmericanExercise(today, today + 365))
    option.setPricingEngine(
        ql.MCAmericanEngine(process, "pseudorandom", timeSteps=50, requiredSamples=paths, seed=1, polynomOrder=3, nCalibrationSamples=paths)
    )
    start = time.process_time()
    value = option.NPV()
    return {"values": 1, "seconds": time.process_time() - start, "sum": value}


if __name__ == "__main__":
    portfolio = mine.Portfolio(mine.read(FOLDER))
    asked = [argument.split("=") for argument in sys.argv[1:]]
    made = {kind: longstaff_schwartz(int(n)) if kind == "longstaff_schwartz" else product(portfolio, kind, int(n)) for kind, n in asked}
    print(json.dumps({"products": made, "note": f"QuantLib {ql.__version__}"}))
