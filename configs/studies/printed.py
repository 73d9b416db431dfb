"""The numbers that the paper prints: Tables 1 to 4.

Episode returns on DMC Remastered after 1.02 M environment steps, mean and
standard deviation over five seeds. Curves (Figs. 4 to 7, 12, 13) are printed as
pictures only.
"""

_WALKER, _HOPPER = 'dmcr/walker_run', 'dmcr/hopper_stand'

# Study -> (system, task) -> mean, standard deviation.
TABLES = {
  'table1': {
    ('drp', _WALKER): (681, 39),
    ('drp', _HOPPER): (796, 114),
    ('without_dynamics', _WALKER): (613, 45),
    ('without_dynamics', _HOPPER): (708, 106),
    ('ipv', _WALKER): (595, 67),
    ('ipv', _HOPPER): (634, 128),
    ('ipv_without_dynamics', _WALKER): (586, 61),
    ('ipv_without_dynamics', _HOPPER): (628, 134),
  },
  'table2': {
    ('keypoints_8', _WALKER): (646, 45),
    ('keypoints_8', _HOPPER): (775, 123),
    ('keypoints_16', _WALKER): (681, 39),
    ('keypoints_16', _HOPPER): (796, 114),
    ('keypoints_32', _WALKER): (667, 43),
    ('keypoints_32', _HOPPER): (799, 105),
  },
  'table3': {
    ('mask_ratio_30', _WALKER): (648, 42),
    ('mask_ratio_50', _WALKER): (681, 39),
    ('mask_ratio_70', _WALKER): (660, 47),
  },
  'table4': {
    ('patch_12', _WALKER): (649, 52),
    ('patch_16', _WALKER): (681, 39),
    ('patch_24', _WALKER): (652, 32),
  },
}

# Table 1: a system, the same without its dynamics model, and by how many per
# cent the paper says that the mean return falls.
DROPS = {
  ('drp', 'without_dynamics'): {_WALKER: 10.0, _HOPPER: 11.1},
  ('ipv', 'ipv_without_dynamics'): {_WALKER: 1.5, _HOPPER: 0.9},
}
