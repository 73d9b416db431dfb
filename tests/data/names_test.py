r"""Names as text: unique, reversible, and unchanged where they are plain."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drp_jax.data import names

# All bytes that a name on disk may hold, and often what looks like an escape.
_NAMES = st.one_of(
  st.binary(min_size=1, max_size=20),
  st.lists(
    st.sampled_from([b'\\', b'x', b'5c', b'0a', b'\xff', b'\n', b'a', b'%']),
    min_size=1,
    max_size=8,
  ).map(b''.join),
).filter(lambda name: b'\0' not in name)


@given(_NAMES)
def test_every_name_comes_back_and_is_text(data):
  text = names.to_text(os.fsdecode(data))
  assert os.fsencode(names.from_text(text)) == data
  assert text.encode('utf-8') and text.splitlines() != []
  assert not any(ord(c) < 32 or ord(c) == 127 for c in text)


@given(_NAMES, _NAMES)
def test_two_names_are_two_texts(one, other):
  texts = names.to_text(os.fsdecode(one)), names.to_text(os.fsdecode(other))
  assert (texts[0] == texts[1]) == (one == other)


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    (b'a/b c.mp4', 'a/b c.mp4'),
    ('Zürich 東京.mp4'.encode(), 'Zürich 東京.mp4'),
    (b'%03d.mp4', '%03d.mp4'),
    (b'a\\b.mp4', 'a\\b.mp4'),
    (b'caf\xe9.mp4', 'caf\\xe9.mp4'),
    (b'caf\\xe9.mp4', 'caf\\x5cxe9.mp4'),
    (b'two\nlines\x7f', 'two\\x0alines\\x7f'),
  ],
)
def test_names_by_hand(name, text):
  assert names.to_text(os.fsdecode(name)) == text
