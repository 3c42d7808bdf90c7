"""How well the time of products of matrices is predicted from what they compute and read."""

from __future__ import annotations

import numpy as np

from eckart.budget.product_time import FORMS, chosen_times
from eckart.diagnostics.contract import Column, Numbers, Timings, diagnostic


@diagnostic(
    "gemm-model",
    paper="Liu and Halim 2024, arXiv 2411.16954; the roofline is Williams, Waterman and Patterson 2009",
    of="timings",
    gives={
        "products": Column("Products that were timed", kind="integer"),
        "kinds": Column("Kinds of structures among them", kind="integer"),
        "time_error": Column("Median relative error for shapes that were left out", unit="ratio"),
        "time_error_largest": Column("Largest of these errors", unit="ratio"),
        "roofline_error": Column("Median relative error of the roofline", unit="ratio"),
        "regressed_error": Column("Median relative error of the roofline with a regressor", unit="ratio"),
        "sums_error": Column("Median relative error of sums of prices", unit="ratio"),
    },
    noun="model of time",
)
def gemm_model(timings: Timings) -> Numbers:
    """Seconds of a product from what it computes and reads, each kind of structure by itself.

    Three forms: the roofline `max(flops / peak, bytes / bandwidth) + overhead`; what that leaves regressed, by a ridge
    and not by the paper's random forest, on the logarithms of shape, number of vectors and density; and a sum of prices
    that are not below zero, of the call, multiply-adds, entries that are decoded, bytes, inputs and outputs. Of each
    kind the form is taken that predicts shapes best which were left out. The paper's errors are of a random split,
    where neighbours of every product are seen; these are of whole shapes. Power and energy, which the paper predicts
    too, no counter tells here.

    It is what `--of decode-time` and `--of prefill-time` count in.

    Args:
        timings: products and their seconds, of two shapes at least.

    Raises:
        Refused: fewer shapes, or a time that is not positive and finite.
    """
    model, errors = chosen_times(timings.products)
    return {
        "products": len(timings.products),
        "kinds": len(model.kinds),
        "time_error": float(np.median(errors["chosen"])),
        "time_error_largest": float(errors["chosen"].max()),
        **{f"{form}_error": float(np.median(errors[form])) for form in FORMS},
    }
