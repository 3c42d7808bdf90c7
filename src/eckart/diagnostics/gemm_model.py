"""How well the time of products of matrices is predicted from what they compute and read."""

from __future__ import annotations

import numpy as np

from eckart.budget.product_time import chosen_times, left_out_errors
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
        "roofline_error": Column("Median relative error of the roofline alone", unit="ratio"),
        "time_regressed": Column("Whether a regressor corrects the roofline", kind="boolean"),
    },
    noun="model of time",
)
def gemm_model(timings: Timings) -> Numbers:
    """Seconds of a product as `max(flops / peak, bytes / bandwidth) + overhead`, each kind of structure by itself.

    What that leaves is regressed, by a ridge and not by the paper's random forest, on the logarithms of shape, number
    of vectors and density, wherever shapes that were left out are predicted better with it. The paper's errors are of a
    random split, where neighbours of every product are seen; these are of whole shapes. Power and energy, which the
    paper predicts too, no counter tells here.

    It is what `--of decode-time` and `--of prefill-time` count in.

    Args:
        timings: products and their seconds, of two shapes at least.

    Raises:
        Refused: fewer shapes, or a time that is not positive and finite.
    """
    model, errors = chosen_times(timings.products)
    plain = left_out_errors(timings.products, regressor=False)
    return {
        "products": len(timings.products),
        "kinds": len(model.rooflines),
        "time_error": float(np.median(errors)),
        "time_error_largest": float(errors.max()),
        "roofline_error": float(np.median(plain)),
        "time_regressed": bool(model.regressors),
    }
