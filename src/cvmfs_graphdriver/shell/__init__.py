"""Evaluation of configuration files as bash would evaluate them: ``evaluation.evaluate`` is the entry."""
