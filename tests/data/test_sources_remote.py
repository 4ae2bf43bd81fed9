"""Shards on a web server: read where they lie, by range requests."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from optkit.core import discover
from optkit.core.errors import InputError, MissingError
from optkit.core.progress import SilentReporter
from optkit.data.base import ImageSet
from optkit.data.config import DataConfig, source_name
from optkit.data.load import load_data
from tests.data.photos import jpeg, write_shard, write_tar

pytestmark = pytest.mark.skipif(
    not (discover.installed("fsspec") and discover.installed("aiohttp")), reason="needs optkit[streaming]"
)


class RangeHandler(SimpleHTTPRequestHandler):
    """A file server that knows ranges and counts the bytes of its answers."""

    protocol_version = "HTTP/1.1"
    ranges = True
    forbidden = 0
    fails_after = 1 << 40
    sent = 0

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.name == "classes.txt" and self.forbidden:
            self.send_error(self.forbidden)
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        if self.sent > self.fails_after:
            self.send_error(503)
            return
        if found and self.ranges:
            first, last = int(found[1]), min(int(found[2]), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        type(self).sent += len(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, type[RangeHandler]]]:
    handler = type("Handler", (RangeHandler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path))) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", handler
        running.shutdown()
        thread.join()


def load(path: str):
    return load_data(DataConfig(path=path), SilentReporter())


def test_a_remote_set_is_the_local_one(tmp_path: Path, server: tuple[str, type[RangeHandler]]) -> None:
    url, _ = server
    for share, each, first in (("train", 4, 0), ("val", 2, 50)):
        write_shard(tmp_path / f"{share}-0.tar", each, first)
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    path = f"{url}/{{train,val}}-0.tar"
    assert source_name(path) == "webdataset"
    DataConfig(path=path).check()
    there, here = load(path), load(str(tmp_path))
    assert there.class_names == here.class_names == ("dog", "cat")
    for share in ("train", "val"):
        ours, theirs = getattr(here, share), getattr(there, share)
        assert ours.ids == theirs.ids
        assert ours.identities == theirs.identities
        assert ours.open_image(3).tobytes() == theirs.open_image(3).tobytes()


def test_only_what_is_asked_for_travels(tmp_path: Path, server: tuple[str, type[RangeHandler]]) -> None:
    url, handler = server
    padding = bytes(4_000_000)
    members = {f"{i}.jpg": jpeg(i) + padding for i in range(6)} | {
        f"{i}.cls": b"%d" % (i % 2) for i in range(6)
    }
    size = write_tar(tmp_path / "x.tar", members).stat().st_size
    data = load(f"{url}/x.tar")
    assert handler.sent < size * 0.6
    handler.sent = 0
    data.whole.read_image(3)
    assert handler.sent == len(members["3.jpg"])


class _Sizes(torch.utils.data.Dataset[int]):
    def __init__(self, images: ImageSet) -> None:
        self._images = images

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return len(self._images.read_image(index))


def test_loader_processes_read_over_the_network(
    tmp_path: Path, server: tuple[str, type[RangeHandler]]
) -> None:
    write_shard(tmp_path / "x.tar", 4)
    images = load(f"{server[0]}/x.tar").whole
    sizes = [len(images.read_image(index)) for index in range(8)]
    loader = torch.utils.data.DataLoader(_Sizes(images), batch_size=2, num_workers=2, timeout=60)
    assert torch.cat(list(loader)).tolist() == sizes


def test_a_changed_shard_has_another_fingerprint(
    tmp_path: Path, server: tuple[str, type[RangeHandler]]
) -> None:
    config = DataConfig(path=f"{server[0]}/x.tar")
    write_shard(tmp_path / "x.tar", 2)
    before = config.canonical()
    assert config.canonical() == before
    write_shard(tmp_path / "x.tar", 9)
    assert config.canonical() != before


def test_what_a_server_cannot_do_is_told(tmp_path: Path, server: tuple[str, type[RangeHandler]]) -> None:
    url, handler = server
    with pytest.raises(InputError, match="cannot be read"):
        load(f"{url}/absent.tar")
    (tmp_path / "empty.tar").write_bytes(b"")
    with pytest.raises(InputError, match="does not tell how long"):
        load(f"{url}/empty.tar")
    write_shard(tmp_path / "x.tar", 2)
    handler.ranges = False
    with pytest.raises(InputError, match="sends whole files only"):
        load(f"{url}/x.tar").whole.open_image(2)


def test_a_network_that_fails_stops_instead_of_leaving_images_out(
    tmp_path: Path, server: tuple[str, type[RangeHandler]]
) -> None:
    write_shard(tmp_path / "x.tar", 2)
    data = load(f"{server[0]}/x.tar")
    (tmp_path / "x.tar").unlink()
    with pytest.raises(MissingError, match="cannot be read"):
        data.whole.open_image(0)
    assert data.summary()["images"]["sampled"] == 0


def test_a_network_that_fails_while_the_headers_are_read(
    tmp_path: Path, server: tuple[str, type[RangeHandler]]
) -> None:
    url, handler = server
    members = {f"{i}.jpg": jpeg(i) + bytes(2_000_000) for i in range(6)}
    write_tar(tmp_path / "x.tar", members | {f"{i}.cls": b"%d" % (i % 2) for i in range(6)})
    handler.fails_after = 2_000_000
    with pytest.raises(MissingError, match="cannot be read"):
        load(f"{url}/x.tar")


def test_a_forbidden_list_of_classes_is_none(tmp_path: Path, server: tuple[str, type[RangeHandler]]) -> None:
    url, handler = server
    write_shard(tmp_path / "x.tar", 2)
    handler.forbidden = 403
    assert load(f"{url}/x.tar").class_names == ("cat", "dog")
    handler.forbidden = 500
    with pytest.raises(MissingError, match=r"classes\.txt"):
        load(f"{url}/x.tar")


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "installed", lambda module: False)
    with pytest.raises(MissingError, match="not installed") as caught:
        DataConfig(path="https://example.org/x.tar").check()
    assert "optkit[streaming]" in caught.value.hint


def test_the_class_names_are_part_of_the_fingerprint(
    tmp_path: Path, server: tuple[str, type[RangeHandler]]
) -> None:
    for share in ("train", "val"):
        write_shard(tmp_path / share / "0.tar", 2)
    config = DataConfig(path=f"{server[0]}/{{train,val}}/0.tar")
    prints = [config.canonical()["path"]]
    for names in ("cat\ndog\n", "dog\ncat\n"):
        (tmp_path / "classes.txt").write_text(names)
        prints.append(config.canonical()["path"])
    assert len(set(prints)) == 3
    assert load(config.path).class_names == ("dog", "cat")
