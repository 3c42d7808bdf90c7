"""Products of compressed matrices in compiled code: C behind a plain interface, loaded with ctypes, PyTorch beside it.

One layout is two functions, `NAME_multiply` (rows times a vector) and `NAME_rows` (rows decoded), in `NAME.c`, its name
in `layouts.h`, and a `Layout` in `NAME.py` that checks tensors before C sees them and knows W by PyTorch. A
structure holds a `Product` of its layout and asks it first. `lanes.h` has sixteen lanes on every processor; `build.py`
compiles every file for every level (again after a change: `python src/eckart/ops/native/build.py`), and `library.py`
picks the level.
"""

from eckart.ops.native.library import native as native
