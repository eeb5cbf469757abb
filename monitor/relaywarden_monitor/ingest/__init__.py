"""ingest - where outcomes come from: logs, accounting files, journals, mail; each read on from where it was left."""
