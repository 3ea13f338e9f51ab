"""Settings: read once, frozen, misspellings and bad values refused with what would do."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from models.errors import BadSetting
from service.settings import ROOT, Settings, cores, quota


def test_nothing_set_means_the_defaults() -> None:
    assert Settings.from_env({}) == Settings()


def test_every_setting_is_read_from_its_variable(tmp_path: Path) -> None:
    routes = tmp_path / "routes.toml"
    routes.touch()
    environ = {
        "KADOGO_CATALOG": str(tmp_path),
        "KADOGO_ROUTES": str(routes),
        "KADOGO_STATE": str(tmp_path),
        "KADOGO_WORKERS": "3",
        "KADOGO_THREADS": "5",
        "KADOGO_PROVIDER": "CUDAExecutionProvider",
        "KADOGO_FAST_PATH": "off",
        "KADOGO_MAX_INPUTS": "1",
        "KADOGO_MAX_TEXT": "2",
        "KADOGO_MAX_BODY": "3",
        "KADOGO_DEADLINE_MS": "4",
        "KADOGO_BODY_S": "4.5",
        "KADOGO_KEYS": "LICENSE",
        "KADOGO_AUTH": "on",
        "KADOGO_CORS_ORIGINS": "https://a.example, http://localhost:8000",
        "KADOGO_QUEUE_TEXTS": "5",
        "KADOGO_QUEUE_TOKENS": "6",
        "KADOGO_BATCH_ITEMS": "7",
        "KADOGO_BATCH_TOKENS": "8",
        "KADOGO_BATCH_PADDING": "9",
        "KADOGO_DRAIN_S": "0.5",
        "KADOGO_LOG": "json",
        "KADOGO_ACCESS_LOG": "on",
        "KADOGO_TRACES": "http://collector:4318/",
        "KADOGO_TRACES_SHARE": "0.1",
    }
    settings = Settings.from_env(environ)
    same = [f.name for f in fields(Settings) if getattr(settings, f.name) == f.default]
    assert same == []
    assert settings.catalog == tmp_path
    assert settings.drain_s == 0.5
    assert settings.traces == "http://collector:4318"
    assert settings.keys == ROOT / "LICENSE" and settings.auth is True
    assert settings.cors_origins == ("https://a.example", "http://localhost:8000")


def test_a_misspelt_name_is_refused_with_the_likely_one() -> None:
    with pytest.raises(BadSetting, match="did you mean KADOGO_QUEUE_TEXTS"):
        Settings.from_env({"KADOGO_QUEU_TEXTS": "1"})


def test_a_name_like_no_other_is_refused_with_all_of_them() -> None:
    with pytest.raises(BadSetting, match="known are KADOGO_CATALOG, KADOGO_ROUTES"):
        Settings.from_env({"KADOGO_1234567": "1"})


def test_names_of_the_rest_of_the_project_pass() -> None:
    assert Settings.from_env({"KADOGO_DATA": "somewhere", "PATH": "x"}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("KADOGO_WORKERS", "0", "a whole number, 1 or more"),
        ("KADOGO_MAX_BODY", "8 MiB", "a whole number"),
        ("KADOGO_DRAIN_S", "-1", "seconds, 0 to 3600"),
        ("KADOGO_DRAIN_S", "nan", "seconds, 0 to 3600"),
        ("KADOGO_BODY_S", "0", "seconds, 0.1 to 3600"),
        ("KADOGO_FAST_PATH", "maybe", "on or off"),
        ("KADOGO_AUTH", "none", "on or off"),
        ("KADOGO_KEYS", "no/such/file", "an existing file"),
        ("KADOGO_KEYS", "models", "an existing file"),
        ("KADOGO_CORS_ORIGINS", "a.example", "origins such as https://a.example"),
        ("KADOGO_CORS_ORIGINS", "https://a.example/", "origins such as https://a.example"),
        ("KADOGO_CORS_ORIGINS", "https://a.example,*", "or *"),
        ("KADOGO_PROVIDER", "gpu", "CPUExecutionProvider"),
        ("KADOGO_LOG", "yaml", "json or text"),
        ("KADOGO_TRACES", "collector:4318", "an address such as http://collector:4318"),
        ("KADOGO_TRACES_SHARE", "2", "a share, 0 to 1"),
        ("KADOGO_CATALOG", "no/such/folder", "an existing folder"),
    ],
)
def test_a_bad_value_is_refused_with_what_would_do(name: str, value: str, allowed: str) -> None:
    with pytest.raises(BadSetting) as error:
        Settings.from_env({name: value})
    assert name in str(error.value)
    assert allowed in str(error.value)


def test_what_may_be_a_token_is_not_repeated() -> None:
    with pytest.raises(BadSetting) as error:
        Settings.from_env({"KADOGO_KEYS": "SECRET"})
    assert "SECRET" not in str(error.value)


def test_every_origin_may_be_allowed() -> None:
    assert Settings.from_env({"KADOGO_CORS_ORIGINS": "*"}).cors_origins == ("*",)


def test_an_empty_value_means_the_default() -> None:
    assert Settings.from_env({"KADOGO_WORKERS": ""}) == Settings()


def test_a_relative_catalog_is_meant_from_the_root() -> None:
    assert Settings.from_env({"KADOGO_CATALOG": "models"}).catalog == ROOT / "models"


def test_settings_cannot_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().workers = 2  # type: ignore[misc]


def test_cores_are_shared_out_among_the_workers() -> None:
    assert Settings(workers=1).runs == cores()
    assert Settings(workers=10_000).runs == 1
    assert Settings(workers=2, threads=3).runs == 3


def test_more_model_runs_than_cores_are_said_to_take_turns() -> None:
    assert Settings().crowded is None
    assert Settings(workers=cores()).crowded is None
    crowd = Settings(workers=cores() + 1).crowded
    assert crowd and crowd.startswith(f"{cores() + 1} workers x 1 threads run")


def test_a_container_with_half_a_core_has_one(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert quota(tmp_path) == 1


def test_a_container_without_a_quota_has_plenty(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert quota(tmp_path) > 1000
    assert quota(tmp_path / "elsewhere") > 1000


def test_the_older_kind_of_quota_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("250000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert quota(tmp_path) == 3
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert quota(tmp_path) > 1000
