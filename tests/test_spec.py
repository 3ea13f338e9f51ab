"""Manifests as values and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from models.spec import Task, Variant, Windows, schema
from tests.tiny import write_variant

SCHEMA = Path(__file__).parent.parent / "models" / "variant.schema.json"


@pytest.fixture
def manifest(tmp_path) -> dict:
    return json.loads((write_variant(tmp_path, "tiny", Task.NER) / "variant.json").read_bytes())


def test_the_checked_in_schema_is_the_codes():
    assert json.loads(SCHEMA.read_text()) == json.loads(msgspec.json.encode(schema())), (
        "run: python -m models.spec > models/variant.schema.json"
    )


def test_a_manifest_fits_the_schema_and_comes_back_equal(manifest):
    jsonschema.validate(manifest, schema())
    variant = msgspec.convert(manifest, Variant)
    assert msgspec.json.decode(msgspec.json.encode(variant), type=Variant) == variant


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": "kadogo-variant/9"}, "this code reads kadogo-variant/1"),
        ({"labels": ["O", "O"]}, "distinct"),
        ({"labels": []}, "distinct"),
        ({"name": "No Spaces"}, "name"),
        ({"task": "translation"}, "translation"),
        ({"colour": "red"}, "colour"),
        ({"windows": {"tokens": 16, "overlap": 14}}, "overlap 14"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(manifest, change, complaint):
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert(manifest | change, Variant)


def test_the_digest_names_the_files_and_nothing_else(manifest):
    variant = msgspec.convert(manifest, Variant)
    renamed = msgspec.structs.replace(variant, name="other", description="other")
    reweighed = msgspec.structs.replace(variant, files=dict(list(variant.files.items())[:1]))
    assert variant.digest == renamed.digest != reweighed.digest
    assert len(variant.digest) == 16


def test_a_variant_weighs_what_its_files_weigh(tmp_path):
    folder = write_variant(tmp_path, "tiny", Task.NER)
    variant = msgspec.json.decode((folder / "variant.json").read_bytes(), type=Variant)
    sizes = [file.stat().st_size for file in folder.iterdir() if file.name != "variant.json"]
    assert variant.bytes == sum(sizes)


def test_windows_without_a_step_are_refused():
    with pytest.raises(ValueError, match="no step"):
        Windows(tokens=8, overlap=6)
