"""The commands, one noun a module; see :mod:`sampan.cli.index`."""
