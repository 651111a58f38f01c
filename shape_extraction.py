"""The older name of extract_shapes.py."""
