"""The quality benchmark: what HiDiffusion does to the pictures of the demo model, in numbers.

`python -m benchmarks.quality`; benchmarks/README.md explains it.
"""
