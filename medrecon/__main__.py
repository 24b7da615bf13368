"""`python -m medrecon`: the command line."""

import sys

from medrecon.cli import main

sys.exit(main())
