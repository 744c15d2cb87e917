"""`python -m graphsr` is the command `graphsr`."""

import sys

from graphsr.cli import main

if __name__ == "__main__":
    sys.exit(main())
