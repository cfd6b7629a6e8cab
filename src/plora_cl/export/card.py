"""The model card of an export."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from plora_cl.export.lineage import Lineage
from plora_cl.export.stock import BASE_FOLDER

_TRANSFORMERS = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

{where}
texts = ["first text", "second text"]
tokenizer = AutoTokenizer.from_pretrained(where)
model = AutoModelForSequenceClassification.from_pretrained(where).eval()
batch = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**batch).logits
print([model.config.id2label[index] for index in logits.argmax(-1).tolist()])
"""
_PEFT = """\
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

{where}
texts = ["first text", "second text"]
config = AutoConfig.from_pretrained(where)  # names the classes
base = AutoModelForSequenceClassification.from_pretrained({base}, config=config)
model = PeftModel.from_pretrained(base, where).eval()
tokenizer = AutoTokenizer.from_pretrained(where)
batch = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**batch).logits
print([config.id2label[index] for index in logits.argmax(-1).tolist()])
"""
_ONNX = """\
import onnxruntime
from transformers import AutoConfig, AutoTokenizer

{where}
texts = ["first text", "second text"]
config = AutoConfig.from_pretrained(where)  # names the classes
tokenizer = AutoTokenizer.from_pretrained(where)
session = onnxruntime.InferenceSession(f"{{where}}/model.onnx")
batch = tokenizer(texts, truncation=True, padding=True, return_tensors="np")
inputs = {{name: batch[name] for name in ("input_ids", "attention_mask")}}
(logits,) = session.run(["logits"], inputs)
print([config.id2label[index] for index in logits.argmax(-1).tolist()])
"""
_ABOUT = {
    "transformers": "The adapter of the task is merged into the encoder.",
    "peft": "This is an adapter with its head, for the base model.",
    "onnx": "Batch and length are dynamic.",
}
_HEAD = (
    "The head is a linear layer that is folded into the classification head of the architecture, "
    "exactly in float32: use it for predictions in float32 or bfloat16, not in float16, and do not "
    "train it further."
)


def model_card(lineage: Lineage, *, where: str, base: str | None, is_pushed: bool) -> str:
    """Return the text of README.md.

    Args:
        lineage: What the model was made from.
        where: The folder or hub id of the export, for its usage.
        base: Hub id of the base model; None where it is in the export or not needed.
        is_pushed: It is a hub id.
    """
    pages = [
        _front_matter(lineage, base),
        f"# {_text(lineage.task)}\n",
        f"Classifies texts into {len(lineage.classes)} classes: "
        f"{', '.join(map(_code, lineage.classes))}. {_ABOUT[lineage.kind]} One task of a stream "
        f"that was learned with plora-cl {lineage.plora_cl}.\n",
        "## Usage\n",
        f"```python\n{_usage(lineage, where, base, is_pushed=is_pushed)}```\n",
        *([] if lineage.kind == "onnx" else [_HEAD + "\n"]),
        "## Scores\n",
        _scores(lineage),
        "## Data\n",
        _table(
            {
                "task": _code(lineage.task),
                "training texts": str(lineage.examples),
                **{f"SHA-256, {split}": _code(d) for split, d in lineage.data_sha256.items()},
            }
        ),
        "## Settings\n",
        _table({_code(name): _code(json.dumps(v)) for name, v in lineage.settings.items()}),
        "## Lineage\n",
        _table(
            {
                "experiment": _code(lineage.experiment),
                "checkpoint": _code(lineage.checkpoint),
                "SHA-256 of the checkpoint": _code(lineage.checkpoint_sha256),
                "tasks learned by then": ", ".join(map(_code, lineage.learned)) or "none",
                "base model": _code(lineage.base),
                "SHA-256 of the base weights": _code(lineage.base_sha256 or "not recorded"),
            }
        ),
    ]
    return "\n".join(pages)


def _front_matter(lineage: Lineage, base: str | None) -> str:
    library = {"onnx": "onnxruntime"}.get(lineage.kind, lineage.kind)
    lines = [f"library_name: {library}", "pipeline_tag: text-classification"]
    lines += ["tags: [text-classification, continual-learning, lora, plora-cl]"]
    if base is not None:
        lines.append(f"base_model: {json.dumps(base)}")
    return "\n".join(["---", *lines, "---\n"])


def _usage(lineage: Lineage, where: str, base: str | None, *, is_pushed: bool) -> str:
    place = f"where = {json.dumps(where)}"
    if is_pushed:
        place = (
            "from huggingface_hub import snapshot_download\n\n"
            f"where = snapshot_download({json.dumps(where)})"
        )
    own = f'f"{{where}}/{BASE_FOLDER}"'
    template = {"transformers": _TRANSFORMERS, "onnx": _ONNX, "peft": _PEFT}[lineage.kind]
    return template.format(where=place, base=own if base is None else json.dumps(base))


def _scores(lineage: Lineage) -> str:
    if not lineage.scores:
        return "Not measured when the checkpoint was saved.\n"
    names = {
        "accuracy": "accuracy",
        "f1": "macro-F1",
        "routed_accuracy": "accuracy with the task inferred among all",
    }
    rows = {names[name]: f"{value:.4f}" for name, value in lineage.scores.items()}
    return "On the test split, as last measured in training:\n\n" + _table(rows)


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines, ""])


def _text(name: str) -> str:
    """Return a name as Markdown that shows it as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|&-])", r"\\\1", " ".join(name.split()))


def _code(name: str) -> str:
    """Return a name as code within a table, on one line."""
    plain = " ".join(name.split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    blank = " " if plain.startswith("`") or plain.endswith("`") or not plain else ""
    return f"{fence}{blank}{plain}{blank}{fence}"
