"""``python -m spectrim``."""

from spectrim.cli import main

if __name__ == "__main__":
    main()
