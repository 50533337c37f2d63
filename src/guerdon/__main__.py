"""``python -m guerdon`` is the command ``guerdon``."""

from guerdon.cli import app

if __name__ == "__main__":
    app()
