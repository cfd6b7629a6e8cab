"""Models in tests are tiny: a second thread only waits for the first, and for other processes."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
