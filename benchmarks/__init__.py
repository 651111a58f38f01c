"""Fast paths timed against plain ones, side by side in one run."""
