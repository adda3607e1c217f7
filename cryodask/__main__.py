"""`python -m cryodask`."""

from cryodask.cli.main import main

if __name__ == "__main__":
    main()
