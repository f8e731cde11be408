"""Where the specifications as data are: beside the checkout, or as SAMPAN_SPEC says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SPEC = Path(os.environ.get("SAMPAN_SPEC", Path(__file__).parents[2] / "shared" / "spec"))

if not SPEC.is_dir():
    pytest.skip(f"no specifications at {SPEC}", allow_module_level=True)
