"""
Other servers on the same models and the same cores: what a user would pick instead of Kadogo.

Each runs in an environment of its own and gets files alone: README.md says how each is set and why.
"""
