"""`python -m eckart`."""

import sys

from eckart.cli import main

sys.exit(main())
