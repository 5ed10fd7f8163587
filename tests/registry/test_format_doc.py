"""docs/FORMAT.md is held to: its shell examples are run, its JSON examples are read, its config is compared."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.registries import add

from pv.registry import provenance
from pv.registry.errors import FormatError
from pv.registry.format_file import format_bytes
from pv.registry.git import repository
from pv.registry.history.operations import Operation
from pv.registry.manifest import BaseManifest, VectorManifest
from pv.registry.persona import Persona
from pv.registry.registry import Registry

TEXT = (Path(__file__).parents[2] / "docs" / "FORMAT.md").read_text().partition("\n## Packs")[0]
SHELL = re.findall(r"```sh\n(.*?)\n# ([0-9a-f]{64})\n```", TEXT, re.DOTALL)
EXAMPLES = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]


def example(key: str, value: object = ...) -> dict[str, object]:
    return next(e for e in EXAMPLES if key in e and value in (..., e[key]))


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
@pytest.mark.parametrize(("script", "expected"), SHELL)
def test_ids(script: str, expected: str) -> None:
    out = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
    assert out.split()[0] == expected


def test_there_is_one_example_of_each() -> None:
    assert len(SHELL) == 6
    assert len(EXAMPLES) == 11


def test_documents_have_the_keys_that_are_written(registry: Registry) -> None:
    add(registry, "a", 1)
    persona, vector = registry.persona(), registry.vector(None, registry.persona().vectors[0])
    assert set(example("behaviours")) == set(persona.to_json())
    assert set(example("kind", "base")) == set(registry.base().to_json())
    assert set(example("kind", "vector")) == set(vector.to_json())
    assert set(example("seq")) == set(registry.operations()[0].to_json())
    registry.update_record("ab" * 32, {})
    record = json.loads((registry.root / "records" / f"{'ab' * 32}.json").read_bytes())
    assert set(example("facts")) == set(record)


def test_examples_are_what_the_readers_read() -> None:
    def filled(document: dict[str, object], digits: int = 64) -> dict[str, object]:
        whole: dict[str, object] = json.loads(re.sub(r"<[^>]*>", "a" * digits, json.dumps(document)))
        return whole

    persona = filled(example("behaviours"))
    Persona.from_json(persona)
    Persona.from_json({**persona, "schema": 2, "steering": filled(example("rule"))})
    operation = {**example("seq"), "refs": [["refs/heads/main", None, "a" * 40]]}
    Operation.from_bytes(json.dumps(operation).encode(), "0" * 40)
    for kind, reader in (("base", BaseManifest), ("vector", VectorManifest)):
        document = filled(example("kind", kind))
        with pytest.raises(FormatError, match="its tensors give id"):  # all else about it is right
            reader.from_bytes(json.dumps(document).encode())
    on = {"commit": "a" * 40, "persona": "a" * 64}
    assert provenance.read({**example("kind", "captured"), "on": on}).to_json()["on"] == on


def test_format_file_and_config() -> None:
    assert f"```json\n{format_bytes().decode()}```" in TEXT
    assert f"`{format_bytes(steering=True).decode().strip()}`" in TEXT
    assert f"```\n{repository.CONFIG.decode()}```" in TEXT
