#!/usr/bin/env python3
"""The table of `fafnir sim check` once more, by nobody who knows how the market is made.

Reads what a market has published and computes every row that can be seen from outside:

    fafnir sim check --seed 1 --record market.csv
    python3 table.py market.csv AAPL=150 MSFT=140 NVDA=280 TSLA=330 AMZN=180   # volatility_bp of seeds

Rows: `trade,session,second,symbol,side,price,quantity,order` and `best,session,minute,symbol,bid,ask`.
"""

import math
import sys
from collections import defaultdict
from statistics import fmean

MINUTES, FIVES = 390, 78
INF = math.inf


def read(path):
    """By symbol: sessions of minutes' (bid, ask), and the orders (session, second, sign) that came to the quotes."""
    best, orders, last = defaultdict(lambda: defaultdict(dict)), defaultdict(list), {}
    for line in open(path, encoding="utf-8"):
        kind, session, at, symbol, *rest = line.rstrip("\n").split(",")
        if kind == "best":
            bid, ask = (float(price) if price else None for price in rest)
            best[symbol][int(session)][int(at)] = (bid, ask)
        elif kind == "trade" and last.get(symbol) != rest[3]:
            last[symbol] = rest[3]
            orders[symbol].append((int(session), int(at), 1 if rest[0] == "B" else -1))
    return best, orders


def middles(sessions):
    """Each session's middles; where a side is empty, the last one."""
    out, last = [], None
    for session in sorted(sessions):
        row = []
        for minute in range(MINUTES + 1):
            bid, ask = sessions[session].get(minute, (None, None))
            last = (bid + ask) / 2 if bid and ask else last
            row.append(last)
        out.append(row)
    return out


def returns(sessions, minutes):
    return [[math.log(b / a) for a, b in zip(row[::minutes], row[minutes::minutes])] for row in sessions]


def flat(rows):
    return [value for row in rows for value in row]


def pvariance(values):
    mean = fmean(values)
    return fmean((value - mean) ** 2 for value in values)


def kurtosis(values):
    mean, variance = fmean(values), pvariance(values)
    return fmean((v - mean) ** 4 for v in values) / variance**2 - 3


def hill(values):
    sizes = sorted((abs(v) for v in values if v), reverse=True)
    count = len(values) // 20
    return count / sum(math.log(size / sizes[count]) for size in sizes[:count])


def correlation(a, b):
    mean_a, mean_b = fmean(a), fmean(b)
    product = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b))
    return product / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


def autocorrelation(rows, lag):
    """Within the rows: what lies over a night is no pair."""
    every = flat(rows)
    mean, variance = fmean(every), pvariance(every)
    pairs = [(a - mean) * (b - mean) for row in rows for a, b in zip(row, row[lag:])]
    return fmean(pairs) / variance


def counts(orders, sessions):
    by_five = [[0] * FIVES for _ in range(sessions)]
    for session, second, _ in orders:
        by_five[session][min((max(second, 1) - 1) // 300, FIVES - 1)] += 1
    return by_five


def u_shape(by_five):
    mean = [fmean(row[n] for row in by_five) for n in range(FIVES)]
    return min(fmean(mean[:6]), fmean(mean[-6:])) / fmean(mean[24:54])


def spreads(sessions):
    """Mean spread of each five minutes, and the root of their squared returns."""
    wide, moved = [], []
    for row, session in zip(middles(sessions), sorted(sessions)):
        for five in range(FIVES):
            minutes = range(five * 5 + 1, five * 5 + 6)
            best = [sessions[session].get(minute, (None, None)) for minute in minutes]
            known = [ask - bid for bid, ask in best if bid and ask]
            if known:
                wide.append(fmean(known))
                moved.append(math.sqrt(sum(math.log(row[m] / row[m - 1]) ** 2 for m in minutes)))
    return wide, moved


def table(best, orders, volatility):
    symbols = [symbol for symbol in volatility if symbol in best]
    mids = {s: middles(best[s]) for s in symbols}
    minute = {s: returns(mids[s], 1) for s in symbols}
    sides = {s: [[sign for _, _, sign in orders[s]]] for s in symbols}
    fives = {s: counts(orders[s], len(mids[s])) for s in symbols}
    wide = {s: spreads(best[s]) for s in symbols}

    def pooled(minutes):
        rows = [flat(returns(mids[s], minutes)) for s in symbols]
        return kurtosis([r / math.sqrt(pvariance(row)) for row in rows for r in row])

    def of_day(symbol):
        square = sum(r * r for r in flat(returns(mids[symbol], 5))) / len(mids[symbol])
        return math.sqrt(square) * 1e4 / volatility[symbol] * 100

    def quoted(symbol):
        every = [pair for session in best[symbol].values() for pair in session.values()]
        return 100 * sum(bool(bid and ask) for bid, ask in every) / len(every)

    each = lambda f: [f(s) for s in symbols]
    pairs = [(a, b) for n, a in enumerate(symbols) for b in symbols[n + 1 :]]
    sizes = {s: [[abs(r) for r in row] for row in minute[s]] for s in symbols}
    hour, one = pooled(60), pooled(1)
    yield "volatility of a session, % of the listing's", 80, 120, each(of_day)
    yield "excess kurtosis, 1 min", 3, INF, each(lambda s: kurtosis(flat(minute[s])))
    yield "excess kurtosis, 1 h, pooled, below that of 1 min", -INF, one, [hour]
    yield "Hill exponent, 1 min", 2.5, 5, each(lambda s: hill(flat(minute[s])))
    largest = lambda s: max(abs(autocorrelation(minute[s], lag)) for lag in range(2, 21))
    yield "largest |autocorrelation| of returns, lags 2-20", 0, 0.05, each(largest)
    yield "autocorrelation of |returns|, lag 10", 0.1, 0.3, each(lambda s: autocorrelation(sizes[s], 10))
    yield "autocorrelation of order sides, lag 1", 0.2, INF, each(lambda s: autocorrelation(sides[s], 1))
    yield "autocorrelation of order sides, lag 20", 0.05, INF, each(lambda s: autocorrelation(sides[s], 20))
    bursts = lambda s: pvariance(flat(fives[s])) / fmean(flat(fives[s]))
    yield "orders in 5 min, variance over mean", 2, INF, each(bursts)
    yield "orders, ends over middle of the session", 1.2, INF, each(lambda s: u_shape(fives[s]))
    together = [correlation(flat(minute[a]), flat(minute[b])) for a, b in pairs]
    yield "mean correlation of two symbols, 1 min", 0.2, 0.5, [fmean(together)] if together else []
    narrow = lambda s: fmean(wide[s][0]) / fmean(flat(mids[s])) * 1e4
    yield "spread at the ends of minutes, mean, basis points", 0.1, 3, each(narrow)
    yield "correlation of spread and volatility, 5 min", 0.2, INF, each(lambda s: correlation(*wide[s]))
    yield "two-sided, % of the minutes' ends", 99.5, 100, each(quoted)


def main():
    path, *told = sys.argv[1:]
    volatility = {symbol: float(bp) for symbol, bp in (text.split("=") for text in told)}
    best, orders = read(path)
    met = total = 0
    print(f"{'':50}" + "".join(f"{symbol:>9}" for symbol in volatility))
    for name, low, high, values in table(best, orders, volatility):
        good = bool(values) and all(low <= value <= high for value in values)
        met, total = met + good, total + 1
        print(f"{name:50}" + "".join(f"{v:9.3f}" for v in values) + ("" if good else "  missed"))
    print(f"{met} of {total} rows met")
    return met != total


if __name__ == "__main__":
    sys.exit(main())
