"""``python -m plora_cl.cli.checkpoints``."""

from __future__ import annotations

from plora_cl.cli.checkpoints.main import main

raise SystemExit(main())
