"""The older name of extract_shapes.py."""

from extract_shapes import main
