"""Factories of connections; the lowest place where a driver is imported."""
