"""Search a folder of photos with a sentence: python examples/search_photos.py RUN_DIR FOLDER "two red balls".

RUN_DIR is a run of `--modality image-text`. `jepa embed` reads a folder once, or --again if its photos have changed;
`jepa search` searches it. --html PAGE writes a page of thumbnails.
"""

import argparse
import hashlib
import sys
from pathlib import Path

from jepa.embedding.command import main as embed
from jepa.search.command import main as search


def main() -> int:
    """Print the best matches with their scores -> exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sentence")
    parser.add_argument("--again", action="store_true")
    arguments, more = parser.parse_known_args()
    folder = arguments.folder.resolve()
    digest = hashlib.blake2b(str(folder).encode(), digest_size=4).hexdigest()  # another folder may have the same name
    vectors = arguments.run / f"photos_{folder.name}_{digest}.parquet"
    if arguments.again or not vectors.exists():
        of_images = ["--stream", "image", "data.source=images", "data.max_bad_fraction=0.9", "--overwrite"]
        if status := embed([str(arguments.run), str(arguments.folder), "-o", str(vectors), *of_images]):
            return status
    return search([str(vectors), arguments.sentence, *more])


if __name__ == "__main__":
    sys.exit(main())
