r"""Names of files as text: unique, reversible, safe in JSON and in lines.

A name on disk consists of bytes. Text in shards and reports is UTF-8, one name
per line. Bytes that are not UTF-8 and control characters therefore become
`\xNN`, as in a Python literal; a backslash that already begins such a group
becomes `\x5c`. All other names are unchanged.
"""

import os
import re

_ESCAPED = re.compile(r'\\x([0-9a-f]{2})')
_UNSAFE = re.compile(
  '[\x00-\x1f\x7f]'  # control characters
  '|[\udc80-\udcff]'  # os.fsdecode's codes for bytes that are not UTF-8
  r'|\\(?=x[0-9a-f]{2})'
)


def to_text(name: str) -> str:
  """Escapes a name or path that a function of `os` returned.

  Returns:
    Text that can be encoded as UTF-8 and holds no control character.
  """
  return _UNSAFE.sub(
    lambda found: f'\\x{os.fsencode(found.group())[0]:02x}', name
  )


def from_text(text: str) -> str:
  """Returns the name or path that `to_text` escaped."""
  parts = _ESCAPED.split(text)  # text, two hexadecimal digits, text, ...
  return os.fsdecode(
    b''.join(
      bytes.fromhex(part) if index % 2 else os.fsencode(part)
      for index, part in enumerate(parts)
    )
  )
