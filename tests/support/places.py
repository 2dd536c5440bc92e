"""Folders that tests look into."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
REAL_DATA = ROOT.parent / "shared" / "data"  # beside the checkout where there is any; never committed
