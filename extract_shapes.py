"""Meshes and volumes of a trained generator's shapes; `--help` says all about it."""

from inference.options import run_script
from inference.shape_script import main

if __name__ == "__main__":
    run_script(main)
