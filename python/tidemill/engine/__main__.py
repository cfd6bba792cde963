"""``python -m tidemill.engine``: started by a host, not by hand."""

import sys

from ._serve import main

sys.exit(main(sys.argv[1:]))
