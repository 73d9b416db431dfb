"""Writes files whole or not at all."""

import json
import os
import pathlib
from typing import Any


def write(path: str | os.PathLike, content: bytes, writer: str = '') -> None:
  """Writes a file so that readers see the old one or the complete new one.

  Args:
    path: path of the file; its folder is created if missing.
    content: content of the file.
    writer: suffix of the temporary file, unique for each process, if several
      may write the file at once.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}{writer}.tmp')
  with open(partial, 'wb') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def write_json(path: str | os.PathLike, value: Any, writer: str = '') -> None:
  """Writes JSON like `write`."""
  write(path, (json.dumps(value, indent=2) + '\n').encode(), writer)


def read_json(path: str | os.PathLike) -> dict[str, Any]:
  """Reads a file that holds a JSON object.

  Raises:
    ValueError: if it is damaged; the error names it.
  """
  try:
    value = json.loads(pathlib.Path(path).read_bytes())
  except ValueError as error:
    raise ValueError(f'{os.fspath(path)!r} is damaged: {error}.') from error
  if not isinstance(value, dict):
    raise ValueError(f'{os.fspath(path)!r} is damaged: it is no JSON object.')
  return value
