"""A command: says what it was given, and works with its files."""

import json
import os
import pathlib
import random
import sys
import time

from wit_world import exports


class Run(exports.Run):
    def run(self) -> None:
        print(json.dumps({"args": sys.argv[1:], "colour": os.environ["COLOUR"]}))
        data = pathlib.Path("/data")
        (data / "written").write_text(f"{time.time() > 1e9} {random.random() != random.random()}")
        os.rename(data / "written", data / "renamed")
        os.symlink("renamed", data / "link")
        print(sorted(os.listdir(data)), (data / "link").read_text())
        print("input", sys.stdin.read(), file=sys.stderr)
