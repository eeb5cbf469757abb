"""`python -m relaywarden` is the same as the `relaywarden` command."""

from relaywarden.cli.main import main

if __name__ == "__main__":
    main()
