"""What holds for every test: none is judged by its time, so Hypothesis has no deadline."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("sampan", deadline=None)
hypothesis.settings.load_profile("sampan")
