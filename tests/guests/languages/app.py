"""A command: says what it was given, and works with its files."""

import json
import os
import pathlib
import random
import sys
import time

from wit_world import exports


def compute() -> None:
    """Works for some seconds, with numbers, texts and dictionaries."""
    primes = [n for n in range(2, 100_000) if all(n % d for d in range(2, int(n**0.5) + 1))]
    words = {}
    for n in range(3_000_000):
        word = f"{n % 997:x}"
        words[word] = words.get(word, 0) + n
    ordered = sorted(words.items(), key=lambda item: (item[1] % 101, item[0]))
    print(len(primes), ordered[0])


class Run(exports.Run):
    def run(self) -> None:
        if sys.argv[1:] == ["compute"]:
            return compute()
        print(json.dumps({"args": sys.argv[1:], "colour": os.environ["COLOUR"]}))
        data = pathlib.Path("/data")
        (data / "written").write_text(f"{time.time() > 1e9} {random.random() != random.random()}")
        os.rename(data / "written", data / "renamed")
        os.symlink("renamed", data / "link")
        print(sorted(os.listdir(data)), (data / "link").read_text())
        print("input", sys.stdin.read(), file=sys.stderr)
