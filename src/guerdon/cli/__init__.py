"""The command ``guerdon``; what a command needs is imported when it is called."""

import os

# A run shows its own progress; the libraries' notices (a caption cut at the text encoder's length, a missing
# torchvision, bars for files of a few megabytes) would bury it. Set these yourself to see them.
for _name, _value in {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}.items():
    os.environ.setdefault(_name, _value)

from guerdon.cli.app import app  # noqa: E402 - after the environment that its imports read

__all__ = ["app"]
