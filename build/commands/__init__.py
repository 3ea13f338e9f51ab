"""The commands of `python -m build`, a function each: words in, exit status out."""
