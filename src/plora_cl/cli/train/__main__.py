"""``python -m plora_cl.cli.train``."""

from __future__ import annotations

from plora_cl.cli.train.command import main

raise SystemExit(main())
