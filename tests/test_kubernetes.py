"""The manifests of deploy/kubernetes: what schemas do not see, names that must agree."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import metrics
from service.settings import ROOT, Settings

FOLDER = ROOT / "deploy" / "kubernetes"
LABEL = {"app.kubernetes.io/name": "kadogo"}
# A rule for another program's configuration.
NOT_OURS = {"prometheus-adapter.yaml", "volume.yaml"}
VERSION = "1.34"
# The Prometheus Operator's kinds have no schema in Kubernetes' own.
CUSTOM = "monitoring.coreos.com/v1"


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


DEPLOYMENT = read("base/deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
PATCH = read("production/deployment.yaml")["spec"]["template"]["spec"]
CONTAINER, PATCHED = POD["containers"][0], PATCH["containers"][0]
PORTS = {port["name"] for port in CONTAINER["ports"]}
ENV = {each["name"]: each["value"] for each in CONTAINER["env"] + PATCHED["env"]}


def found(value: Any, key: str) -> Iterator[Any]:
    """Every value under that key, however deep."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name == key:
                yield each
            yield from found(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from found(each, key)


def rendered(overlay: str) -> list[dict[str, Any]]:
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            made = subprocess.run(
                [*command, str(FOLDER / overlay)], capture_output=True, check=True
            )
            return list(yaml.safe_load_all(made.stdout))
    pytest.skip("neither kubectl nor kustomize is installed")


def refused(document: dict[str, Any]) -> str:
    """Why a cluster would not take it; nothing where it would."""
    schemas = pytest.importorskip("kubernetes_validate")
    try:
        schemas.validate(document, VERSION, strict=True)
    except schemas.ValidationError as error:
        return str(error.message)
    return ""


@pytest.mark.parametrize("overlay", ["small", "production"])
def test_an_overlay_is_as_the_schemas_of_a_cluster_ask(overlay: str) -> None:
    documents = rendered(overlay)
    assert {each["kind"] for each in documents} >= {"Deployment", "Service", "NetworkPolicy"}
    ours = [each for each in documents if each["apiVersion"] != CUSTOM]
    assert {each["metadata"]["name"]: refused(each) for each in ours if refused(each)} == {}


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("spec/replicaz", 2, "'replicaz' was unexpected"),
        ("spec/replicas", "two", "'two' is not of type"),
        ("spec/template/spec/containers/0/image", 7, "7 is not of type"),
    ],
    ids=["misspelt", "replicas", "image"],
)
def test_what_a_cluster_would_refuse_is_found(path: str, value: Any, told: str) -> None:
    document = next(each for each in rendered("small") if each["kind"] == "Deployment")
    *steps, last = path.split("/")
    place = document
    for step in steps:
        place = place[int(step)] if step.isdigit() else place[step]  # type: ignore[index]
    place[last] = value
    assert told in refused(document)


def test_the_catalogs_claim_finds_its_volume_and_no_class_makes_an_empty_one() -> None:
    claim = read("production/catalog.yaml")
    volume = read("production/volume.yaml")
    assert refused(volume) == refused(claim) == ""
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    for each in (claim, volume):
        assert each["spec"]["storageClassName"] == ""
        assert each["spec"]["accessModes"] == ["ReadOnlyMany"]
    (zoo,) = PATCH["volumes"]
    assert zoo["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    asked = claim["spec"]["resources"]["requests"]["storage"]
    assert volume["spec"]["capacity"]["storage"] == asked


def test_the_rules_are_those_that_are_tested() -> None:
    made = runpy.run_path(str(FOLDER / "rules.py"))["written"]()
    file = FOLDER / "production" / "rules.yaml"
    assert made == file.read_text(encoding="utf-8"), "run python deploy/kubernetes/rules.py"
    for document, name in zip(yaml.safe_load_all(made), ("rules", "alerts"), strict=True):
        tested = (ROOT / "deploy" / "prometheus" / f"{name}.yml").read_text(encoding="utf-8")
        assert document["spec"] == yaml.safe_load(tested)
        assert (document["kind"], document["apiVersion"]) == ("PrometheusRule", CUSTOM)
    # The job that the alerts name is the Service's name, as a ServiceMonitor has it.
    assert f'job="{read("base/service.yaml")["metadata"]["name"]}"' in made


@pytest.mark.parametrize("overlay", ["base", "production"])
def test_every_file_is_named_in_its_kustomization(overlay: str) -> None:
    kustomization = read(f"{overlay}/kustomization.yaml")
    named = {name for name in kustomization["resources"] if name.endswith(".yaml")}
    named |= {patch["path"] for patch in kustomization.get("patches", [])}
    there = {file.name for file in (FOLDER / overlay).glob("*.yaml")}
    assert named == there - {"kustomization.yaml"} - NOT_OURS


def test_selectors_and_labels_are_of_the_same_pods() -> None:
    label, *others = read("base/kustomization.yaml")["labels"]
    assert label == {"pairs": LABEL, "includeSelectors": True} and others == []
    selectors = [
        selector
        for file in FOLDER.rglob("*.yaml")
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
        for selector in found(document, "matchLabels")
    ]
    assert len(selectors) >= 4 and all(selector == LABEL for selector in selectors)
    for file in FOLDER.rglob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            # An empty selector is every pod of the namespace.
            assert {} not in [*found(document, "podSelector"), *found(document, "selector")]


def test_ports_are_called_what_the_container_calls_them() -> None:
    probes = [CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert {probe["port"] for probe in probes} == PORTS
    (port,) = read("base/service.yaml")["spec"]["ports"]
    assert port["targetPort"] in PORTS
    (let_in,) = read("base/networkpolicy.yaml")["spec"]["ingress"]
    assert {each["port"] for each in let_in["ports"]} <= PORTS
    (watched,) = read("production/servicemonitor.yaml")["spec"]["endpoints"]
    assert watched["port"] == port["name"]


def test_probes_ask_paths_that_are_open() -> None:
    from service.guard import OPEN

    kinds = ("startup", "readiness", "liveness")
    assert {CONTAINER[f"{kind}Probe"]["httpGet"]["path"] for kind in kinds} <= OPEN


def test_every_setting_is_one_and_nothing_is_mounted_that_is_not_there() -> None:
    own = {name: value for name, value in ENV.items() if not value.startswith("/")}
    Settings.from_env(own)  # raises for an unknown name or a bad value
    known = {f"KADOGO_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert ENV.keys() <= known
    volumes = {volume["name"] for volume in POD["volumes"] + PATCH["volumes"]}
    mounts = CONTAINER["volumeMounts"] + PATCHED["volumeMounts"]
    assert {mount["name"] for mount in mounts} == volumes
    folders = [mount["mountPath"] for mount in mounts]
    for value in (value for value in ENV.values() if value.startswith("/")):
        assert any(value == folder or value.startswith(folder + "/") for folder in folders)


def test_a_pod_that_ends_is_given_the_time_that_it_may_take() -> None:
    settings = Settings.from_env({n: v for n, v in ENV.items() if not v.startswith("/")})
    assert POD["terminationGracePeriodSeconds"] > settings.drain_s + settings.deadline_ms / 1000
    probe = CONTAINER["readinessProbe"]
    # Others have heard that it is not ready before it takes nothing more.
    assert settings.drain_s > probe["periodSeconds"] * probe["failureThreshold"]


def test_it_runs_as_the_image_does_and_may_nothing() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    (user,) = re.findall(r"^USER (\d+):\d+$", dockerfile, re.MULTILINE)
    assert POD["securityContext"]["runAsUser"] == int(user)
    assert POD["securityContext"]["runAsNonRoot"] is True
    own = CONTAINER["securityContext"]
    assert own["readOnlyRootFilesystem"] is True and own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    # BENTOML_HOME and the workers' counters are written there.
    assert "/tmp" in {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}


def test_what_scales_has_what_it_needs() -> None:
    scaler = read("production/scaling.yaml")["spec"]
    assert scaler["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    cpu, queue = scaler["metrics"]
    # A share of the request: without one there is nothing to be a share of.
    assert cpu["resource"]["name"] in CONTAINER["resources"]["requests"]
    (rule,) = read("production/prometheus-adapter.yaml")["rules"]
    name = queue["pods"]["metric"]["name"]
    assert rule["name"]["as"] == name and rule["seriesQuery"].startswith(name)
    assert f'"{name}"' in Path(metrics.__file__).read_text(encoding="utf-8")
    disruption = read("production/disruption.yaml")["spec"]
    assert scaler["minReplicas"] > disruption["maxUnavailable"]


def test_requests_are_within_limits() -> None:
    resources = CONTAINER["resources"]
    assert float(resources["requests"]["cpu"]) <= float(resources["limits"]["cpu"])
    gibibytes = {kind: int(each["memory"].removesuffix("Gi")) for kind, each in resources.items()}
    assert gibibytes["requests"] <= gibibytes["limits"]
