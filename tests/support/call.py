"""`python -m call FILE FUNCTION ARGUMENT ...` calls a function of a test file with strings."""

import runpy
import sys

if __name__ == "__main__":
    file, function, *arguments = sys.argv[1:]
    runpy.run_path(file)[function](*arguments)
