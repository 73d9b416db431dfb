"""What tests compile is kept, and serves every checkout."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture
def keep_in():
  """A function that chooses the folder; the suite's own afterwards."""
  own = jax.config.jax_compilation_cache_dir

  def choose(folder):
    jax.config.update('jax_compilation_cache_dir', str(folder))
    compilation_cache.reset_cache()
    jax.clear_caches()

  yield choose
  choose(own)


def test_a_program_is_kept_under_a_name_without_its_folder(keep_in, tmp_path):
  """Though it takes milliseconds to compile; so `.cache` can be shared."""
  names = []
  for folder in (tmp_path / 'one', tmp_path / 'other' / 'checkout'):
    keep_in(folder)
    jax.jit(lambda x: 3 * x + 1)(jnp.float32(2)).block_until_ready()
    names.append(sorted(path.name for path in folder.iterdir()))
  assert names[0] and names[0] == names[1]
