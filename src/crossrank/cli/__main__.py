"""`python -m crossrank.cli`, for where the `crossrank` script is not on the path."""

from __future__ import annotations

from crossrank.cli import main

if __name__ == "__main__":
    main()
