"""``python -m spectrim``."""

from spectrim.cli.app import main

if __name__ == "__main__":
    main()
