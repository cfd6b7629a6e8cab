"""What ``--help`` shows of commands with more flags than a screen has lines."""

from __future__ import annotations

EXAMPLE = """\
example:
  plora-cl train --experiment-name demo --tasks data/news data/reviews
  plora-cl train --experiment-name demo --resume
"""

TRAIN_BRIEF = f"""\
usage: plora-cl train [--config FILE | --preset NAME] [FLAG ...]

Learn a stream of text-classification tasks; stop any time, resume exactly.

  --config FILE, --preset NAME   settings from a YAML file; packaged ones
  --set PATH=VALUE               any setting (plora-cl settings lists them)
  --experiment-name NAME         the folder experiments/NAME
  --model-name NAME-OR-FOLDER    pretrained encoder
  --tasks NAME-OR-FOLDER ...     tasks in order
  --epochs N, --batch-size N     passes over each task, examples per batch
  --learning-rate RATE           peak rate of AdamW
  --checkpoint-every STEPS       steps between checkpoints
  --resume [auto|PATH]           from the newest checkpoint, or from PATH
  --overwrite, --accept-changes  replace a run; resume a run that differs
  --max-time TIME                stop after 90m or 1h30m, to be resumed
  --dry-run [--json]             tell what it would take, and start nothing
  --quiet, --help-all            hide progress; show every flag and setting

{EXAMPLE}"""

FLOOR_BRIEF = """\
usage: plora-cl floor [--config FILE | --preset NAME] [FLAG ...]

Learn each task alone with TF-IDF features and logistic regression: what a run
has to be better than. The results stand in an experiment of their own,
EXPERIMENT-NAME-floor unless --experiment-name says otherwise. The tokenizer is
that of the run: give its --model-name.

  --config FILE, --preset NAME   settings from a YAML file; packaged ones
  --set PATH=VALUE               any setting (plora-cl settings lists them)
  --experiment-name NAME         the folder experiments/NAME
  --model-name NAME-OR-FOLDER    encoder whose tokenizer is used
  --tasks NAME-OR-FOLDER ...     tasks
  --max-train-examples N, --max-eval-examples N, --seed N
                                 the sample of each task
  --quiet, --help-all            hide progress; show every flag

example:
  plora-cl floor --config experiments/demo/config.yaml
"""
