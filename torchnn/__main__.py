"""`python -m torchnn` and the `torchnn` script."""

from torchnn.cli import main

if __name__ == "__main__":
    main()
