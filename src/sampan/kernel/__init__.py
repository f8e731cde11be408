"""Typed system calls and kernel interfaces, one module per facility; no policy."""
