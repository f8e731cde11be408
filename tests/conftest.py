"""What holds for every test: none is judged by its time, so Hypothesis has no deadline."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Nothing in the virtual machine (tools/vm): there its plugin is left out to save time."""
    if config.pluginmanager.hasplugin("hypothesispytest"):
        import hypothesis

        hypothesis.settings.register_profile("sampan", deadline=None)
        hypothesis.settings.load_profile("sampan")
