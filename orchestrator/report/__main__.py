"""`python -m orchestrator.report RUN_FOLDER`: see page.py."""

from __future__ import annotations

import sys

from orchestrator.report.page import main

if __name__ == "__main__":
    sys.exit(main())
