"""Train a LoRA adapter in a loop of your own. Kill it at any instant, and start it again.

::

    python examples/raw_pytorch.py runs/raw

It ends with the same bits as a run that nobody killed. What that takes stands between the two lines
of dashes, and in `Losses`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import set_seed

from plora_cl.checkpoint import CheckpointManager, split_module
from small_task import batch_of, read_examples, tiny_model


class Losses(list[float]):
    """The loss of every step: anything can be a component that returns and takes its state."""

    def state_dict(self) -> dict[str, list[float]]:
        """Return the losses so far."""
        return {"losses": list(self)}

    def load_state_dict(self, state: dict[str, list[float]], /) -> None:
        """Replace the losses."""
        self[:] = state["losses"]


def main(argv: Sequence[str] | None = None) -> None:
    """Train to the last step from wherever the folder stands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of the experiment")
    parser.add_argument("--text", type=Path, help="label<TAB>text a line; default: BBC news")
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args(argv)

    set_seed(0)
    examples, classes, digest = read_examples(arguments.text)
    model = tiny_model(classes)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, arguments.steps)
    losses = Losses()

    # ---------------------------------------------------------------------------------------------
    adapter, base = split_module(model)
    manager = CheckpointManager(
        arguments.folder,
        {"adapter": adapter, "optimizer": optimizer, "scheduler": scheduler, "losses": losses},
        constants={"base": base},
        identity={"text": digest, "steps": arguments.steps},
    )
    with manager:
        for step in range(manager.resume(), arguments.steps):
            loss = model(**batch_of(examples, step, size=8)).loss
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            manager.save(step + 1, loss=losses[-1])
    # ---------------------------------------------------------------------------------------------

    print(f"{len(losses)} steps, last loss {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
