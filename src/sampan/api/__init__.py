"""The Docker Engine API over HTTP, and the daemon that serves it.

Routes are thin: decode, validate, ask :class:`sampan.engine.engine.Engine`, encode. What differs
between API versions is in :mod:`sampan.api.gate` alone; streams that take a connection over are in
:mod:`sampan.api.hijack`.
"""
