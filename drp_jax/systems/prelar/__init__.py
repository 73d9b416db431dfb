"""PreLAR."""
