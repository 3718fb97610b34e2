"""Compares syncws with other WebSocket servers for Python: see ``benchmarks/run``."""
