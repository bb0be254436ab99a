"""A cloud on one machine: Amazon's EC2 interface by moto, and for each instance that it calls running a box, which is a
machine made of namespaces with an SSH server. So Ray's own AWS provider, SSH runner and autoscaler do their work.

Run it as root inside `unshare -n -p -m --mount-proc -f --kill-child` with a private /tmp: nothing outside is seen, and
all of it ends with that process. It needs openssh-server, rsync, iproute2, moto[server] and boto3.
"""

import contextlib
import copy
import hashlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

PREFIX, GATEWAY, PORT = 16, "172.31.255.254", 5555  # of moto's default network
IMAGE = "ami-0123456789abcdef0"
BRIDGE = "br0"
BARE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
REPOSITORY = Path(__file__).parents[2]


class Cloud:
    """The cloud and the machine from which `ray up` is called; `events` says what happened to instances, and when.

    Use it as a context.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.boxes: dict[str, subprocess.Popen] = {}
        self.events: list[tuple[float, str]] = []
        self.started, self.over = time.monotonic(), threading.Event()
        self.aws = {
            "AWS_ENDPOINT_URL": f"http://{GATEWAY}:{PORT}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_EC2_METADATA_DISABLED": "true",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = os.environ | self.aws | {"HOME": str(self.home), "PATH": path, "PYTHONUNBUFFERED": "1"}

    def __enter__(self) -> "Cloud":
        (self.home / ".ray").mkdir(parents=True)
        (self.home / ".ssh").mkdir()
        (self.home / ".ray" / "auth_token").write_text(secrets.token_hex(32))
        _ip("link", "set", "lo", "up")
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("address", "add", f"{GATEWAY}/{PREFIX}", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        # First in line for the processor: what takes it a minute is asked again, and never comes to an end.
        moto = [
            "nice",
            "-n",
            "-10",
            str(Path(sys.executable).with_name("moto_server")),
            "-H",
            "0.0.0.0",
            "-p",
            str(PORT),
        ]
        with (self.folder / "moto.log").open("w") as log:
            settings = self.environment | {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
            self.moto = subprocess.Popen(moto, stdout=log, stderr=log, env=settings)
        self._connect()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        for box in self.boxes.values():
            box.kill()
        self.moto.kill()

    def note(self, event: str) -> None:
        """Write down what happens now, in seconds since the cloud began."""
        self.events.append((time.monotonic() - self.started, event))
        print(f"[{self.events[-1][0]:6.1f} s] {event}", flush=True)

    def account(self) -> str:
        """Make what cluster/account.yaml makes, and return the security group's id."""
        import boto3

        clouds = boto3.client("cloudformation")
        vpc = self.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        values = {"Vpc": vpc, "SshFrom": "172.31.0.0/16", "Bucket": "recordings"}
        clouds.create_stack(
            StackName="hms-ray",
            TemplateBody=(REPOSITORY / "cluster" / "account.yaml").read_text(),
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
        )
        (stack,) = clouds.describe_stacks(StackName="hms-ray")["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}["SecurityGroupId"]

    def cluster(self, group: str, change: Callable[[dict[str, Any]], None] | None = None) -> Path:
        """Write cluster/gpu.yaml as it runs here, and return its path.

        Other are the images, the installation (the environment is there already), the addresses, and the object
        store's size, since all boxes share one machine's memory.
        """
        cluster = yaml.safe_load((REPOSITORY / "cluster" / "gpu.yaml").read_text())
        cluster = copy.deepcopy(cluster)  # an anchor's copies are one object
        cluster["provider"]["use_internal_ips"] = True
        for kind in cluster["available_node_types"].values():
            kind["node_config"] |= {"ImageId": IMAGE, "SecurityGroupIds": [group]}
        environment = Path(sys.executable).parents[1]
        setup = [command for command in cluster["setup_commands"] if "hms_ray_env" in command]
        assert len(setup) == 2, "the lines of setup_commands that are kept"
        setup = [
            command.replace("PATH=$HOME/env/bin", "PYTHONPATH=$HOME/hms_ray PATH=$HOME/env/bin") for command in setup
        ]
        cluster["setup_commands"] = [f"ln -sfn {environment} ~/env", *setup]
        for kind in ("head", "worker"):
            cluster[f"{kind}_start_ray_commands"][-1] += " --object-store-memory=200000000"
        if change is not None:
            change(cluster)
        path = self.folder / "gpu.yaml"
        path.write_text(yaml.safe_dump(cluster, sort_keys=False))
        return path

    def run(self, *command: object, timeout_s: float = 1200) -> str:
        """Run a command on the machine from which the cluster is launched; return what it printed."""
        self.note(f"$ {' '.join(map(str, command))}")
        done = subprocess.run(list(map(str, command)), timeout=timeout_s, **self._there)
        self.note(f"exit code {done.returncode}")
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{done.stdout}")
        return done.stdout

    def start(self, *command: object) -> subprocess.Popen:
        """Start such a command; its lines come on stdout."""
        self.note(f"$ {' '.join(map(str, command))} &")
        return subprocess.Popen(list(map(str, command)), **self._there)

    @property
    def _there(self) -> dict[str, Any]:
        """How a process runs on the machine from which the cluster is launched; all that it prints is its stdout."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return {"cwd": REPOSITORY, "env": self.environment, **pipes}

    def running(self, kind: str) -> list[str]:
        """Return the ids of the running instances of a node type."""
        return [i["InstanceId"] for i in self._instances() if i["State"]["Name"] == "running" and _kind(i) == kind]

    def home_of(self, instance: str) -> Path:
        """Return where the box's /home/ubuntu lies on the machine that runs the boxes."""
        return self.folder / instance / "home"

    def terminate(self, instance: str) -> None:
        """End an instance as a spot market does: without a word."""
        self.note(f"{instance} is taken away")
        self.ec2.terminate_instances(InstanceIds=[instance])

    def _connect(self) -> None:
        os.environ.update(self.aws)
        import boto3
        from botocore.exceptions import EndpointConnectionError

        self.ec2 = boto3.client("ec2")
        until = time.monotonic() + 60
        while True:
            try:
                self.ec2.describe_instances()
                return
            except EndpointConnectionError:
                if time.monotonic() > until or self.moto.poll() is not None:
                    raise
                time.sleep(0.2)

    def _instances(self) -> list[dict[str, Any]]:
        return [i for r in self.ec2.describe_instances()["Reservations"] for i in r["Instances"]]

    def _watch(self) -> None:
        """Boot a box for each instance that runs, and end those of the others."""
        while not self.over.wait(0.5):
            for instance in self._instances():
                name, state = instance["InstanceId"], instance["State"]["Name"]
                if state == "running" and name not in self.boxes:
                    self._boot(instance)
                elif state in ("terminated", "stopped", "shutting-down", "stopping") and name in self.boxes:
                    self.boxes.pop(name).kill()
                    self.note(f"{name} is {state}")

    def _boot(self, instance: dict[str, Any]) -> None:
        name, folder = instance["InstanceId"], self.folder / instance["InstanceId"]
        folder.mkdir(exist_ok=True)
        key = self.home / ".ssh" / f"{instance['KeyName']}.pem"
        public = subprocess.run(["ssh-keygen", "-y", "-f", key], check=True, capture_output=True, text=True).stdout
        (folder / "authorized_keys").write_text(public)
        exports = "".join(f"export {key}={value}\n" for key, value in self.aws.items())
        (folder / "profile").write_text(f"export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n{exports}")
        command = ["unshare", "-n", "-p", "-m", "-u", "--mount-proc", "-f", "--kill-child"]
        command += [
            str(Path(__file__).with_name("box.sh")),
            name,
            f"{instance['PrivateIpAddress']}/{PREFIX}",
            str(folder),
        ]
        with (folder / "box.log").open("w") as log:
            box = self.boxes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
            )
        cable = "v" + hashlib.sha256(f"{name} {time.monotonic()}".encode()).hexdigest()[:8]
        inside = _child(box.pid)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(inside))
        _ip("link", "set", cable, "master", BRIDGE, "up")
        market = instance.get("InstanceLifecycle", "on demand")
        self.note(
            f"{name} boots: {_kind(instance)}, {instance['InstanceType']}, {market}, {instance['PrivateIpAddress']}"
        )


def _kind(instance: dict[str, Any]) -> str:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}.get("ray-user-node-type", "?")


def _child(unshare: int) -> int:
    """Return the process that unshare has started in its new namespaces."""
    children = Path(f"/proc/{unshare}/task/{unshare}/children")
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if found := children.read_text().split():
                return int(found[0])
        time.sleep(0.02)
    raise RuntimeError("the box did not start")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
