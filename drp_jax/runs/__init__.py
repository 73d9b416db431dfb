"""Keeps a run alive, and records what it did."""
