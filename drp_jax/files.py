"""Files that are whole or not there."""

import json
import os
import pathlib
from typing import Any


def write(path: str | os.PathLike, content: bytes) -> None:
  """Writes a file so that a reader sees the old one or the whole new one.

  Args:
    path: its folder is made if missing.
    content: all of it.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}.tmp')
  with open(partial, 'wb') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes JSON as `write` does."""
  write(path, (json.dumps(value, indent=2) + '\n').encode())
