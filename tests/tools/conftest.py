import sys
from pathlib import Path

# The scripts behind the Makefile import each other by name, as `python tools/run.py` lets them.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
