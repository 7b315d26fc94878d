"""``python -m zerogate``: the ``zerogate`` command, also where it is not on the path."""

import sys

from zerogate.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
