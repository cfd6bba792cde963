"""A small model for the sessions of the tests and pictures: European options under shocks of the market, with the standard library alone.

``value`` prices one trade in one scenario and says what it has made or lost since today. Black and Scholes, "The Pricing of Options and
Corporate Liabilities" (1973). Shocks are drawn once in each engine from a seed, with tails that are fatter than normal, so that every engine
has the same ones.
"""

import math
import random
import time

__version__ = "2026.11"

BOOKS = ("EQ-VAN-1", "EQ-VAN-2", "EQ-EXO-1", "FX-1")


def load(data):
    """The warm state: trades and scenarios."""
    draw = random.Random(data["seed"])
    trades = [
        {
            "book": BOOKS[n % len(BOOKS)],
            "spot": 60 + 80 * draw.random(),
            "strike": 60 + 80 * draw.random(),
            "years": 0.1 + 2 * draw.random(),
            "volatility": 0.12 + 0.3 * draw.random(),
            "quantity": draw.choice((-400, -150, 120, 300, 500)),
        }
        for n in range(data["trades"])
    ]
    for lost in data.get("without_volatility", ()):
        trades[lost]["volatility"] = None
    fat = lambda: draw.gauss(0, 1) * math.sqrt(4 / draw.gammavariate(2, 2))
    scenarios = [(0.011 * fat(), 0.03 * fat()) for _ in range(data["scenarios"])]
    return trades, scenarios, data.get("milliseconds", 0) / 1000


def value(state, task):
    """``task`` is the number of a trade and that of a scenario."""
    trades, scenarios, seconds = state
    number, at = task
    trade = trades[number]
    if trade["volatility"] is None:
        raise ValueError(f"trade {number} has no volatility at strike {trade['strike']:.2f}")
    shock, vega = scenarios[at]
    until = time.perf_counter() + seconds * (0.5 + (number * 7 + at) % 13 / 12)
    now = call(trade, trade["spot"], trade["volatility"])
    then = call(trade, trade["spot"] * (1 + shock), max(0.01, trade["volatility"] + vega))
    while time.perf_counter() < until:
        call(trade, trade["spot"], trade["volatility"])
    return {"trade": number, "book": trade["book"], "scenario": at, "pnl": trade["quantity"] * (then - now)}


def call(trade, spot, volatility, rate=0.03):
    deviation = volatility * math.sqrt(trade["years"])
    d1 = (math.log(spot / trade["strike"]) + (rate + volatility**2 / 2) * trade["years"]) / deviation
    return spot * normal(d1) - trade["strike"] * math.exp(-rate * trade["years"]) * normal(d1 - deviation)


def normal(x):
    return math.erfc(-x / math.sqrt(2)) / 2
