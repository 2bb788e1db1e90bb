"""Chaos: writers, rivals and faults let loose on pg_reaper, and a checker that keeps its own ledger.

    make chaos MINUTES=n SEED=s
"""
