"""From video to atomic actions: flow, masks, tracks, keypoints (Sec. 4.2.1).

PyAV and torch live here and nowhere else; data, envs and models import nothing
of this package. Frames are uint8 RGB [64, 64, 3] throughout.
"""

from drp_jax import extras

extras.require(__name__, 'data', 'av', 'cv2')
