"""``plora-cl export``: one task as a model of PEFT, transformers or ONNX."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from plora_cl.cli.exit import exit_code
from plora_cl.cli.folders.experiment import named_experiment
from plora_cl.cli.output import ending_without_output
from plora_cl.cli.parser import OneOf, Parser

_EXAMPLE = """\
example:
  plora-cl export experiments/demo --task food --format transformers --out food
"""


def export_parser() -> Parser:
    """Return the parser of ``plora-cl export``."""
    parser = Parser(
        prog="plora-cl export",
        usage="plora-cl export EXPERIMENT --task T --format F --out DIR [flags]",
        description="Export one task as a model that loads without plora-cl, with its tokenizer "
        "and a model card. DIR appears when its logits are checked.",
        epilog=_EXAMPLE,
    )
    add = parser.add_argument
    add("experiment", metavar="EXPERIMENT", help=argparse.SUPPRESS)
    add("--task", metavar="T", required=True, help="the task to export")
    add(
        "--format",
        metavar="F",
        required=True,
        type=OneOf("peft", "transformers", "onnx"),
        help="peft: adapter and head; transformers: merged model; onnx",
    )
    add("--out", metavar="DIR", required=True, help="a new folder")
    add("--checkpoint", metavar="C", help="a file or its name; default: newest intact")
    add("--overwrite", action="store_true", help="replace an earlier export in DIR")
    add("--push", metavar="OWNER/NAME", help="upload DIR to the hub, new ones as private")
    add("--json", action="store_true", help="print lineage.json of the export")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl export`` with ``argv``, by default that of the process."""
    arguments = export_parser().parse_args(argv)
    with ending_without_output():
        return exit_code(lambda: _export(arguments))


def _export(arguments: argparse.Namespace) -> None:
    from plora_cl.export.extra import require_onnx
    from plora_cl.export.folder import LINEAGE, require_writable
    from plora_cl.export.hub import push, require_pushable

    named = named_experiment(arguments.experiment, arguments.checkpoint, arguments.task)
    out = Path(arguments.out)
    require_writable(out, overwrite=arguments.overwrite)
    if arguments.format == "onnx":
        require_onnx()
    if arguments.push is not None:
        require_pushable(arguments.push)

    from plora_cl.export.task import export_task  # imports torch
    from plora_cl.inference.experiment import load_experiment

    export_task(
        load_experiment(named.folder, named.checkpoint, device="cpu"),
        arguments.task,
        out,
        format=arguments.format,
        overwrite=arguments.overwrite,
        repository=arguments.push,
    )
    if arguments.json:
        print(json.dumps(json.loads((out / LINEAGE).read_bytes()), indent=2))
    else:
        print(f"{out}: task {arguments.task!r} as {arguments.format}; README.md shows its usage")
    if arguments.push is not None:
        print(f"Pushed to {push(out, arguments.push)}", file=sys.stderr)
