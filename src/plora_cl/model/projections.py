"""Names of the linear layers that adapters take; loads no torch."""

from __future__ import annotations

import re

ATTENTION_PROJECTIONS = re.compile(
    r"(^|\.)attention\."
    r"(self\.(query|key|value)(_proj)?"  # BERT, RoBERTa, ELECTRA, DeBERTa-v2
    r"|output\.dense"
    r"|[qkv]_lin|out_lin"  # DistilBERT
    r"|attn\.[qkvo]"  # MPNet
    r"|query|key|value|dense"  # ALBERT
    r")$"
)
"""Names of the linear layers of self-attention; feed-forward layers never match."""


def ends_with(name: str, ending: str) -> bool:
    """Return whether the qualified name of a layer ends with ``ending``, a whole name or several.

    Args:
        name: Such as ``encoder.layer.0.attention.self.query``.
        ending: Such as ``query`` or ``self.query``.
    """
    return name == ending or name.endswith(f".{ending}")
