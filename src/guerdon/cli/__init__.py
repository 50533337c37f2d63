"""The command ``guerdon``; what a command needs is imported when it is called."""

from guerdon.cli.app import app

__all__ = ["app"]
