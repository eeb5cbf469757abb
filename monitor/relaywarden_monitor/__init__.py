"""The monitor: what became of every message, whose fault it was, and what it does to whom."""
