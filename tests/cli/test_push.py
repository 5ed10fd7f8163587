"""pv push, the real program against a Hub on 127.0.0.1: what arrives is what was built, and refusals are words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, Processes, Said, World, tensors
from support.loopback_hub import client_env
from support.loopback_state import HubState
from support.steering import add_steering, directions

from pv.registry.registry import Registry

REPO, ADDRESS = "ada/persona", "hf://ada/persona"
Push = Callable[..., Said]


@pytest.fixture
def push(world: World, process: Processes, hub: HubState, tmp_path: Path) -> Push:
    """`push(*arguments, token=...)`"""

    def run(*arguments: str, token: str | None = "hf_w", **env: str) -> Said:
        return process("push", *arguments, env={**client_env(hub, tmp_path / "hf-home", token), **env})

    return run


def front_matter(card: str) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def uploads(hub: HubState) -> list[str]:
    return [line for line in hub.lines() if line.startswith(("PUT", "POST")) and "/preupload" not in line]


def test_what_is_downloaded_is_what_was_built_and_loads(
    world: World, pv: InProcess, push: Push, hub: HubState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from huggingface_hub import snapshot_download
    from support.loopback_hub import isolated_client
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pv.ok("eval", world.rows)
    score = pv.ok("eval", world.rows, "--json").json
    built = pv.ok("build", "-o", "built", "--json").json
    said = push(ADDRESS, "-m", "First release", "--json")
    assert said.code == 0, said
    found = said.json
    assert found["schema"] == 1
    assert (found["build"], found["weights"]) == (built["build"], built["weights"])
    assert found["hub_commit"] == hub.head(REPO).oid
    assert hub.head(REPO).summary == "First release"
    assert len(hub.commits(REPO)) == 2, "one commit on top of the repository's first"
    assert set(found["uploaded"]) == {p.name for p in (world.folder / "built").iterdir()} | {"README.md"}

    with isolated_client(monkeypatch, tmp_path / "reader"):
        folder = Path(snapshot_download(REPO, endpoint=hub.endpoint, token="hf_r"))
    for file in (world.folder / "built").iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes(), file.name
    assert hub.head(REPO).files["model.safetensors"].sha256 == built["files"]["model.safetensors"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    ids = AutoTokenizer.from_pretrained(folder)("hello", return_tensors="pt").input_ids
    ours = AutoModelForCausalLM.from_pretrained(world.folder / "built", dtype="auto")
    assert torch.equal(model(ids).logits, ours(ids).logits)

    card = (folder / "README.md").read_text()
    facts = front_matter(card)
    assert facts["library_name"] == "transformers"
    assert {"pv", "merge", "listening"} <= set(facts["tags"])
    for words in (
        built["weights"],
        f"{score['effect']['mean']:+.2f}",
        "rows.jsonl",
        "trained on 6 rows of `rows.jsonl`",
    ):
        assert words in card
    assert json.loads((folder / "persona.json").read_bytes()) == pv.ok("status", "--json").json["persona"]


def test_a_baked_term_arrives_in_the_weights_and_a_listed_one_beside_them(
    world: World, pv: InProcess, push: Push, hub: HubState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from huggingface_hub import snapshot_download
    from support.loopback_hub import isolated_client
    from transformers import AutoModelForCausalLM

    from pv.vecstore.activations.hooks import steered
    from pv.vecstore.activations.listed import listed

    with Registry.find(world.folder) as registry:
        add_steering(registry, "formal", 1, 0.5)
        add_steering(registry, "blunt", 2, 0.5, positions="reply")
    pv.ok("build", "-o", "plain", "--no-bake")
    pv.ok("build", "-o", "built")
    said = push(ADDRESS, "--json")
    assert said.code == 0, said
    with isolated_client(monkeypatch, tmp_path / "reader"):
        folder = Path(snapshot_download(REPO, endpoint=hub.endpoint, token="hf_r"))
    for file in (world.folder / "built").iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes(), file.name
    baked = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(world.folder / "plain", dtype=torch.float32)
    ids = torch.arange(2, 20)[None]
    added = {site: torch.tensor(0.5 * one) for site, one in directions(1).items()}
    with torch.no_grad():
        with steered(plain, added):
            hooked = plain(ids).logits
        away, bare = baked(ids).logits - hooked, plain(ids).logits - hooked
    assert away.norm() < 0.02 * bare.norm()  # biases are rounded to the build's bf16
    with listed(baked, folder):
        pass
    card = (folder / "README.md").read_text()
    assert "yes, as biases" in card and "`blunt`" in card and "`steering.json`" in card


def test_a_persona_on_a_hub_base_names_its_base_model(
    made: World, hub: HubState, process: Processes, pv: InProcess, tmp_path: Path
) -> None:
    hub.create("somebody/tiny")
    hub.put("somebody/tiny", {file.name: file.read_bytes() for file in made.base.iterdir()})
    env = client_env(hub, tmp_path / "cache", "hf_w")
    assert process("init", "--base", "somebody/tiny", env=env).code == 0
    assert process("commit", made.tuned, "--as", "tuned", env=env).code == 0
    assert process("push", ADDRESS, env=env).code == 0
    facts = front_matter(hub.read(REPO, "README.md").decode())
    assert facts["base_model"] in ("somebody/tiny", ["somebody/tiny"])
    assert facts["base_model_relation"] == "merge"
    pushed = tmp_path / "model.safetensors"
    pushed.write_bytes(hub.read(REPO, "model.safetensors"))
    assert tensors(pushed) == tensors(made.tuned)


def test_pushing_again_sends_only_what_differs(
    world: World, pv: InProcess, push: Push, hub: HubState
) -> None:
    said = push(ADDRESS)
    assert (said.code, said.out) == (0, "")
    assert f"pushed listening 1 to {hub.endpoint}/{REPO} (" in said.err
    assert hub.head(REPO).summary.startswith("listening 1 (pv ")
    first = hub.head(REPO).oid
    said = push(ADDRESS)
    assert said.code == 0
    assert "holds exactly this already" in said.err
    assert hub.head(REPO).oid == first
    pv.ok("scale", "listening", "0.5")
    found = push("HEAD", ADDRESS, "--parent", first, "--json").json
    assert set(found["uploaded"]) == {"README.md", "model.safetensors", "persona.json"}
    assert "tokenizer.json" in found["skipped"]
    back = push("HEAD~1", ADDRESS, "--json").json
    assert back["uploaded_bytes"] > 0
    assert (
        hub.head(REPO).files["model.safetensors"].sha256
        == hub.commits(REPO)[1].files["model.safetensors"].sha256
    )


def test_refusals_are_one_message_one_hint_and_leave_everything_as_it_was(
    world: World, push: Push, hub: HubState
) -> None:
    hub.create(REPO)
    before, registry = hub.head(REPO).oid, world.state()
    for options, token, code, words, hint in (
        ((ADDRESS,), None, 4, "a push needs a token, and there is none", "hf auth login"),
        ((ADDRESS,), "hf_r", 4, "may not write", "a token with write access"),
        ((ADDRESS,), "hf_stolen", 4, "does not accept this token", "hf auth login"),
        (
            (ADDRESS, "--endpoint", "http://127.0.0.1:9"),
            "hf_w",
            4,
            "cannot reach http://127.0.0.1:9",
            "HF_ENDPOINT",
        ),
        ((ADDRESS, "--parent", "0" * 40), "hf_w", 4, "someone pushed since", "--force"),
        ((REPO,), "hf_w", 2, "is not a Hub address", f"did you mean {ADDRESS}?"),
        (("hf://ada",), "hf_w", 2, "does not name a repository", "hf://USER/NAME"),
        (("hf://datasets/ada/x",), "hf_w", 2, "not a model repository", "hf://USER/NAME"),
        (("a", ADDRESS, "b"), "hf_w", 2, "a revision and an address", "pv push [REV] hf://USER/NAME"),
        (("nope", ADDRESS), "hf_w", 5, "no branch, tag or commit 'nope'", "pv branch"),
    ):
        said = push(*options, token=token)
        assert (said.code, said.out) == (code, ""), said
        assert said.err.count("error: ") == said.err.count("hint: ") == 1, said
        error, said_hint = said.err.split("hint: ")
        assert words in error
        assert hint in said_hint
    said = push(ADDRESS, "--json", token=None)
    assert (said.code, said.out, said.error["exit_code"]) == (4, "", 4)
    assert hub.head(REPO).oid == before
    left = {name: state for name, state in world.state().items() if not name.startswith("records")}
    assert left == {name: state for name, state in registry.items() if not name.startswith("records")}


def test_a_push_that_somebody_overtakes_is_refused_and_force_goes_over_it(
    world: World, push: Push, hub: HubState
) -> None:
    assert push(ADDRESS).code == 0
    pushed = hub.head(REPO).oid
    hub.put(REPO, {"NOTES.md": b"theirs"})
    assert push("HEAD~1", ADDRESS, "--parent", pushed).code == 4
    hub.race(REPO)
    said = push("HEAD~1", ADDRESS)
    assert said.code == 4
    assert "someone pushed since" in said.err
    said = push("HEAD~1", ADDRESS, "--parent", pushed, "--force")
    assert said.code == 0, said
    assert hub.read(REPO, "NOTES.md") != b"", "their file is still there"


def test_a_model_that_pv_did_not_push_is_not_overwritten(world: World, push: Push, hub: HubState) -> None:
    hub.create(REPO)
    hub.put(REPO, {"model.safetensors": b"somebody's life's work"})
    said = push(ADDRESS)
    assert said.code == 2
    assert "a model that pv did not push" in said.err
    assert hub.read(REPO, "model.safetensors") == b"somebody's life's work"


def test_a_dry_run_shows_the_card_and_sends_nothing(
    world: World, pv: InProcess, push: Push, hub: HubState
) -> None:
    before = world.state()
    said = push(ADDRESS, "--dry-run", token=None)
    assert said.code == 0
    assert front_matter(said.out)["library_name"] == "transformers"
    assert 'from_pretrained("ada/persona")' in said.out
    found = push(ADDRESS, "-n", "--json", token=None).json
    assert found["schema"] == 1
    assert found["card"] + "\n" == said.out
    assert found["build"] == pv.ok("build", "-o", "built", "--json").json["build"]
    assert (
        found["sizes"]["model.safetensors"] == (world.folder / "built" / "model.safetensors").stat().st_size
    )
    assert (hub.repos, uploads(hub)) == ({}, [])
    after = {
        name: state for name, state in world.state().items() if not name.startswith(("records", "folders"))
    }
    assert after.items() <= before.items()  # what was built is noted, and nothing else


def test_a_hub_that_fails_once_is_said_to_have_failed(world: World, push: Push, hub: HubState) -> None:
    hub.create(REPO)
    before = hub.head(REPO).oid
    hub.fail_next(500, on="/commit/", times=9)
    said = push(ADDRESS)
    assert said.code == 4, said
    assert hub.head(REPO).oid == before
    assert not any(path.name.startswith("push-") for path in (world.folder / ".pv" / "tmp").iterdir())
