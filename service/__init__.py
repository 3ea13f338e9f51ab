"""Answering over HTTP: BentoML, batching, limits, metrics. Imports models, never build."""
