"""
How fast this machine serves: ratios from one interleaved run, never one day against another.

`python -m build bench` starts the real server, loads it over HTTP, and runs the same texts through
the same models in this process. Knows nothing of quality, nor of what else runs on the machine.
"""
