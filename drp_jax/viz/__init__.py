"""Pictures, videos and pages for people."""

from drp_jax import extras

extras.require(__name__, 'train', 'jinja2', 'matplotlib', 'PIL')
extras.require(__name__, 'data', 'cv2')
