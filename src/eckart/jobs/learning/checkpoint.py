"""All that an interrupted training needs to go on to the same end, in one file that is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart._version import __version__
from eckart.errors import Refused
from eckart.files.made import STORED
from eckart.files.tensors import read_safetensors, sealed, write_safetensors
from eckart.jobs.learning.loop import Learner, Trained

PARTS = ("now", "best", "optimizer", "schedule")


class CheckpointFile:
    """A checkpoint in a file of safetensors."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def there(self) -> bool:
        """Whether it is written."""
        return self.path.is_file()

    def write(self, learner: Learner, trained: Trained, best: Mapping[str, Tensor]) -> None:
        """Values, best values, the optimizer's and the schedule's state, and the history."""
        state = {str(i): each for i, each in learner.optimizer.state_dict()["state"].items()}
        parts = {"now": learner.values(), "best": best, "optimizer": flat(state), "schedule": learner.schedule_state()}
        tensors = {f"{part}/{key}": value for part, each in parts.items() for key, value in each.items()}
        history = {"losses": trained.losses, "validation": trained.validation, "best": trained.best}
        unique = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        write_safetensors(unique, self.path, {STORED: __version__, "history": json.dumps(history), **sealed(unique)})

    def read(self, learner: Learner, trained: Trained) -> dict[str, Tensor]:
        """Sets learner and history to those of the checkpoint, and returns the best values so far.

        Raises:
            Refused: a file that is damaged or of another training.
        """
        try:
            tensors, metadata = read_safetensors(self.path)
            history: dict[str, Any] = json.loads(metadata["history"])
            part = {
                kind: {key.removeprefix(f"{kind}/"): v for key, v in tensors.items() if key.startswith(f"{kind}/")}
                for kind in PARTS
            }
            learner.restore(part["now"])
            state = {int(i): each for i, each in deep(part["optimizer"]).items()}
            learner.optimizer.load_state_dict({**learner.optimizer.state_dict(), "state": state})
            trained.losses, trained.best = list(history["losses"]), int(history["best"])
            trained.validation = [(int(step), float(loss)) for step, loss in history["validation"]]
            learner.resume(len(trained.losses), part["schedule"])
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise Refused(f"{self.path} is no checkpoint of this training: {error}") from error
        return part["best"]


def flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Tensor]:
    """Tensors and numbers in dictionaries of dictionaries, as tensors by paths of names with `/` between them."""
    found: dict[str, Tensor] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{key}/")
        else:
            found[f"{before}{key}"] = torch.as_tensor(value)
    return found


def deep(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Undoes `flat`."""
    found: dict[str, Any] = {}
    for path, tensor in tensors.items():
        *names, last = path.split("/")
        place = found
        for name in names:
            place = place.setdefault(name, {})
        place[last] = tensor
    return found
