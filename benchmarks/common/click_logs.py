"""Two real click logs as tables of integer fields, split by time: MovieLens-100K and the Open Bandit sample."""

from __future__ import annotations

import csv
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Row = dict[str, Any]
Part = tuple[dict[str, Tensor], Tensor]
"""Fields (n,) or (n, k) by name, and clicks (n,)."""


def movielens(root: Path) -> list[Row]:
    """Impressions of MovieLens-100K: fields by name, `time`, `click`; genres are several values."""
    folder = root / "recbole/dataset_example/ml-100k"

    def table(kind: str) -> list[Row]:
        with (folder / f"ml-100k.{kind}").open(encoding="utf-8") as lines:
            rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            return [{k.partition(":")[0]: v for k, v in row.items()} for row in rows]

    users, items = ({row[f"{kind}_id"]: row for row in table(kind)} for kind in ("user", "item"))
    log = []
    for row in table("inter"):
        user, item, stamp = users[row["user_id"]], items[row["item_id"]], int(float(row["timestamp"]))
        log.append(
            {"user": row["user_id"], "item": row["item_id"], "age": user["age"], "gender": user["gender"]}
            | {"occupation": user["occupation"], "zip": user["zip_code"][:2], "year": item["release_year"]}
            | {"genres": item["class"].split(), "hour": str(stamp // 3600 % 24)}
            | {"time": stamp, "click": float(row["rating"]) >= 4}
        )
    return log


def bandit(root: Path) -> list[Row]:
    """Impressions of the Open Bandit sample, all campaigns and both policies."""
    log = []
    for file in sorted((root / "obp/dataset/obd").glob("*/*/*.csv")):
        campaign, policy = file.parent.name, file.parent.parent.name
        if file.stem != campaign:
            continue
        with (file.parent / "item_context.csv").open(encoding="utf-8") as lines:
            items = {row["item_id"]: row for row in csv.DictReader(lines)}
        with file.open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                item, stamp = items[row["item_id"]], datetime.fromisoformat(row["timestamp"])
                log.append(
                    {"campaign": campaign, "policy": policy, "item": f"{campaign} {row['item_id']}"}
                    | {"position": row["position"], "hour": str(stamp.hour), "day": str(stamp.day)}
                    | {f"user_{i}": row[f"user_feature_{i}"] for i in range(4)}
                    | {"item_0": str(round(4 * float(item["item_feature_0"])))}
                    | {f"item_{i}": item[f"item_feature_{i}"] for i in range(1, 4)}
                    | {"affinity": row[f"user-item_affinity_{row['item_id']}"]}
                    | {"time": stamp.timestamp(), "click": row["click"] == "1"}
                )
    return log


def encode(log: list[Row]) -> tuple[dict[str, int], list[Part]]:
    """Rows of each table, and the fields (n,) or (n, k) and clicks (n,) of the parts to train, validate and judge."""
    log = sorted(log, key=lambda row: row["time"])  # stable: equal times stay in the order of the file
    edges = [0, int(0.8 * len(log)), int(0.9 * len(log)), len(log)]
    sizes, columns = {}, {}
    for name in sorted(set(log[0]) - {"time", "click"}):
        cells = [row[name] if isinstance(row[name], list) else [row[name]] for row in log]
        known = sorted({value for cell in cells[: edges[1]] for value in cell})
        index = {value: i for i, value in enumerate(known, 2)}
        sizes[name], width = len(known) + 2, max(map(len, cells))
        # Row 0 fills up, row 1 is for what was not seen in training.
        ids = torch.tensor([[index.get(v, 1) for v in cell] + [0] * (width - len(cell)) for cell in cells])
        columns[name] = ids[:, 0] if width == 1 else ids
    clicks = torch.tensor([float(row["click"]) for row in log])
    spans = [slice(a, b) for a, b in pairwise(edges)]
    return sizes, [({n: c[span] for n, c in columns.items()}, clicks[span]) for span in spans]
