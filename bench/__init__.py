"""Measurements of pg_reaper beside its peers, on a real server, in one run.

    make bench [BARS=1,2] [SCALE=0.1] [REPETITIONS=3]

Each bar is a module of ``bench.bars``. What a whole run has measured is ``bench/results.md``.
"""
