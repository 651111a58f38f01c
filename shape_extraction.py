"""The older name of extract_shapes.py."""

from inference.options import run_script
from inference.shape_script import main

if __name__ == "__main__":
    run_script(main)
