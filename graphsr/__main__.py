"""`python -m graphsr` is the command `graphsr`."""

import sys

from graphsr.cli import main

sys.exit(main())
