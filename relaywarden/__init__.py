"""relaywarden - the library that policyd, milter and the command line share."""

__version__ = "0.1.0"
