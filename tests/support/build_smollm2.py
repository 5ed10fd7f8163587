"""Build the registry's HEAD on the real model, and print the sums: run in other environments by the test.

python build_smollm2.py REGISTRY OUT THREADS SHARD_BYTES
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pv.registry.registry import Registry
from pv.vecstore.merge.build import build
from pv.vecstore.repo.opening import opened


def main() -> None:
    root, out, threads, shard_bytes = sys.argv[1:]
    with Registry.find(Path(root)) as registry:
        commit = registry.resolve("HEAD")
        persona = registry.persona(commit)
        with opened(registry, commit, [persona]) as at:
            made = build(
                persona,
                at.base,
                at.vectors,
                Path(out),
                side_files=registry.base_files(commit),
                threads=int(threads),
                shard_bytes=int(shard_bytes),
            )
    print(json.dumps({"weights": made.weights, "files": dict(made.files), "torch": "torch" in sys.modules}))


if __name__ == "__main__":
    main()
