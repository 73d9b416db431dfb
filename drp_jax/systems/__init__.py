"""DRP and the baselines, each in its own file or folder.

`registry.build` makes the one that a config names. Building one and updating it
need no extra.
"""
