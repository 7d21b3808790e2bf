"""The speed benchmark: what one UNet call costs with each method, against the operation count.

`python -m benchmarks.speed`; benchmarks/README.md explains it.
"""
