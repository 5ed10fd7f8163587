"""Pushing, with the real huggingface_hub client against the loopback Hub, over plain LFS."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from support.loopback_hub import HubState
from support.pushes import REPO, TARGET, build, contents, push, safetensors, write

from pv.registry.errors import RemoteError
from pv.registry.remote.address import HubTarget, parse_target
from pv.registry.remote.push import head_commit


def test_what_was_pushed_comes_back_byte_for_byte(hub: HubState, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    folder = build(tmp_path / "model", size=3 << 20)
    pushed = push(hub, folder, message="first\n\nall of it")

    assert pushed.created and pushed.changed and not pushed.skipped and not pushed.deleted
    assert pushed.uploaded == tuple(sorted(contents(folder)))
    assert pushed.uploaded_bytes == sum(map(len, contents(folder).values()))
    assert pushed.url == f"{hub.endpoint}/{REPO}"
    initial, commit = hub.commits(REPO)
    assert (commit.oid, commit.parent) == (pushed.commit, initial.oid)
    assert (commit.summary, commit.description) == ("first", "all of it")
    weights = (folder / "model.safetensors").read_bytes()
    assert commit.files["model.safetensors"].sha256 == hashlib.sha256(weights).hexdigest()
    assert not any("xet" in line for line in hub.lines())

    back = snapshot_download(REPO, endpoint=hub.endpoint, token="hf_read", local_dir=tmp_path / "back")
    assert contents(Path(back)) == contents(folder) | {".gitattributes": hub.read(REPO, ".gitattributes")}


def test_a_second_push_is_one_commit_of_what_changed(hub: HubState, tmp_path: Path) -> None:
    folder = build(tmp_path / "model")
    first = push(hub, folder)
    write(folder, {"persona.json": b'{"schema":1,"seed":7}'})
    hub.requests.clear()
    second = push(hub, folder, parent_commit=first.commit)

    assert second.uploaded == ("persona.json",)
    assert "model.safetensors" in second.skipped and not second.created
    assert [commit.oid for commit in hub.commits(REPO)[1:]] == [first.commit, second.commit]
    assert not hub.lines("PUT") and not hub.lines("POST /api/repos/create")


def test_nothing_new_makes_no_commit(hub: HubState, tmp_path: Path) -> None:
    folder = build(tmp_path / "model")
    first = push(hub, folder)
    again = push(hub, folder)

    assert (again.commit, again.changed, again.uploaded_bytes) == (first.commit, False, 0)
    assert len(hub.commits(REPO)) == 2


def test_weights_of_an_older_push_go_and_other_files_stay(hub: HubState, tmp_path: Path) -> None:
    old = write(
        build(tmp_path / "old"),
        {
            "model-00001-of-00002.safetensors": safetensors(1, 1000),
            "model-00002-of-00002.safetensors": safetensors(2, 1000),
            "model.safetensors.index.json": b"{}",
        },
    )
    (old / "model.safetensors").unlink()
    push(hub, old)
    hub.put(REPO, {"NOTES.md": b"mine", "onnx/model.safetensors": b"mine", "model-card.md": b"mine"})
    pushed = push(hub, build(tmp_path / "new"))

    assert pushed.deleted == (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    )
    files = hub.head(REPO).files
    assert set(files) == {".gitattributes", "NOTES.md", "model-card.md", "onnx/model.safetensors"} | set(
        contents(tmp_path / "new")
    )
    assert len(hub.commits(REPO)) == 4  # made, old, somebody's, new: the swap was one commit


def test_a_listing_over_several_pages_is_read_to_its_end(hub: HubState, tmp_path: Path) -> None:
    hub.page_size = 2
    folder = build(tmp_path / "model")
    first = push(hub, folder)
    assert push(hub, folder).commit == first.commit


def test_large_files_go_in_parts(hub: HubState, tmp_path: Path) -> None:
    hub.multipart_over = 1 << 20
    folder = build(tmp_path / "model", size=3 << 20)
    push(hub, folder)
    assert len([line for line in hub.lines("PUT") if "/part/" in line]) == 4
    assert hub.read(REPO, "model.safetensors") == (folder / "model.safetensors").read_bytes()


def test_several_shards_upload_together_and_report_how_far(
    hub: HubState, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = build(tmp_path / "model", size=1000)
    shards = {f"model-0000{n}-of-00003.safetensors": safetensors(n, 200_000) for n in (1, 2, 3)}
    write(folder, shards)
    seen: dict[str, list[int]] = {}
    push(hub, folder, progress=lambda path, done, size: seen.setdefault(path, []).append(done))

    for name, content in shards.items():
        assert seen[name] == sorted(seen[name]) and seen[name][-1] == len(content)
    assert capfd.readouterr() == ("", "")  # this room prints nothing, nor may the client


def test_a_branch_is_made_and_the_other_left_alone(hub: HubState, tmp_path: Path) -> None:
    target = parse_target(f"hf://{REPO}@try%2Ftwo")
    pushed = push(hub, build(tmp_path / "model"), target)
    assert pushed.url == f"{hub.endpoint}/{REPO}/tree/try/two"
    assert hub.head(REPO, "try/two").oid == pushed.commit
    assert set(hub.head(REPO).files) == {".gitattributes"}
    assert head_commit(target, "hf_read", hub.endpoint) == pushed.commit


def test_a_new_repository_is_private_when_asked(hub: HubState, tmp_path: Path) -> None:
    push(hub, build(tmp_path / "model"), private=True)
    assert hub.repos[REPO].private
    with pytest.raises(RemoteError, match=r"\(401\)"):
        head_commit(TARGET, None, hub.endpoint)


def test_the_token_that_login_left_is_used(hub: HubState, tmp_path: Path) -> None:
    write(tmp_path / "home", {"token": b"hf_write\n"})
    push(hub, build(tmp_path / "model"), token=None)
    assert {request.token for request in hub.requests if "/commit/" in request.line} == {"hf_write"}


def test_a_repository_without_a_first_commit_takes_one(hub: HubState, tmp_path: Path) -> None:
    hub.create(REPO, empty=True)
    assert head_commit(TARGET, "hf_read", hub.endpoint) is None
    pushed = push(hub, build(tmp_path / "model"))
    assert [(commit.oid, commit.parent) for commit in hub.commits(REPO)] == [(pushed.commit, None)]


def test_head_commit(hub: HubState, tmp_path: Path) -> None:
    assert head_commit(TARGET, "hf_read", hub.endpoint) is None
    pushed = push(hub, build(tmp_path / "model"))
    assert head_commit(TARGET, "hf_read", hub.endpoint) == pushed.commit
    assert head_commit(TARGET, None, hub.endpoint) == pushed.commit  # public
    assert head_commit(HubTarget(REPO, "nope"), "hf_read", hub.endpoint) is None


def test_a_hostile_message_reaches_the_history_as_it_is(hub: HubState, tmp_path: Path) -> None:
    message = '"}\n{"key":"deletedFile","value":{"path":"config.json"}}\n\u202e\x00 naïve'
    push(hub, build(tmp_path / "model"), message=message)
    commit = hub.head(REPO)
    assert f"{commit.summary}\n{commit.description}" == message
    assert "config.json" in commit.files


def test_the_client_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, pv.registry.remote.push; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
