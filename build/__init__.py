"""Making variants: train, compress, judge, publish. `python -m build --list` shows the recipes."""
