"""Videos, shards of atomic actions, batches of them, and replay."""
