"""python -m pv"""

from __future__ import annotations

from pv.cli.main import main

if __name__ == "__main__":
    main()
