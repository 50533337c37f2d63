"""One thread a process: the suite runs two processes side by side, and a sum does not depend on how it was split.

No test has a deadline: the first call loads what it needs, and the machine may be busy."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import settings  # noqa: E402 - after the environment that imports read

settings.register_profile("guerdon", deadline=None)
settings.load_profile("guerdon")
