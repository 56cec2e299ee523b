#!/usr/bin/env python3
"""Makes the corpora of the fuzz targets from the recorded exchanges in tests/oracle/scenarios.

    python3 fuzz/seed.py

Writes corpus/TARGET/seed-NAME: bodies by their content type, selectors of queries, quantities of bodies, and the
managedFields of answers. An input is kept when it has a shape (keys, directives, types) that no input before it had, so
that a few dozen stand for thousands. Inputs that fuzzing found have other names and are left alone.
"""

import base64
import gzip
import json
import re
from pathlib import Path

HERE = Path(__file__).parent
SCENARIOS = HERE.parent / "tests/oracle/scenarios"
MOST = 40  # inputs of one target
LONGEST = 4096  # bytes of one input

PATCHES = {
    "application/json-patch+json": "json_patch",
    "application/merge-patch+json": "merge_patch",
    "application/strategic-merge-patch+json": "strategic_patch",
}


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def body_of(step):
    """A request's body as bytes."""
    if "bodyBase64" in step:
        return base64.b64decode(step["bodyBase64"])
    if "bodyText" in step:
        return step["bodyText"].encode()
    if "body" in step:
        return compact(step["body"]).encode()
    return b""


def placeholders(value):
    """Recorded answers with placeholders for what differs from run to run, made into real values again."""
    text = compact(value).replace("<now>", "2030-01-01T00:00:00Z")
    return re.sub(r"<(uid|rv)(\d+)>", r"\2", text).replace("${ns}", "ns")


def shape(data):
    """What is special about an input: keys, directives and types; in short texts, every run of one class."""
    text = data.decode("utf-8", "replace")
    if len(text) < 200 and not text.startswith(("{", "[")):
        classes = re.sub(r"[a-z]+", "a", re.sub(r"[0-9]+", "0", text))
        return frozenset(classes[at : at + length] for length in (1, 2, 3) for at in range(len(classes)))
    keys = re.findall(r'"[^"]{1,60}":.', text)
    values = re.findall(r'"op":"\w+"|\$\w+[^:]*:"?\w*', text)
    return frozenset(keys + values + re.findall(r"[^\w\s]{3,6}", re.sub(r"[\w ./-]+", "", text)))


class Corpora:
    def __init__(self):
        self.inputs = {}

    def add(self, target, name, data):
        if 0 < len(data) <= LONGEST:
            self.inputs.setdefault(target, {}).setdefault(bytes(data), name)

    def write(self):
        for target, inputs in self.inputs.items():
            folder = HERE / "corpus" / target
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("seed-*"):
                old.unlink()
            seen, kept = set(), []
            left = [(shape(data), data, name) for data, name in inputs.items()]
            # Greedy cover: always the input that shows most that is new, the shorter first.
            while left and len(kept) < MOST:
                best = max(left, key=lambda item: (len(item[0] - seen), -len(item[1]), item[2]))
                if not best[0] - seen:
                    break
                seen |= best[0]
                kept.append(best)
                left.remove(best)
            for number, (_, data, name) in enumerate(sorted(kept, key=lambda item: item[2])):
                short = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48]
                (folder / f"seed-{number:02}-{short}").write_bytes(data)


def main():
    corpora = Corpora()
    for file in sorted(SCENARIOS.glob("*.jsonl.gz")):
        for line in gzip.open(file, "rt"):
            scenario = json.loads(line)
            name, live = scenario["name"], {}
            for step in scenario["steps"]:
                content = ((step.get("headers") or {}).get("Content-Type") or "application/json").split(";")[0]
                body = body_of(step).replace(b"${ns}", b"ns")
                path = step["path"]
                answer = step.get("expect", {}).get("body")
                if step["method"] == "POST" and not answer:
                    answer = step.get("body")
                if content in PATCHES:
                    target = live.get(path)
                    target = b"\n" + placeholders(target).encode() if target else b""
                    corpora.add(PATCHES[content], name, body.replace(b"\n", b" ") + target)
                elif content == "application/apply-patch+yaml":
                    corpora.add("yaml", name, body)
                    target = live.get(path)
                    target = b"\n" + placeholders(target).encode() if target else b""
                    corpora.add("apply", name, body.replace(b"\n", b" ") + target)
                elif content == "application/vnd.kubernetes.protobuf":
                    corpora.add("protobuf", name, body)
                elif content == "application/yaml":
                    corpora.add("yaml", name, body)
                elif body:
                    corpora.add("json", name, body)
                query = step.get("query") or {}
                for parameter, target in (("labelSelector", "label_selector"), ("fieldSelector", "field_selector")):
                    values = query.get(parameter) or []
                    for value in [values] if isinstance(values, str) else values:
                        corpora.add(target, name, value.replace("${ns}", "ns").encode())
                quantities = re.findall(rb'"(?:cpu|memory|storage|pods|sizeLimit|ephemeral-storage)":"?([^",}]+)', body)
                for value in quantities:
                    corpora.add("quantity", name, value)
                if isinstance(answer, dict) and answer.get("kind") not in (None, "Status") and "items" not in answer:
                    meta = answer.get("metadata") or {}
                    place = path if path.endswith("/" + meta.get("name", "")) else f"{path}/{meta.get('name')}"
                    live[place] = answer
                    sets = [compact(entry["fieldsV1"]) for entry in meta.get("managedFields") or [] if "fieldsV1" in entry]
                    if sets:
                        corpora.add("fields_v1", name, "\n".join([sets[0], sets[-1]]).encode())
    corpora.write()


if __name__ == "__main__":
    main()
