"""`python -m medrecon`: the command line."""

import sys

from medrecon.cli import main

if __name__ == "__main__":
    sys.exit(main())
