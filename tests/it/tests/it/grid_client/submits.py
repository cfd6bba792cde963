"""Submits and reads for as long as it is told, and writes every result that it gets to a file, once for each time that it gets one."""

import sys
import time

from tidemill import Grid

WAVE = 40


def square(n, seconds):
    time.sleep(seconds)
    return n * n


def slowly(first, count):
    """Numbers that come while the others are worked on."""
    for n in range(first, first + count):
        if n % 100 == 0:
            time.sleep(0.05)
        yield n


def main(results, waves, mapped):
    with open(results, "w", encoding="utf-8") as out, Grid(name="kept", progress=False) as grid:
        first = waves * WAVE
        later = grid.map(square, slowly(first, mapped), iter(lambda: 0.001, None))
        for wave in range(waves):
            numbers = range(wave * WAVE, wave * WAVE + WAVE)
            futures = {grid.submit(square, n, 0.002): n for n in numbers}
            for future in grid.as_completed(futures):
                out.write(f"{futures[future]},{future.result()},{future.task}\n")
            out.flush()
        for n, value in enumerate(later, first):
            out.write(f"{n},{value},\n")


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
