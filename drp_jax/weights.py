"""Reads files of learned weights from explicit paths, without running code.

Nothing is downloaded. Pickles are read for tensors only (`weights_only`), so an
untrusted file cannot run code.
"""

import contextlib
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from drp_jax import extras

if TYPE_CHECKING:
  import torch

_MESSAGE = 300  # characters of another library's message
_NAMES_SHOWN = 3  # names in a message about arrays that do not fit


@dataclasses.dataclass(frozen=True)
class Source:
  """Origin of a file, for the message if it is missing.

  Attributes:
    key: config key of its path.
    files: expected file name(s).
    origin: where to get it.
    license: license of the file.
  """

  key: str
  files: str
  origin: str
  license: str


def find_file(path: str, source: Source) -> pathlib.Path:
  """Returns the path of a file of weights.

  Raises:
    ValueError: if there is none; the message names the expected file and its
      origin.
  """
  found = pathlib.Path(path)
  if not path or not found.is_file():
    raise _missing(path, 'a file', source)
  return found


def find_folder(
  path: str, needed: tuple[tuple[str, ...], ...], source: Source
) -> pathlib.Path:
  """Returns the path of a folder that holds certain files.

  Args:
    path: path of the folder.
    needed: groups of names; the folder must hold one name of each group.
    source: for the message.

  Raises:
    ValueError: if there is no such folder, or a file is missing.
  """
  found = pathlib.Path(path)
  if not path or not all(
    any((found / name).is_file() for name in names) for names in needed
  ):
    listed = ', '.join(' or '.join(names) for names in needed)
    raise _missing(path, f'a folder that holds {listed}', source)
  return found


def sha256(path: str | pathlib.Path) -> str:
  """Computes the digest of a file's bytes, to store with its results."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def read(path: pathlib.Path, source: Source) -> dict[str, 'torch.Tensor']:
  """Reads a file of weights to the CPU.

  Args:
    path: `.safetensors`, or a file of torch.save: a plain dict of tensors, or
      one under 'state_dict' (Lightning, ptlflow) or 'model' (training runs).
    source: for messages.

  Returns:
    Name -> tensor.

  Raises:
    ValueError: if it has another format, or contains more than data.
  """
  with extras.brings('torch', __name__):
    import torch
    from safetensors import torch as safetensors_torch

  with reading(path, source):
    if path.suffix == '.safetensors':
      return safetensors_torch.load_file(path)
    content = torch.load(path, map_location='cpu', weights_only=True)
  for name in ('state_dict', 'model'):
    if isinstance(content, dict) and isinstance(content.get(name), dict):
      content = content[name]
  if not isinstance(content, dict) or not all(
    isinstance(name, str) and isinstance(value, torch.Tensor)
    for name, value in content.items()
  ):
    raise ValueError(
      f'{source.key}={str(path)!r} holds no dict of tensors; expected '
      f'{source.files}.'
    )
  return content


@contextlib.contextmanager
def reading(path: pathlib.Path, source: Source) -> Iterator[None]:
  """Turns any error while a file is read into one that names it.

  Readers raise many kinds of errors for a damaged file: KeyError, IndexError,
  zip errors.

  Raises:
    ValueError: names the config key, the path and the expected files.
  """
  try:
    yield
  except Exception as error:
    lines = str(error).strip().splitlines() or ['']
    raise ValueError(
      f'{source.key}={str(path)!r} cannot be read as tensors only; is it one '
      f'of {source.files}, and whole? ({type(error).__name__}: '
      f'{lines[0][:_MESSAGE]})'
    ) from error


def fill(
  module: 'torch.nn.Module',
  tensors: dict[str, 'torch.Tensor'],
  source: Source,
) -> None:
  """Puts tensors into a module; every name and shape has to match.

  Raises:
    ValueError: if they do not match; names the counts and some arrays.
  """
  expected = module.state_dict()
  wrong = sorted(expected.keys() ^ tensors.keys())
  wrong += sorted(
    name
    for name in expected.keys() & tensors.keys()
    if expected[name].shape != tensors[name].shape
  )
  if wrong:
    raise ValueError(
      f'{source.key}: {len(tensors)} arrays in the file, {len(expected)} '
      f'expected; {len(wrong)} names or shapes do not fit, such as '
      f'{wrong[:_NAMES_SHOWN]}. Expected is {source.files}.'
    )
  module.load_state_dict(tensors)


def _missing(path: str, what: str, source: Source) -> ValueError:
  return ValueError(
    f'{source.key}={path!r} must name {what}: {source.files}, from '
    f'{source.origin} (license: {source.license}). Nothing is downloaded.'
  )
