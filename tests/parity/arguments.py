"""Arguments of the comparisons: the checkout, sizes, the seed, a folder."""

import argparse
import dataclasses
import os
import pathlib

import numpy as np


def number(default: int, least: int = 1, multiple_of: int = 1) -> int:
  """A field of sizes, with what is allowed."""
  return dataclasses.field(
    default=default, metadata={'least': least, 'multiple_of': multiple_of}
  )


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Seed and sizes of a comparison; the defaults are those of tests/golden.

  Attributes:
    seed: of weights, inputs and noise.
    sequences: B of a batch. The second one begins anew at step 3 and may
      terminate at step 2.
    steps: T of a batch.
    actions: A.
    horizon: H, imagined steps.
  """

  seed: int = number(0, least=0)
  sequences: int = number(2, least=2)
  steps: int = number(6, least=4)
  actions: int = number(3)
  horizon: int = number(4, least=2)

  def random(self, stream: int) -> np.random.Generator:
    """The seed's random numbers; streams are independent of each other."""
    return np.random.default_rng([stream, self.seed])

  def __str__(self) -> str:
    values = dataclasses.asdict(self).items()
    return ', '.join(f'{name} {value}' for name, value in values)


def parse(
  description: str, evidence: str, default: Sizes
) -> tuple[pathlib.Path, Sizes, pathlib.Path | None]:
  """Reads the command line.

  Args:
    description: of the command.
    evidence: a path that every checkout holds.
    default: sizes with which golden arrays are made. Each can be given.

  Returns:
    The checkout, sizes, and the folder for golden arrays, if one is given.
  """
  parser = argparse.ArgumentParser(description=description.split('\n')[0])
  parser.add_argument('--checkout', required=True, type=os.path.expanduser)
  parser.add_argument(
    '--golden',
    type=os.path.expanduser,
    help='Folder for what was fed and found, at the default sizes and seed.',
  )
  fields = dataclasses.fields(default)
  for field in fields:
    value = getattr(default, field.name)
    parser.add_argument(
      f'--{field.name}', type=int, default=value, help=f'By default {value}.'
    )
  args = parser.parse_args()
  for field in fields:
    value, least = getattr(args, field.name), field.metadata['least']
    factor = field.metadata['multiple_of']
    if value < least or value % factor:
      allowed = f'from {least} on'
      allowed += f', multiples of {factor}' if factor > 1 else ''
      parser.error(f'--{field.name}={value} is not allowed: {allowed}.')
  sizes = type(default)(**{x.name: getattr(args, x.name) for x in fields})
  checkout = pathlib.Path(args.checkout)
  if not (checkout / evidence).exists():
    parser.error(f'--checkout={checkout} holds no {evidence}')
  if args.golden and sizes != default:
    parser.error('--golden takes the default sizes and seed.')
  return checkout, sizes, pathlib.Path(args.golden) if args.golden else None
