"""Theory against held-out rows on scikit-learn's digits: the figure of `make demo`."""

import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).with_name("digits.png")


def draw() -> Path:
    command = Path(sys.executable).with_name("replicajax")
    options = ["--data", "digits", "--alpha", "3", "--bits", "1-4", "--measure", "--figure", str(TARGET)]
    subprocess.run([command, "optimize", *options], check=True)
    return TARGET
