"""The ratings of MovieLens-100K, which the package recbole carries, as a list that `eckart fit` reads.

pip install --no-deps recbole==1.2.1
python examples/ratings.py ratings.tsv
eckart fit ratings.tsv --entries user,film,rating --method completion-altmin --rank 20 --hold-out 10% --out films
"""

from __future__ import annotations

import argparse
import csv
from importlib.util import find_spec
from pathlib import Path


def carried() -> Path:
    """Where the package lies, which is not imported."""
    found = find_spec("recbole")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("recbole is not installed: pip install --no-deps recbole==1.2.1, or hand in --data FOLDER")
    return Path(found.submodule_search_locations[0]) / "dataset_example/ml-100k"


def read(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.reader(opened, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the file to write, user, film and rating in a line")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="with ml-100k.inter and ml-100k.item")
    options = parser.parse_args()
    folder = options.data or carried()
    # Some titles are there twice, under two numbers.
    titles = {number: f"{title} ({year}), {number}" for number, title, year, *_ in read(folder / "ml-100k.item")}
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["user", "film", "rating"])
        for user, number, rating, *_ in read(folder / "ml-100k.inter"):
            writer.writerow([user, titles[number], rating])


if __name__ == "__main__":
    main()
