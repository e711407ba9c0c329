"""`python -m mosaics.cli`, the same as `mosaics`."""

import sys

from mosaics.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
