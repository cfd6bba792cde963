"""The portfolio of this folder with QuantLib-Python: what a quant brings to the grid.

    import cloudpickle, quantlib_portfolio as mine
    from tidemill import Grid

    cloudpickle.register_pickle_by_value(mine)
    with Grid(setup=mine.Portfolio, data=mine.read(folder)) as grid:
        pairs = [(trade, scenario) for scenario in range(501) for trade in range(1_000)]
        values = list(grid.map(mine.value, pairs))

Needs `pip install QuantLib`; the expected values were made with version 1.44.
"""

import csv
import io
import json
import math
import os

import QuantLib as ql

TENORS = ("2W", "1M", "3M", "6M", "1Y", "2Y", "3Y", "5Y", "10Y", "15Y", "20Y", "30Y")
CURRENCIES = ("USD", "EUR")
EQUITIES = ("SPX", "COMP", "WTI")


def read(folder):
    """The three inputs as text: what a session hands to every engine."""
    names = {"static": "static.json", "history": "market_history.csv", "trades": "trades.csv"}
    return {key: open(os.path.join(folder, name), encoding="utf-8").read() for key, name in names.items()}


def value(portfolio, pair):
    """One valuation: one task."""
    return portfolio.value(*pair)


def block(portfolio, bounds):
    """Trades `a..b` under scenarios `s..t`, one row for each scenario: one task of a run that is cut by hand."""
    a, b, s, t = bounds
    return portfolio.block(a, b, s, t)


def days():
    """Act/365. No global: this module travels to engines by value, and what QuantLib has made cannot."""
    return ql.Actual365Fixed()


def day(text):
    """A date as QuantLib has it."""
    year, month, of_month = map(int, text.split("-"))
    return ql.Date(of_month, month, year)


class Portfolio:
    """Trades, scenarios and conventions, read once; instruments are built when they are first asked for, and stay."""

    def __init__(self, texts):
        self.static = json.loads(texts["static"])
        self.trades = list(csv.DictReader(io.StringIO(texts["trades"])))
        self.scenarios = scenarios(texts["history"])
        self.today = day(self.static["asof"])
        ql.Settings.instance().evaluationDate = self.today
        self.calendars = {name: calendar(name, holidays) for name, holidays in self.static["calendars"].items()}
        self.books = {}

    def book(self, first, last):
        """Trades `first..last` on a market of their own. A market tells all its instruments of every change."""
        if (first, last) not in self.books:
            self.books[first, last] = Book(self, self.trades[first:last])
        return self.books[first, last]

    def block(self, first, last, scenario, until):
        """Values of some trades under some scenarios, one row for each scenario."""
        book = self.book(first, last)
        return [book.values(s) for s in range(scenario, until)]

    def value(self, trade, scenario):
        """The value of one trade. The market stays as it is until a task wants another scenario: order tasks by scenario."""
        book = self.book(0, len(self.trades))
        book.move_to(scenario)
        return book.value(trade)


def scenarios(history):
    """Today's market, and today's times each day's change."""
    rows = [{k: float(v) for k, v in row.items() if k != "date"} for row in csv.DictReader(io.StringIO(history))]
    today = rows[-1]
    moved = ({k: today[k] * after[k] / before[k] for k in today} for before, after in zip(rows, rows[1:]))
    return [today, *moved]


def calendar(name, holidays):
    """Saturdays, Sundays and these days."""
    made = ql.BespokeCalendar(name)
    made.addWeekend(ql.Saturday)
    made.addWeekend(ql.Sunday)
    for holiday in holidays:
        made.addHoliday(day(holiday))
    return made


class Market:
    """Quotes and curves. A scenario changes them in place, and QuantLib values again what depends on them."""

    def __init__(self, portfolio):
        static, self.today = portfolio.static, portfolio.today
        self.constants = static
        self.dates = [self.today] + [self.today + ql.Period(t) for t in TENORS]
        self.curves = {c: ql.RelinkableYieldTermStructureHandle() for c in CURRENCIES}
        self.spot = {name: ql.SimpleQuote(1.0) for name in (*EQUITIES, "EURUSD")}
        self.volatility = {name: ql.SimpleQuote(0.2) for name in self.spot}
        self.move_to(portfolio.scenarios[0])
        self.swap_index = {c: self.index(portfolio, c) for c in CURRENCIES}
        flat = {n: ql.YieldTermStructureHandle(ql.FlatForward(self.today, static["div_yield"][n], days())) for n in EQUITIES}
        self.process = {name: self.black_scholes(name, flat.get(name, self.curves["EUR"])) for name in self.spot}

    def black_scholes(self, name, dividend):
        volatility = ql.BlackConstantVol(self.today, ql.NullCalendar(), ql.QuoteHandle(self.volatility[name]), days())
        volatility = ql.BlackVolTermStructureHandle(volatility)
        return ql.BlackScholesMertonProcess(ql.QuoteHandle(self.spot[name]), dividend, self.curves["USD"], volatility)

    def index(self, portfolio, currency):
        terms = portfolio.static["swaps"][currency]
        made = ql.IborIndex(
            "X" + currency, ql.Period(3, ql.Months), 0, ql.USDCurrency(), portfolio.calendars[terms["calendar"]],
            ql.ModifiedFollowing, False, ql.Actual360(), self.curves[currency],
        )
        made.addFixing(self.today, terms["first_fixing"], True)
        return made

    def move_to(self, scenario):
        for currency in CURRENCIES:
            factors = [1.0] + [scenario[f"{currency}_DF_{t}"] for t in TENORS]
            self.curves[currency].linkTo(ql.DiscountCurve(self.dates, factors, days()))
        vix = scenario["VIX"] / 100
        for name in EQUITIES:
            self.spot[name].setValue(scenario[name])
        self.spot["EURUSD"].setValue(1 / scenario["USDEUR"])
        constants = self.constants["vol"]
        moved = {"SPX": vix, "COMP": 1.15 * vix, "WTI": constants["WTI"], "EURUSD": constants["EURUSD"]}
        for name, volatility in moved.items():
            self.volatility[name].setValue(volatility)
        self.variance, self.heston = vix * vix, None

    def heston_engine(self):
        """Its first variance moves with VIX, so each scenario has a model of its own."""
        if self.heston is None:
            h, spx = self.constants["heston"], self.process["SPX"]
            process = ql.HestonProcess(
                spx.riskFreeRate(), spx.dividendYield(), ql.QuoteHandle(self.spot["SPX"]),
                self.variance, h["kappa"], h["theta"], h["sigma"], h["rho"],
            )
            self.heston = ql.AnalyticHestonEngine(ql.HestonModel(process), 144)
        return self.heston


class Book:
    """Instruments on one market."""

    def __init__(self, portfolio, trades):
        self.portfolio, self.scenario = portfolio, 0
        self.market = Market(portfolio)
        self.instruments = [(float(trade["qty"]), build(portfolio, self.market, trade)) for trade in trades]

    def move_to(self, scenario):
        if scenario != self.scenario:
            self.market.move_to(self.portfolio.scenarios[scenario])
            self.scenario = scenario

    def value(self, at):
        quantity, npv = self.instruments[at]
        return quantity * npv()

    def values(self, scenario):
        self.move_to(scenario)
        return [quantity * npv() for quantity, npv in self.instruments]


def build(portfolio, market, trade):
    """What values a trade of one unit."""
    kind, name, percent = trade["type"], trade["underlying"], float(trade["k_pct"])
    if kind == "swap":
        return swap(portfolio, market, trade)
    today, process = portfolio.scenarios[0], market.process[name]
    spot = 1 / today["USDEUR"] if name == "EURUSD" else today[name]
    strike = spot * percent
    expiry = portfolio.calendars["NYSE"].adjust(portfolio.today + ql.Period(trade["tenor"]), ql.Following)
    if kind == "fxfwd":
        euro, dollar, rate = market.curves["EUR"], market.curves["USD"], market.spot["EURUSD"]
        return lambda: rate.value() * euro.discount(expiry) - strike * dollar.discount(expiry)
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if trade["cp"] == "C" else ql.Option.Put, strike)
    if kind == "american":
        option = ql.VanillaOption(payoff, ql.AmericanExercise(portfolio.today, expiry))
        option.setPricingEngine(ql.FdBlackScholesVanillaEngine(process, *portfolio.static["american_grid"]))
        return option.NPV
    european = ql.EuropeanExercise(expiry)
    if kind == "barrier_down_out":
        option = ql.BarrierOption(ql.Barrier.DownOut, spot * float(trade["barrier_pct"]), 0.0, payoff, european)
        option.setPricingEngine(ql.AnalyticBarrierEngine(process))
        return option.NPV
    option = ql.VanillaOption(payoff, european)
    if kind == "heston":
        return lambda: with_engine(option, market.heston_engine())
    option.setPricingEngine(ql.AnalyticEuropeanEngine(process))
    return option.NPV


def with_engine(option, engine):
    option.setPricingEngine(engine)
    return option.NPV()


def swap(portfolio, market, trade):
    """Fixed yearly, 30/360, against three months, Act/360. P pays the fixed rate."""
    currency = trade["underlying"]
    holidays = portfolio.calendars[portfolio.static["swaps"][currency]["calendar"]]
    end = portfolio.today + ql.Period(trade["tenor"])
    modified, forward = ql.ModifiedFollowing, ql.DateGeneration.Forward
    fixed, floating = (
        ql.Schedule(portfolio.today, end, ql.Period(every), holidays, modified, modified, forward, False) for every in ("1Y", "3M")
    )
    side = ql.Swap.Payer if trade["cp"] == "P" else ql.Swap.Receiver
    made = ql.VanillaSwap(
        side, 1.0, fixed, float(trade["k_pct"]), ql.Thirty360(ql.Thirty360.BondBasis),
        floating, market.swap_index[currency], 0.0, ql.Actual360(),
    )
    made.setPricingEngine(ql.DiscountingSwapEngine(market.curves[currency]))
    return made.NPV


def measures(trades, rows):
    """Value at risk 99 % and expected shortfall 97.5 % of every book, desk and the firm, from one row of values for each scenario, the first
    of which is today. Profit and loss is summed over trades in each scenario first; order statistics come last."""
    nodes = {}
    for at, trade in enumerate(trades):
        for node in (f"{trade['desk']}/{trade['book']}", trade["desk"], "FIRM"):
            nodes.setdefault(node, []).append(at)
    out = {}
    for node, members in nodes.items():
        profit = sorted(math.fsum(row[at] - rows[0][at] for at in members) for row in rows[1:])
        worst, tail = math.ceil(0.01 * len(profit)), 0.025 * len(profit)
        whole = int(tail)
        out[node] = -profit[worst - 1], -(sum(profit[:whole]) + (tail - whole) * profit[whole]) / tail
    return out
