"""`--report-to`: the losses that a report has are those that trackers are told."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

import eckart
from eckart.jobs.adapt.directory import Request, adapt_directory
from eckart.jobs.learning.loop import Training
from eckart.jobs.learning.transformers_trackers import check_trackers
from eckart.jobs.train.directory import Request as Whole
from eckart.jobs.train.directory import train_directory
from support.tiny import save_tiny

TRAINING = Training(steps=3, every=2, batch=2)


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "rows.jsonl").write_text('{"text": "the cat sat on the mat"}\n' * 12)
    return str(save_tiny(tmp_path / "tiny")), str(tmp_path / "rows.jsonl")


def test_every_loss_is_told_once(data: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, dict[str, float]]] = []
    seen: list[Any] = []

    class Mine(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append((args.run_name, args.max_steps, state.is_world_process_zero, kwargs["model"] is not None))

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            told.append((state.global_step, dict(logs)))

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append("end")

    known: Mapping[str, Any] = {"mine": Mine}
    monkeypatch.setattr(integration_utils, "INTEGRATION_TO_CALLBACK", known)
    made = adapt_directory(
        data[0], tmp_path / "a", Request(data[1], rank=2, length=16, text=""), TRAINING, report_to=["mine"]
    )
    assert [numbers["loss"] for _, numbers in told if "loss" in numbers] == made["loss"]
    assert [numbers["learning_rate"] for _, numbers in told if "loss" in numbers] == list(
        map(TRAINING.rate_at, range(3))
    )
    judged = [{"step": step, "loss": numbers["eval_loss"]} for step, numbers in told if "eval_loss" in numbers]
    assert judged == made["validation"]
    assert seen == [("a", 3, True, True), "end"]
    assert made["command"][-2:] == ["--report-to", "mine"]
    told.clear()
    whole = train_directory(data[0], tmp_path / "t", Whole(data[1], length=16), TRAINING, report_to=("mine",))
    assert [numbers["loss"] for _, numbers in told if "loss" in numbers] == whole["loss"]
    with pytest.raises(eckart.Refused, match="transformers has no tracker 'paper': it has mine"):
        check_trackers(["paper"])


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow"])
def test_trackers_that_are_installed(
    tracker: str, data: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(tracker)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    request = Request(data[1], rank=2, length=16, text="")
    made = adapt_directory(data[0], tmp_path / "a", request, TRAINING, report_to=[tracker])
    if tracker == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        (events,) = (tmp_path / "a.tracked").rglob("events.*")
        read = EventAccumulator(str(events)).Reload()
        assert [each.value for each in read.Scalars("train/loss")] == pytest.approx(made["loss"])
    elif tracker == "mlflow":
        import mlflow

        client = mlflow.MlflowClient()
        (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
        assert [each.value for each in client.get_metric_history(run.info.run_id, "loss")] == made["loss"]
    else:
        assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow"])
def test_a_tracker_that_is_not_installed(tracker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration_utils, f"is_{tracker}_available", lambda: False)
    monkeypatch.setattr(sys, "unraisablehook", lambda told: pytest.fail(f"a second traceback: {told.exc_value}"))
    with pytest.raises(eckart.Refused, match=f"report-to {tracker} needs a package .* pip install {tracker}"):
        check_trackers([tracker])
    gc.collect()


@pytest.mark.parametrize("when", ["on_train_begin", "on_log", "on_train_end"])
def test_a_tracker_that_fails_is_named_and_training_goes_on(
    when: str, data: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    class Good(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            told.append(state.global_step)

    class Bad(TrainerCallback):
        pass

    def fail(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if when != "on_log" or state.global_step == 2:
            raise ConnectionError("no network")

    setattr(Bad, when, fail)
    monkeypatch.setattr(integration_utils, "INTEGRATION_TO_CALLBACK", {"bad": Bad, "good": Good})

    def run() -> dict[str, Any]:
        asked = Whole(data[1], length=16)
        return train_directory(data[0], tmp_path / "t", asked, TRAINING, report_to=("bad", "good"))

    if when == "on_train_begin":
        with pytest.raises(eckart.Refused, match="report-to bad failed as it began: ConnectionError: no network"):
            run()
        return
    with pytest.warns(UserWarning, match="report-to bad failed .*: ConnectionError: no network") as seen:
        report = run()
    said = [str(each.message) for each in seen if "report-to" in str(each.message)]
    assert len(said) == 1
    assert said[0] in report["warnings"]
    assert told == [0, 1, 2, 2, 3, 3]
