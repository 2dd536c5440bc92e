"""Folders that tests look into."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
REAL_DATA = ROOT.parent / "shared" / "data"  # real files beside the checkout, if there are any; never committed
