"""The ``sampan`` command line: Docker's, on the Docker Engine API.

The only package that reads argv and the environment. Each command lives in a module of
:mod:`sampan.cli.commands` that is imported when the command is used; :mod:`sampan.cli.index` says
which. A command is declared once, as a :class:`~sampan.cli.command.Command`: parsing, help,
completion and manual pages all come from that declaration.
"""
