"""Pictures are inlined as pixels, bounded, and from their artifact's folder alone."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from optkit.report import pictures
from optkit.report.evaluation_schema import Picture
from optkit.report.pictures import MAX_BYTES, MAX_PICTURES, Album

from .run_folder import photo


def _uri(folder: Path, image: str) -> str | None:
    ((_, uri),) = Album(folder).uris("step", (Picture(image=image),))
    return uri


@pytest.mark.parametrize(("format", "kind"), [("JPEG", "jpeg"), ("PNG", "png")])
def test_a_picture_becomes_a_data_uri(tmp_path: Path, format: str, kind: str) -> None:
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "x").write_bytes(photo(format))
    uri = _uri(tmp_path, "x")
    assert uri is not None
    start, content = uri.split(",")
    assert start == f"data:image/{kind};base64"
    assert base64.b64decode(content) == photo(format)


def test_what_is_not_shown(tmp_path: Path) -> None:
    step = tmp_path / "step"
    step.mkdir()
    (tmp_path / "secret.jpg").write_bytes(photo())
    (step / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (step / "script.svg").write_text("<svg onload='alert(1)'/>")
    (step / "large.jpg").write_bytes(photo() + bytes(MAX_BYTES))
    secret = str(tmp_path / "secret.jpg")
    for image in ("absent.jpg", "../secret.jpg", secret, "link.jpg", "script.svg", "large.jpg", "", "a\0b"):
        assert _uri(tmp_path, image) is None, image


def test_number_and_bytes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "x.jpg").write_bytes(photo())
    many = (Picture(image="x.jpg"),) * 100
    assert len(Album(tmp_path).uris("step", many)) == MAX_PICTURES
    monkeypatch.setattr(pictures, "MAX_PAGE_BYTES", 3 * len(photo()) + 1)
    album = Album(tmp_path)
    shown = [uri for _ in range(2) for _, uri in album.uris("step", many[:2]) if uri]
    assert len(shown) == 3, "the limit is that of the page, not of the step"
