"""What a push refuses or cannot finish, and that the branch is then as it was."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from support.loopback_hub import HubState
from support.pushes import REPO, TARGET, build, push, write

from pv.registry.errors import PvError, RemoteError, StorageError, UsageError
from pv.registry.remote.address import HubTarget
from pv.registry.remote.push import head_commit


def history(hub: HubState) -> dict[str, list[str]]:
    return {
        f"{name}@{branch}": [commit.oid for commit in commits]
        for name, repo in hub.repos.items()
        for branch, commits in repo.branches.items()
    }


def refused(hub: HubState, folder: Path, match: str, hint: str = "", **options: Any) -> PvError:
    """Push, see it fail with that message and hint, and see that nothing was committed or made."""
    before = history(hub)
    with pytest.raises(PvError, match=match) as caught:
        push(hub, folder, **options)
    assert history(hub) == before
    assert "\n" not in str(caught.value)
    assert hint in (caught.value.hint or "")
    return caught.value


def test_no_token(hub: HubState, tmp_path: Path) -> None:
    error = refused(hub, build(tmp_path / "model"), "a push needs a token", "hf auth login", token=None)
    assert isinstance(error, RemoteError) and error.exit_code == 4
    assert not hub.requests


@pytest.mark.parametrize("exists", [False, True])
def test_a_token_that_may_only_read(hub: HubState, tmp_path: Path, exists: bool) -> None:
    if exists:
        hub.create(REPO)
    folder = build(tmp_path / "model")
    error = refused(hub, folder, r"may not write there \(403\).*rights", "write access", token="hf_read")
    assert error.exit_code == 4


def test_a_token_that_is_not_known(hub: HubState, tmp_path: Path) -> None:
    folder = build(tmp_path / "model")
    refused(hub, folder, r"does not accept this token.*\(401\)", "hf auth login", token="hf_old")


def test_no_such_repository(hub: HubState, tmp_path: Path) -> None:
    folder = build(tmp_path / "model")
    refused(hub, folder, "there is no such repository", "check the name", create=False)
    hub.create(REPO)
    error = refused(hub, folder, "there is no branch 'dev'", target=HubTarget(REPO, "dev"), create=False)
    assert error.exit_code == 4


def test_a_gated_repository(hub: HubState, tmp_path: Path) -> None:
    hub.fail_next(403, code="GatedRepo")
    refused(hub, build(tmp_path / "model"), "is gated", f"{hub.endpoint}/{REPO}")


def test_a_branch_that_moved_since_it_was_last_seen(hub: HubState, tmp_path: Path) -> None:
    folder = build(tmp_path / "model")
    seen = push(hub, folder).commit
    hub.put(REPO, {"NOTES.md": b"theirs"})
    hub.requests.clear()
    write(folder, {"persona.json": b"{}"})
    error = refused(hub, folder, "someone pushed since", "--force", parent_commit=seen)
    assert error.exit_code == 4 and not hub.lines("POST")  # before anything was uploaded
    push(hub, folder, parent_commit=seen, force=True)
    assert hub.read(REPO, "NOTES.md") == b"theirs"


def test_a_push_whose_answer_was_lost_can_be_repeated(hub: HubState, tmp_path: Path) -> None:
    folder = build(tmp_path / "model")
    seen = push(hub, folder).commit
    write(folder, {"persona.json": b"{}"})
    landed = push(hub, folder, parent_commit=seen).commit
    again = push(hub, folder, parent_commit=seen)  # as if we had never heard of `landed`
    assert (again.commit, again.changed) == (landed, False)


def test_somebody_pushes_while_we_upload(hub: HubState, tmp_path: Path) -> None:
    folder = build(tmp_path / "model")
    push(hub, folder)
    write(folder, {"persona.json": b"{}"})
    hub.race(REPO)
    with pytest.raises(RemoteError, match="someone pushed since"):
        push(hub, folder, force=True)
    assert hub.read(REPO, "persona.json") != b"{}" and "NOTES.md" in hub.head(REPO).files
    push(hub, folder)
    assert hub.read(REPO, "persona.json") == b"{}" and "NOTES.md" in hub.head(REPO).files


def test_a_model_that_pv_did_not_push(hub: HubState, tmp_path: Path) -> None:
    hub.create(REPO)
    hub.put(REPO, {"model.safetensors": b"a year of work", "config.json": b"{}"})
    folder = build(tmp_path / "model")
    error = refused(hub, folder, "already holds a model that pv did not push", "--force")
    assert isinstance(error, UsageError)
    push(hub, folder, force=True)
    assert hub.read(REPO, "model.safetensors") == (folder / "model.safetensors").read_bytes()


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_nobody_answers(hub: HubState, tmp_path: Path) -> None:
    endpoint = closed_port()
    folder = build(tmp_path / "model")
    error = refused(hub, folder, f"cannot reach {endpoint}", "check the network", endpoint=endpoint)
    assert error.exit_code == 4
    with pytest.raises(RemoteError, match="cannot reach"):
        head_commit(TARGET, "hf_read", endpoint)


def test_offline_mode(hub: HubState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(hub, build(tmp_path / "model"), "offline mode", "HF_HUB_OFFLINE")
    assert not hub.requests


@pytest.mark.parametrize(
    ("on", "status", "match"),
    [
        ("/revision/", 500, r"the Hub failed \(500\): the loopback"),
        ("/commit/", 503, r"the Hub failed \(503\)"),
        ("/commit/", 429, r"too many requests \(429\)"),
        ("/commit/", 413, r"the Hub refused \(413\): the loopback"),
        ("/commit/", 0, "the connection to .* broke"),
    ],
)
def test_the_hub_fails(hub: HubState, tmp_path: Path, on: str, status: int, match: str) -> None:
    hub.create(REPO)
    hub.fail_next(status, on=on)
    folder = build(tmp_path / "model")
    error = refused(hub, folder, match)
    assert isinstance(error, RemoteError)
    push(hub, folder)  # and then it works, and does not send the weights twice
    assert len(hub.lines("PUT")) == 1


def test_an_upload_that_fails_once_is_tried_again(
    hub: HubState, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.fail_next(503, on="PUT /lfs/")
    folder = build(tmp_path / "model")
    push(hub, folder)
    assert len(hub.lines("PUT")) == 2 and not caplog.records
    assert hub.read(REPO, "model.safetensors") == (folder / "model.safetensors").read_bytes()


def test_a_hub_that_falls_silent(hub: HubState, tmp_path: Path) -> None:
    hub.create(REPO)
    hub.fail_next(0, on="/commit/", delay_s=1.0)
    refused(hub, build(tmp_path / "model"), "fell silent", "push again", timeout_s=0.3)


def test_a_bit_that_turns_on_the_way(hub: HubState, tmp_path: Path) -> None:
    hub.create(REPO)
    hub.flip_next_upload()
    error = refused(hub, build(tmp_path / "model"), "SHA-256")
    assert isinstance(error, RemoteError)


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_a_hub_that_keeps_other_bytes(hub: HubState, tmp_path: Path, path: str) -> None:
    folder = build(tmp_path / "model")
    hub.swap_in_next_commit(path, (folder / path).read_bytes()[::-1])
    with pytest.raises(
        RemoteError, match=f"commit [0-9a-f]{{12}} was made, but '{path}' is not what"
    ) as caught:
        push(hub, folder)
    assert caught.value.hint is not None and "do not use that commit" in caught.value.hint


def test_a_gitignore_that_swallows_the_weights(hub: HubState, tmp_path: Path) -> None:
    hub.create(REPO)
    hub.put(REPO, {".gitignore": b"*.safetensors\n"})
    with pytest.raises(RemoteError, match=r"'model\.safetensors' is missing there"):
        push(hub, build(tmp_path / "model"))


def test_a_card_that_is_not_yaml(hub: HubState, tmp_path: Path) -> None:
    hub.create(REPO)
    folder = build(tmp_path / "model", card='---\ntags: ["pv\n---\n')
    refused(hub, folder, "refused the model card: .*YAML", "front matter of README.md")
    assert not hub.lines("PUT")


def test_what_is_not_a_hub(hub: HubState, tmp_path: Path) -> None:
    folder = build(tmp_path / "model")
    elsewhere = f"{hub.endpoint}/elsewhere"
    refused(hub, folder, r"refused \(404\): no route", "HF_ENDPOINT", endpoint=elsewhere)
    hub.fail_next(200)  # something answers, but not as a Hub
    error = refused(hub, folder, "does not answer as a Hub does", "HF_ENDPOINT")
    assert isinstance(error, RemoteError)


@pytest.mark.parametrize("message", ["", " \n\t"])
def test_an_empty_message(hub: HubState, tmp_path: Path, message: str) -> None:
    refused(hub, build(tmp_path / "model"), "needs a message", message=message)


def test_folders_that_cannot_be_pushed(hub: HubState, tmp_path: Path) -> None:
    refused(hub, tmp_path / "nothing", "is not a folder")
    (tmp_path / "empty" / ".git").mkdir(parents=True)
    (tmp_path / "empty" / ".git" / "HEAD").write_text("x")
    refused(hub, tmp_path / "empty", "holds no files")
    write(tmp_path / "home", {"id_ed25519": b"secret"})
    for number, elsewhere in enumerate(("home", "home/id_ed25519", "nowhere")):
        folder = build(tmp_path / f"model{number}")
        (folder / "secrets").symlink_to(tmp_path / elsewhere)
        refused(hub, folder, "'secrets' is not a plain file", "plain files")
    refused(hub, build(tmp_path / "model"), "not to a commit", target=HubTarget(REPO, "a" * 40))
    assert not hub.requests


def test_a_file_that_cannot_be_read(hub: HubState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(tmp_path / "model")
    hidden = folder / "config.json"
    hidden.chmod(0)
    try:
        hidden.read_bytes()
    except PermissionError:
        pass
    else:
        pytest.skip("this user may read everything")
    error = refused(hub, folder, "cannot read 'config.json'")
    assert isinstance(error, StorageError)


def test_a_repo_id_that_only_the_client_refuses(hub: HubState, tmp_path: Path) -> None:
    error = refused(hub, build(tmp_path / "model"), "repo_id", "USER/NAME", target=HubTarget("a--b/c"))
    assert isinstance(error, UsageError)
