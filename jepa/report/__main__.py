"""`jepa report RUN_DIR`, also `python -m jepa.report RUN_DIR`."""

import sys

from jepa.report.page import main

if __name__ == "__main__":
    sys.exit(main())
