"""hypothesis draws the same cases in every run, so that a failure means the change under test.

`GRAPHSR_EXPLORE=1 pytest` draws new ones each time: for looking for bugs, before a release or at night.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("explore" if os.environ.get("GRAPHSR_EXPLORE") else "same")
