"""Plain SVD, the ranks of all matrices from one threshold on their normalised singular values."""

from torch import Tensor

from eckart.compressors._low_rank import LowRank, fit_low_rank
from eckart.compressors.contract import compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Statistics


@compressor(
    "welore",
    paper="Jaiswal et al. 2024, arXiv 2407.11239",
    expression="Chain(Dense, Dense)",
    allocation="threshold",
)
def welore(weight: Tensor, statistics: Statistics) -> LowRank:
    """Plain SVD, of each matrix the singular values with s_i / s_max above one threshold for all.

    The threshold is the smallest that the budget allows; a matrix that would keep more ranks than pay stays dense. The
    paper subtracts the smallest singular value from s_i and s_max first, which takes ranks from the flattest spectra
    and did worse at the same numbers (`benchmarks/compressors/normalised.py`). Its fine-tuning of the low-rank matrices
    is the adapter of that name. At one rank the authors' code and this agree to six digits
    (`benchmarks/peers/authors.py`).
    """
    return fit_low_rank(weight, Metric())
