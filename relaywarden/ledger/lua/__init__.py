"""Lua scripts of the Redis ledger, one a verb, loaded as package data."""
