"""``python -m caterva2`` is ``cat2``."""

from __future__ import annotations

import sys

from caterva2.cli import main

if __name__ == "__main__":
    sys.exit(main())
