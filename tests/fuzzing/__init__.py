"""Fuzzing: what a browser sends and what stands in a store, driven by Hypothesis and by atheris.

:mod:`tests.fuzzing.targets` has the targets. ``python -m tests.fuzzing TARGET --seconds 15`` or ``--runs 1000000``
drives one of them with atheris, guided by the coverage of beaker_bridge.
"""
