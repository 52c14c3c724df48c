"""Every claim of speed, each measured beside a peer or a limit in one run: ``python -m tests.benchmarks.whole``."""
