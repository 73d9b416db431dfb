"""Output of every benchmark: --json and --out."""

import json
import pathlib
from typing import Any

from absl import flags

from drp_jax import files
from drp_jax.runs import workdir

_JSON = flags.DEFINE_bool('json', False, 'End with one line of JSON.')
_OUT = flags.DEFINE_string('out', '', 'File to write the JSON to.')


def save(values: dict[str, Any]) -> dict[str, Any]:
  """Adds commit, versions and hardware, and writes all to --out, if given."""
  report = {**workdir.describe(), **values}
  if _OUT.value:
    path = pathlib.Path(_OUT.value).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, report)
  return report


def finish(values: dict[str, Any]) -> None:
  """Saves, and prints one line of JSON with --json."""
  report = save(values)
  if _JSON.value:
    print(json.dumps(report))
