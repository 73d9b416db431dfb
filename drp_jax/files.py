"""Writes files whole or not at all."""

import contextlib
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


@contextlib.contextmanager
def replacing(
  path: str | os.PathLike, writer: str = ''
) -> Iterator[pathlib.Path]:
  """Yields a path to write to; its file takes the place of `path` at the end.

  Readers see either the old file or the whole new one. After an exception the
  old one stays.

  Args:
    path: its folder is made if missing.
    writer: ending of the temporary file's name that no other process has, where
      several may write the file at once.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}{writer}.tmp')
  yield partial
  with open(partial, 'rb+') as file:
    os.fsync(file.fileno())
  os.replace(partial, path)


def write(path: str | os.PathLike, content: bytes, writer: str = '') -> None:
  """Writes a file as `replacing` does."""
  with replacing(path, writer) as partial:
    partial.write_bytes(content)


def write_json(path: str | os.PathLike, value: Any, writer: str = '') -> None:
  """Writes JSON like `write`."""
  write(path, (json.dumps(value, indent=2) + '\n').encode(), writer)


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
  """Writes arrays to a compressed `.npz` as `write` does."""
  content, save = io.BytesIO(), np.savez_compressed
  save(content, allow_pickle=False, **arrays)
  write(path, content.getvalue())


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
