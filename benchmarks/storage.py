r"""Measures ways to store a clip: size, time, and the error they cause.

  python -m benchmarks.storage          # a table
  python -m benchmarks.storage --json   # and one line of JSON

It uses real videos: clips from a package, or those of --videos. The first row
is the layout of `drp_jax/data/shards.py`; the other rows replace the features
of image and flow.
"""

import dataclasses
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer

from benchmarks import extraction, record
from configs import extract as extract_config
from drp_jax.data import clips, schema, shard_files
from drp_jax.preprocess import backends, extract, video
from drp_jax.runs import logger
from experiments import launch

SSV2_VIDEOS = 162_074  # in the train list, with 25 frames or more       [A14]
_GIGABYTE = 1e9
_MEGABYTES_READ = 20.0  # per measurement of random reads
_BYTES = tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding='bytes')


@dataclasses.dataclass(frozen=True)
class Codec:
  """A way to store an array.

  Attributes:
    features: name -> feature of the stored values.
    encode: array -> stored values.
    decode: stored values -> array.
  """

  features: dict[str, tfds.features.FeatureConnector]
  encode: Callable[[np.ndarray], dict[str, np.ndarray]]
  decode: Callable[[dict[str, np.ndarray]], np.ndarray]


def _array(name: str, shape: tuple[int, ...], dtype: type) -> Codec:
  """Makes a codec that stores an array unchanged."""
  feature = tfds.features.Tensor(shape=shape, dtype=dtype, encoding='bytes')
  return Codec({name: feature}, lambda x: {name: x}, lambda d: d[name])


def flow_codecs(T: int) -> dict[str, Codec]:
  """Lists ways to store flow [T, 64, 64, 2] float16."""
  size = schema.IMAGE_SIZE
  steps = tfds.features.Tensor(
    shape=(T, size, size, 2), dtype=np.int8, encoding='bytes'
  )
  scale = tfds.features.Scalar(np.float32)

  def scaled(flow: np.ndarray) -> dict[str, np.ndarray]:
    step = np.float32(max(np.abs(flow).max(), 1e-3) / 127)
    return {'steps': np.rint(flow / step).astype(np.int8), 'scale': step}

  def fixed(flow: np.ndarray) -> dict[str, np.ndarray]:
    flow = flow.astype(np.float32)
    return {'steps': np.clip(np.rint(8 * flow), -127, 127).astype(np.int8)}

  return {
    'float16': _array('flow', (T, size, size, 2), np.float16),
    'int8, scale per clip': Codec(
      {'steps': steps, 'scale': scale},
      scaled,
      lambda d: (d['steps'] * np.float32(d['scale'])).astype(np.float16),
    ),
    'int8, eighths of a pixel': Codec(
      {'steps': steps}, fixed, lambda d: (d['steps'] / 8).astype(np.float16)
    ),
  }


def image_codecs(T: int) -> dict[str, Codec]:
  """Lists ways to store frames [T, 64, 64, 3] uint8."""
  size = schema.IMAGE_SIZE
  return {
    'raw': _array('image', (T, size, size, 3), np.uint8),
    'PNG': _pictures(T, '.png', []),
    'JPEG 95': _pictures(T, '.jpg', [cv2.IMWRITE_JPEG_QUALITY, 95]),
    'H.264': Codec({'film': _BYTES}, _to_film, _from_film),
  }


def _pictures(T: int, suffix: str, options: list[int]) -> Codec:
  """Makes a codec of one compressed picture per frame, in sequence."""
  lengths = tfds.features.Tensor(shape=(T,), dtype=np.int32, encoding='bytes')

  def encode(frames: np.ndarray) -> dict[str, np.ndarray]:
    # OpenCV's channel order, in both directions.
    files = [cv2.imencode(suffix, f[..., ::-1], options)[1] for f in frames]
    return {
      'pictures': np.concatenate(files),
      'lengths': np.array([len(file) for file in files], np.int32),
    }

  def decode(stored: dict[str, np.ndarray]) -> np.ndarray:
    files = np.split(stored['pictures'], np.cumsum(stored['lengths'])[:-1])
    decoded = [cv2.imdecode(file, cv2.IMREAD_COLOR) for file in files]
    return np.stack(decoded)[..., ::-1]

  return Codec({'pictures': _BYTES, 'lengths': lengths}, encode, decode)


def _to_film(frames: np.ndarray) -> dict[str, np.ndarray]:
  with tempfile.TemporaryDirectory() as scratch:
    path = pathlib.Path(scratch, 'clip.mp4')
    video.write_video(path, frames, 25)
    return {'film': np.fromfile(path, np.uint8)}


def _from_film(stored: dict[str, np.ndarray]) -> np.ndarray:
  with tempfile.TemporaryDirectory() as scratch:
    path = pathlib.Path(scratch, 'clip.mp4')
    stored['film'].tofile(path)
    return np.stack(list(video.iterate(path)))


def real_clips(folder: str, num_clips: int) -> list[clips.Example]:
  """Makes examples of clips from all videos of a folder in turn."""
  estimators = backends.make_backends(
    backends.Settings(**extract_config.get_config().to_dict())
  )
  plan = clips.ClipPlan(25, 25, 0.0, 0, {'description': estimators.description})
  by_video = [
    (
      example
      for _, example in clips.examples(
        video_id,
        plan,
        lambda v: schema.Footage(np.stack(list(video.iterate(v.path)))),
        lambda footage, rng: extract.extract_clip(footage, estimators, rng),
        clips.SPLITS,
      )
      if example is not None
    )
    for video_id in extraction.videos(folder)
  ]
  turns = itertools.chain(*itertools.zip_longest(*by_video))
  return list(itertools.islice(filter(None, turns), num_clips))


def measure(
  examples: list[clips.Example], image: Codec, flow: Codec
) -> dict[str, float]:
  """Writes and reads examples in one layout.

  Args:
    examples: clips of one length.
    image: codec of frames.
    flow: codec of flow.

  Returns:
    bytes: bytes per clip of the file, which ArrayRecord compresses.
    write_ms, read_ms: CPU time per clip, from and to arrays; reads are in
      random order, from the page cache.
    flow_error, flow_error_max: pixels per frame, mean and maximum of the
      absolute difference of a component.
    flow_error_relative: root mean square of the difference, divided by that of
      the flow.
    image_error: gray levels of 255, mean of the absolute difference.
  """
  T = len(examples[0]['image'])
  kept = {
    name: feature
    for name, feature in shard_files.features(T).items()
    if name not in ('image', 'flow')
  }
  spec = tfds.features.FeaturesDict({**kept, **image.features, **flow.features})
  serializer = example_serializer.ExampleSerializer(spec.get_serialized_info())
  with tempfile.TemporaryDirectory() as scratch:
    path = pathlib.Path(scratch, 'shard')
    writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
    start = time.process_time()
    for example in examples:
      arrays = {name: example[name] for name in kept}
      arrays |= image.encode(example['image'])
      arrays |= flow.encode(example['flow'])
      writer.write(serializer.serialize_example(spec.encode_example(arrays)))
    writer.close()
    write = time.process_time() - start
    size = path.stat().st_size / len(examples)
    reader = array_record_module.ArrayRecordReader(str(path))
    order = np.random.default_rng(0).permutation(len(examples))
    order = np.resize(order, max(len(order), int(_MEGABYTES_READ * 1e6 / size)))
    start = time.process_time()
    for index in order:
      stored = spec.deserialize_example_np(reader.read([int(index)])[0])
      image.decode(stored), flow.decode(stored)
    read = time.process_time() - start
    errors = [
      _errors(
        example,
        spec.deserialize_example_np(reader.read([index])[0]),
        image,
        flow,
      )
      for index, example in enumerate(examples)
    ]
    reader.close()
  mean = {name: np.mean([e[name] for e in errors]) for name in errors[0]}
  return {
    'bytes': size,
    'write_ms': 1e3 * write / len(examples),
    'read_ms': 1e3 * read / len(order),
    'flow_error': mean['flow_error'],
    'flow_error_max': max(e['flow_error_max'] for e in errors),
    'flow_error_relative': (mean['error2'] / mean['flow2']) ** 0.5,
    'image_error': mean['image_error'],
  }


def _errors(
  example: clips.Example,
  stored: dict[str, np.ndarray],
  image: Codec,
  flow: Codec,
) -> dict[str, float]:
  """Computes the errors of one clip."""
  true = example['flow'][1:].astype(np.float64)
  wrong = np.abs(flow.decode(stored)[1:].astype(np.float64) - true)
  frames = np.abs(image.decode(stored).astype(int) - example['image'])
  return {
    'flow_error': wrong.mean(),
    'flow_error_max': wrong.max(),
    'error2': (wrong**2).mean(),
    'flow2': (true**2).mean(),
    'image_error': frames.mean(),
  }


def table(rows: dict[str, dict[str, float]]) -> str:
  """Formats results in Markdown."""
  head = (
    '| image, flow | kB a clip | GB for SSV2 | write ms | read ms '
    '| flow error px: mean, max, of RMS | image error |'
  )
  lines = [head, '|---' * 7 + '|']
  for name, r in rows.items():
    lines.append(
      f'| {name} | {r["bytes"] / 1e3:.0f}'
      f' | {r["bytes"] * SSV2_VIDEOS / _GIGABYTE:.0f}'
      f' | {r["write_ms"]:.1f} | {r["read_ms"]:.1f}'
      f' | {r["flow_error"]:.4f}, {r["flow_error_max"]:.3f},'
      f' {r["flow_error_relative"]:.2%} | {r["image_error"]:.2f} |'
    )
  return '\n'.join(lines)


def main() -> None:
  examples = real_clips(_VIDEOS.value, _CLIPS.value)
  T = len(examples[0]['image'])
  images, flows = image_codecs(T), flow_codecs(T)
  names = [
    *(('raw', flow) for flow in flows),
    *((image, 'float16') for image in images if image != 'raw'),
    ('PNG', 'int8, scale per clip'),
  ]
  rows = {
    f'{image}, {flow}': measure(examples, images[image], flows[flow])
    for image, flow in logger.progress(names, 'storage', 'layout')
  }
  print(table(rows))
  record.finish({'layouts': rows, 'clips': len(examples)})


if __name__ == '__main__':
  _CLIPS = flags.DEFINE_integer('clips', 24, 'Number of clips.', 1)
  _VIDEOS = flags.DEFINE_string(
    'videos', '', 'Folder of videos; empty uses clips from a package.'
  )
  launch.run(main)
