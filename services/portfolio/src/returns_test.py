"""The returns of courses by libraries of others: empyrical chains what was gained between flows, pyxirr finds the rate.

The argument has a course per word: `day,worth before,flow` joined by `;`, the last one being the end. Prints a line each.
"""
import datetime
import sys

import empyrical
import pandas
import pyxirr

for word in sys.argv[1].split(" "):
    events = [tuple(map(int, event.split(","))) for event in word.split(";")]
    gains = [end[1] / (start[1] + start[2]) - 1 for start, end in zip(events, events[1:])]
    start = datetime.date(2026, 6, 1)
    dates = [start + datetime.timedelta(days=day) for day, _, _ in events]
    amounts = [-flow for _, _, flow in events[:-1]] + [events[-1][1]]
    print(empyrical.cum_returns_final(pandas.Series(gains)), pyxirr.xirr(dates, amounts))
