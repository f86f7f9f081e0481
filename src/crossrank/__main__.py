"""`python -m crossrank`: the command line of this very Python, also where no `crossrank` script is on the path."""

from __future__ import annotations

from crossrank.cli import main

if __name__ == "__main__":
    main()
