"""Measurements: ``python -m tests.benchmarks.NAME``; each module says what it measures."""
