"""cluster/gpu.yaml: Ray's own offline validation, and our rules, which Ray does not check."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

Cluster = dict[str, Any]
WORLD = "0.0.0.0/0"


@pytest.fixture
def cluster(repository: Path) -> Cluster:
    return yaml.safe_load((repository / "cluster" / "gpu.yaml").read_text())


def prepared(cluster: Cluster) -> Cluster:
    """Return the cluster as Ray completes it with its defaults; raises what Ray raises."""
    complete = prepare_config(copy.deepcopy(cluster))
    validate_config(complete)
    return complete


def faults(cluster: Cluster) -> list[str]:
    """Return a word for each of our rules that the prepared cluster breaks."""
    head_name, types = cluster["head_node_type"], cluster["available_node_types"]
    head = types[head_name]["node_config"]
    workers = [node["node_config"] for name, node in types.items() if name != head_name]
    starts = {kind: cluster[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")}
    rules = {
        "image": all(re.match(r"resolve:ssm:/|ami-[0-9a-f]{8,}$", _image(node)) for node in (head, *workers)),
        "ssh": all(node.get("SecurityGroupIds") for node in (head, *workers)),
        "head on spot": "InstanceMarketOptions" not in head,
        "head with GPU": re.match(r"[cmrt]\d", head["InstanceType"]) is not None,
        "head as worker": types[head_name]["max_workers"] == 0,
        "worker on demand": all(node.get("InstanceMarketOptions", {}).get("MarketType") == "spot" for node in workers),
        "worker without GPU": all(re.match(r"[gp]\d", node["InstanceType"]) for node in workers),
        "profile": all(node.get("IamInstanceProfile", {}).get("Name") for node in (head, *workers)),
        "autoscaling": "--autoscaling-config=~/ray_bootstrap_config.yaml" in starts["head"],
        "dashboard": "--dashboard-host=127.0.0.1" in starts["head"],
        "token mode": all("export RAY_AUTH_MODE=token;" in start for start in starts.values()),
        "token": cluster["file_mounts"].get("~/.ray/auth_token") == "~/.ray/auth_token",
        "threads": all(start.startswith("unset OMP_NUM_THREADS;") for start in starts.values()),
        "boto3": any("boto3" in command for command in cluster["head_setup_commands"]),
        "pins": all("-c ~/hms_ray/constraints.txt" in c for c in cluster["setup_commands"] if "pip install" in c),
    }
    return [name for name, holds in rules.items() if not holds]


def _image(node: dict[str, Any]) -> str:
    return node.get("ImageId", "")


def _set(*path: str, value: Any) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        *parents, key = path
        for parent in parents:
            cluster = cluster[parent]
        cluster[key] = value

    return change


def _drop(*path: str) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        *parents, key = path
        for parent in parents:
            cluster = cluster[parent]
        del cluster[key]

    return change


def test_ray_accepts_the_file_and_it_keeps_our_rules(cluster: Cluster) -> None:
    assert faults(prepared(cluster)) == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_set("max_worker", value=4), jsonschema.ValidationError),
        (_set("auth", "ssh_usr", value="ubuntu"), jsonschema.ValidationError),
        (_set("max_workers", value="four"), jsonschema.ValidationError),
        (_drop("available_node_types", "gpu", "node_config"), jsonschema.ValidationError),
        (_set("available_node_types", "gpu", "min_workers", value=5), ValueError),
        (_set("head_node_type", value="hed"), (ValueError, KeyError)),
    ],
)
def test_ray_refuses_a_broken_file(cluster: Cluster, change: Callable[[Cluster], None], error: type) -> None:
    change(cluster)
    with pytest.raises(error):
        prepared(cluster)


HEAD, GPU = ("available_node_types", "head"), ("available_node_types", "gpu")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_drop(*GPU, "node_config", "ImageId"), "image"),
        (_set(*HEAD, "node_config", "ImageId", value="latest_dlami"), "image"),
        (_drop(*GPU, "node_config", "SecurityGroupIds"), "ssh"),
        (_set(*HEAD, "node_config", "InstanceMarketOptions", value={"MarketType": "spot"}), "head on spot"),
        (_set(*HEAD, "node_config", "InstanceType", value="g5.xlarge"), "head with GPU"),
        (_set(*HEAD, "max_workers", value=1), "head as worker"),
        (_drop(*GPU, "node_config", "InstanceMarketOptions"), "worker on demand"),
        (_set(*GPU, "node_config", "InstanceType", value="m7i.xlarge"), "worker without GPU"),
        (_drop(*GPU, "node_config", "IamInstanceProfile"), "profile"),
        (_set("head_start_ray_commands", value=["ray start --head"]), "autoscaling"),
        (_set("worker_start_ray_commands", value=["ray start --address=$RAY_HEAD_IP:6379"]), "token mode"),
        (_drop("file_mounts", "~/.ray/auth_token"), "token"),
        (_set("head_setup_commands", value=["true"]), "boto3"),
        (_set("setup_commands", value=["pip install hms-ray"]), "pins"),
    ],
)
def test_our_rules_see_what_ray_lets_pass(cluster: Cluster, change: Callable[[Cluster], None], fault: str) -> None:
    change(cluster)
    assert fault in faults(prepared(cluster))


def test_only_the_package_travels(cluster: Cluster, repository: Path) -> None:
    sent = {local for remote, local in cluster["file_mounts"].items() if remote.startswith("~/hms_ray/")}
    assert sent == {"pyproject.toml", "setup.py", "constraints.txt", "README.md", "hms_ray", "search_spaces"}
    assert all((repository / local).exists() for local in sent - {"README.md"})


def test_the_nodes_get_the_ray_that_launches_them(cluster: Cluster, repository: Path) -> None:
    pins = (repository / "constraints.txt").read_text().splitlines()
    assert f"ray=={ray.__version__}" in pins
    assert any("--python 3.11 " in command for command in cluster["setup_commands"])


def test_the_account_opens_no_port_to_the_world(cluster: Cluster, repository: Path) -> None:
    account = yaml.load((repository / "cluster" / "account.yaml").read_text(), _Template)
    resources = account["Resources"]
    rules = resources["Group"]["Properties"]["SecurityGroupIngress"]
    assert [(rule["FromPort"], rule["ToPort"], rule["CidrIp"]) for rule in rules] == [(22, 22, "SshFrom")]
    allowed = re.compile(account["Parameters"]["SshFrom"]["AllowedPattern"])
    assert allowed.fullmatch("203.0.113.7/32")
    assert not allowed.fullmatch(WORLD)
    made = {resources[name]["Properties"]["InstanceProfileName"] for name in ("HeadProfile", "WorkerProfile")}
    used = {node["node_config"]["IamInstanceProfile"]["Name"] for node in cluster["available_node_types"].values()}
    assert made == used


class _Template(yaml.SafeLoader):
    """Reads CloudFormation: `!Ref x` as the plain value x."""


_Template.add_multi_constructor("!", lambda loader, _, node: loader.construct_scalar(node))
