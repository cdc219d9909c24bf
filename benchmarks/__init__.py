"""Measurements of the feature cache: `python -m benchmarks.NAME` from the repository root, results in `results/`."""
