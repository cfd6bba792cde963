"""Adds up the values of a session as a tree of tasks: each result in one task, then four and four of those, until one is left."""

import json
import sys

from tidemill import Grid, Session

LARGEST = 10


def part(rows):
    """Of some policies: how many, reserves, their squares, claims, claims by duration, and the largest reserves."""
    largest = sorted(((row["reserve"], row["policy"]) for row in rows), reverse=True)[:LARGEST]
    reserves = [row["reserve"] for row in rows]
    weighted = sum(row["claims"] * row["duration"] for row in rows)
    return len(rows), sum(reserves), sum(r * r for r in reserves), sum(row["claims"] for row in rows), weighted, largest


def merge(parts):
    *sums, largest = zip(*parts)
    return (*map(sum, sums), sorted((pair for pairs in largest for pair in pairs), reverse=True)[:LARGEST])


def main(session):
    values = dict(Session.attach(session, output="json").results(0, errors="raise"))
    with Grid(name="tree") as grid:
        parts = [grid.submit(part, rows) for _, rows in sorted(values.items())]
        count, total, squares, claims, weighted, largest = grid.reduce(merge, parts, fan_in=4).result()
        numbers = sorted(future.task for future in parts)
    print(json.dumps({
        "count": count, "sum": total, "squares": squares, "duration": weighted / claims, "largest": [policy for _, policy in largest],
        "parts": numbers == list(range(len(values))),
    }))  # fmt: skip


main(sys.argv[1])
