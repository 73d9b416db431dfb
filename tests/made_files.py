"""Files whose content is their name, and links, in folders made for a test."""


def touch(folder, *names):
  """Writes files below a folder; returns the folder."""
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode())
  return folder


def link(folder, name, target):
  """Makes a link, whether or not there is a target."""
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.symlink_to(target)


def ids(videos):
  """Returns the source ids of videos."""
  return [video.source_id for video in videos]
