"""``python -m eventstore``: the command line, as the command ``eventstore``."""

import sys

from eventstore.cli import main

if __name__ == "__main__":
    sys.exit(main())
