"""DisWM."""
