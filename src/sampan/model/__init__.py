"""Frozen values every layer shares; the standard library alone, no effects."""
