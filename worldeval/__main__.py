"""``python -m worldeval`` is the command line."""

import sys

from worldeval.cli import main

sys.exit(main())
