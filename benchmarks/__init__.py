"""The measurements behind docs/log.md. `make bench` runs them all; `python -m benchmarks NAME ...` some.

These machines are noisy: what counts are ratios against a peer that is measured in the same run.
"""
