"""What exporting to ONNX needs; loads no torch."""

from __future__ import annotations

from importlib.util import find_spec

from plora_cl.errors import ModelError


def require_onnx() -> None:
    """Refuse if what exports and checks ONNX is not installed.

    Raises:
        ModelError: It is not.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"--format onnx needs {', '.join(missing)}; install it with: "
            "pip install 'plora-cl[onnx]'"
        )
