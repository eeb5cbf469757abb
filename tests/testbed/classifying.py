"""The built-in rules of the classifier, loaded once for all tests."""

from __future__ import annotations

from functools import lru_cache

from relaywarden_monitor.classify.classifier import Classifier


@lru_cache(maxsize=1)
def classifier() -> Classifier:
    """The one that the monitor uses without rules of its own."""
    return Classifier.load()
