"""Reads official checkpoints, writes ours, and runs the converting commands."""

import argparse
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from drp_jax import weights
from drp_jax.runs import checkpoint

_NAMES_SHOWN = 8  # of the arrays that do not fit, in a message


def read(
  path: str | pathlib.Path, source: weights.Source, parts: Mapping[str, str]
) -> dict[str, np.ndarray]:
  """Reads the arrays of a checkpoint by their names in `variables.pt`.

  Args:
    path: `variables.pt`, or a folder with the files of `parts`.
    source: what errors say of the files.
    parts: files of a folder, and what comes before their arrays' names.

  Raises:
    ValueError: if there is no such file, or it holds something else.
  """
  folder = pathlib.Path(path)
  if folder.is_dir():
    weights.find_folder(str(path), tuple((name,) for name in parts), source)
    files = {folder / name: prefix for name, prefix in parts.items()}
  else:
    files = {weights.find_file(str(path), source): ''}
  return {
    prefix + name: tensor.float().numpy()
    for file, prefix in files.items()
    for name, tensor in weights.read(file, source).items()
  }


def save(
  directory: str | pathlib.Path, variables: dict[str, Any], meta: dict[str, Any]
) -> None:
  """Writes a checkpoint that `config.init_from` takes.

  Args:
    directory: the new workdir.
    variables: from `convert`.
    meta: JSON values: where they come from.

  Raises:
    ValueError: if there is a checkpoint already.
  """
  saved = checkpoint.Checkpoints(directory)
  if saved.latest_step() is not None:
    raise ValueError(f'--out={str(directory)!r} holds a checkpoint already.')
  collections = {k: v for k, v in variables.items() if k != 'params'}
  state = {'params': variables['params'], 'collections': collections}
  saved.save(0, jax.tree.map(jnp.asarray, state), meta)
  saved.close()


def check_shapes(
  variables: dict[str, Any], expected: dict[str, Any], source: weights.Source
) -> None:
  """Compares converted variables with the shapes of our modules' own.

  Args:
    variables: converted.
    expected: the same tree of shapes.
    source: what errors say of the file.

  Raises:
    ValueError: naming what differs, in our tree.
  """
  wanted, found = (
    flax.traverse_util.flatten_dict(jax.tree.map(lambda leaf: leaf.shape, x))
    for x in (expected, variables)
  )
  assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
  wrong = listed(
    f'{"/".join(path)} {found[path]} instead of {shape}'
    for path, shape in wanted.items()
    if found[path] != shape
  )
  if wrong:
    raise ValueError(f'{source.key} holds arrays of other shapes: {wrong}.')


def listed(names: Iterable[str]) -> str:
  """Names the first of some arrays, for a message."""
  names = sorted(names)
  shown = ', '.join(names[:_NAMES_SHOWN])
  more = len(names) - _NAMES_SHOWN
  return f'{shown} and {more} more' if more > 0 else shown


def main(
  what: str,
  source: weights.Source,
  convert: Callable[[str], dict[str, Any]],
) -> None:
  """Runs a command that converts a checkpoint into a new workdir.

  Args:
    what: its help.
    source: of the checkpoint.
    convert: the path of the checkpoint -> our variables; its ValueErrors are
      the user's.
  """
  parser = argparse.ArgumentParser(
    description=what, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--checkpoint', required=True, type=os.path.expanduser, help=source.files
  )
  parser.add_argument(
    '--out', required=True, type=os.path.expanduser, help='the new workdir'
  )
  args = parser.parse_args()
  logging.basicConfig(level=logging.INFO, format='%(message)s')
  try:
    variables = convert(args.checkpoint)
    save(args.out, variables, {'converted_from': args.checkpoint})
  except ValueError as error:
    parser.error(str(error))
  logging.info('%s: %s', args.out, _counts(variables['params']))


def _counts(params: dict[str, Any]) -> str:
  """How many numbers each parameter set has, for people."""
  return ', '.join(
    f'{name} {sum(leaf.size for leaf in jax.tree.leaves(tree)):,}'
    for name, tree in params.items()
  )
