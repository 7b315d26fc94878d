"""Strategy files that somebody wrote."""

from collections.abc import Callable
from pathlib import Path

NAMES_A_FILE = """\
distributed_type: DEEPSPEED
deepspeed_config:
  deepspeed_config_file: configs/deepspeed/own.json
"""

Write = Callable[..., Path]
