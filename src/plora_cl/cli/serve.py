"""``plora-cl serve``: predictions over HTTP."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from plora_cl.cli.exit import exit_code
from plora_cl.cli.parser import Parser
from plora_cl.errors import PloraError

_EXAMPLE = """\
http://localhost:8000/docs describes the interface; docs/serving.md the rest.
example:
  plora-cl serve experiments/news --port 8000
"""


def serve_parser() -> argparse.ArgumentParser:
    """Return the parser of ``plora-cl serve``."""
    parser = Parser(
        prog="plora-cl serve",
        usage="plora-cl serve EXPERIMENT [flags]",
        description="Serve predictions of an experiment over HTTP. A newer checkpoint is taken "
        "up without a restart. SIGTERM or Ctrl-C answers what waits, and ends.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("experiment", metavar="EXPERIMENT", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="to listen on (%(default)s)"
    )
    parser.add_argument(
        "--port", metavar="N", type=_at_least(0), default=8000, help="%(default)s; 0: any"
    )
    parser.add_argument(
        "--device", metavar="D", default="auto", help="auto, cpu, cuda, cuda:N or mps"
    )
    parser.add_argument("--checkpoint", metavar="C", help="serve this one, and follow no newer one")
    poll = "between looks for a newer checkpoint (%(default)s)"
    parser.add_argument("--poll", metavar="SECONDS", type=_at_least(1), default=5, help=poll)
    bounds = parser.add_argument_group("limits")
    for flag, default, what in (
        ("--batch-texts", 64, "texts predicted together"),
        ("--queue-texts", 2048, "texts that wait; beyond them: 503"),
        ("--request-texts", 256, "texts in a request"),
        ("--text-characters", 100_000, "longest text"),
        ("--body-bytes", 4 << 20, "longest request"),
    ):
        bounds.add_argument(
            flag, metavar="N", type=_at_least(1), default=default, help=f"{what} (%(default)s)"
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl serve`` with ``argv``, by default that of the process."""
    arguments = serve_parser().parse_args(argv)
    return exit_code(lambda: _serve(arguments))


def _serve(arguments: argparse.Namespace) -> int:
    if not (arguments.experiment / "checkpoints").is_dir():
        raise PloraError(f"no experiment in {arguments.experiment}: it has no folder checkpoints")
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise PloraError(f"{error.name} is not installed: pip install 'plora-cl[serve]'") from error
    from plora_cl.inference.experiment import load_experiment
    from plora_cl.serving.app import create_app
    from plora_cl.serving.limits import Limits
    from plora_cl.serving.server import listening, serve

    socket = listening(arguments.host, arguments.port)  # before a model is loaded
    with socket:
        experiment = load_experiment(
            arguments.experiment, arguments.checkpoint, device=arguments.device
        )
        limits = Limits(**{name: getattr(arguments, name) for name in Limits.__dataclass_fields__})
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        logging.getLogger("httpx").setLevel(logging.WARNING)
        poll = 0 if arguments.checkpoint else arguments.poll
        app = create_app(experiment, limits=limits, poll=poll)
        host, port = socket.getsockname()[:2]
        print(f"Serving {experiment.checkpoint.name} of {arguments.experiment}", flush=True)
        print(f"Listening on http://{host}:{port} (interface: /docs)", flush=True)
        serve(app, socket)
    print("Stopped", flush=True)
    return 0


def _at_least(least: int) -> type[int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    number.__name__ = "int"
    return number  # type: ignore[return-value]
