"""`python -m eckart`."""

import sys

from eckart.cli.app import main

sys.exit(main())
