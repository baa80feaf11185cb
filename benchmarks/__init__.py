"""Speed and memory of foci, each beside its rival in one run: `python -m benchmarks [NAME...]`."""
