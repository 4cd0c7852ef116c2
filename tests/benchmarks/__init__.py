"""What a request pays for its session: ours, its peers, and the least possible, side by side.

``python -m tests.benchmarks`` runs them, ``python -m tests.benchmarks.plot`` draws what was found.
A benchmark, never a timed test: what counts are the ratios of one run.
"""
