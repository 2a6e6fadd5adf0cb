"""`python -m damorl`."""

import sys

from damorl.cli import main

sys.exit(main())
