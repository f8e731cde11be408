"""The engine: containers, images, networks, volumes and events over one SQLite state.

:class:`sampan.engine.engine.Engine` is the door; :mod:`sampan.engine.spec` and
:mod:`sampan.engine.reconcile` are its pure decisions, everything else acts on them.
"""
