"""Opens a page in a headless browser, where one is installed."""

import dataclasses
import html
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
# What the browser is asked, in a copy of the page, once it has loaded: pages
# have no scripts of their own.
_PROBE = """<script>addEventListener('load', () => {
  document.documentElement.dataset.seen = JSON.stringify({
    pictures: [...document.images].map(i => i.complete && i.naturalWidth > 0),
    too_wide: document.documentElement.scrollWidth > innerWidth,
  });
})</script></body>"""


@dataclasses.dataclass(frozen=True)
class Seen:
  """What the browser made of a page.

  Attributes:
    pictures: whether each picture was shown, moving ones too.
    too_wide: whether the page has to be scrolled sideways.
    complaints: lines of the console.
  """

  pictures: list[bool]
  too_wide: bool
  complaints: list[str]


def look(page: str, folder: pathlib.Path) -> Seen:
  """Shows a page of HTML; skips the test if there is no browser.

  Args:
    page: its text.
    folder: empty, for the copy and the browser's profile.
  """
  browser = next(filter(None, map(shutil.which, _NAMES)), None)
  if browser is None:
    pytest.skip(f'none of {_NAMES} is installed (apt-get install chromium)')
  path = folder / 'page.html'
  path.write_text(page.replace('</body>', _PROBE), encoding='utf-8')
  done = subprocess.run(
    [
      browser,
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--enable-logging=stderr',
      '--virtual-time-budget=5000',
      f'--user-data-dir={folder / "profile"}',
      '--dump-dom',
      path.as_uri(),
    ],
    capture_output=True,
    text=True,
    timeout=600,
    env={**os.environ, 'HOME': str(folder)},
    check=False,
  )
  assert done.returncode == 0, done.stderr
  (seen,) = re.findall(r'data-seen="([^"]*)"', done.stdout)
  return Seen(
    **json.loads(html.unescape(seen)),
    complaints=[x for x in done.stderr.splitlines() if ':CONSOLE' in x],
  )
