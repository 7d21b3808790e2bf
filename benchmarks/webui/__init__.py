"""The comparison: which way is best with the checkpoint of a running WebUI, in pictures, seconds and memory.

`python -m benchmarks.webui --url http://127.0.0.1:7860`; docs/compare.md explains it. Python 3.10, Pillow and
tqdm are all that it needs.
"""
