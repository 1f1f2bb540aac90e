"""`python -m cotinterp.cli`."""

from cotinterp.cli import main

if __name__ == "__main__":
    main()
