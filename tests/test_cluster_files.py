"""The static files of a cluster: `cluster.yaml`, `deploy/` and their page.

Ray's own launcher code judges them: its schema, its AWS bootstrap against a simulated EC2, its
updater with recorded ssh, its scheduler with refused spot machines. No cloud is called.
"""

import gc
import ipaddress
import json
import os
import re
import runpy
import stat
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
AWS, GCP, RAYJOB = "cluster.yaml", "deploy/cluster-gcp.yaml", "deploy/rayjob.yaml"
CLUSTERS = (AWS, GCP)
SSH_FROM = "203.0.113.7/32"
TOKEN_PATH = "~/.ray/auth_token"  # where Ray looks for it
WORKERS = {"ray-node-type": "worker"}
FILES = [AWS, "docs/cluster.md"]
FILES += [f"deploy/{path.name}" for path in (ROOT / "deploy").iterdir() if path.is_file()]


def load(name):
    return yaml.safe_load((ROOT / name).read_text())


def commands(config):
    return [line for key, lines in config.items() if key.endswith("_commands") for line in lines]


def workers(config):
    types = dict(config["available_node_types"])
    del types[config["head_node_type"]]
    return types


@pytest.mark.parametrize("name", CLUSTERS)
def test_rays_schema_accepts_it_and_idle_it_is_one_small_machine(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(load(name))
    validate_config(config)
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "GPU" not in head["resources"]
    for worker in workers(config).values():
        assert worker["min_workers"] == 0
        assert worker["resources"]["GPU"] >= 1
    assert config["max_workers"] == 4
    assert config["idle_timeout_minutes"] <= 10
    assert config["provider"]["cache_stopped_nodes"] is False


def test_versions_are_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    pythons, tools = set(), set()
    for name in CLUSTERS:
        for command in commands(load(name)):
            pythons.update(re.findall(r"--python (\d\S*)", command))
            tools.update(re.findall(r"/uv/([^/]+)/install", command))
            for extras in re.findall(r"-e '\.\[(.*?)\]'", command):
                assert "-c constraints.txt" in command
                for extra in extras.split(","):
                    for requirement in project["optional-dependencies"][extra]:
                        package = re.split(r"[\[><=~ ]", requirement)[0].lower()
                        assert package in pins or package == "tensorflow", requirement
            for package, version in re.findall(r"([\w-]+)==([\d.]+)", command):
                assert pins[package.lower()] == version
    (python,) = pythons  # one for all nodes, to the patch release: Ray compares all three numbers
    assert re.fullmatch(r"3\.11\.\d+", python)
    (tool,) = tools
    assert re.fullmatch(r"\d+\.\d+\.\d+", tool)

    ray = pins["ray"]
    assert f"FROM rayproject/ray:{ray}-py311\n" in (ROOT / "deploy/Dockerfile").read_text()
    cluster = load(RAYJOB)["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray
    for pod in pods(cluster):
        assert pod["image"].endswith(f":{ray}")


def test_the_two_clouds_differ_only_where_they_must():
    aws, gcp = load(AWS), load(GCP)
    scorer = "~/convae-study/deploy/spot_first.py"  # Google's refusals are not noted by Ray
    assert aws["file_mounts"].pop(scorer)
    machines = {"provider", "available_node_types"}
    different = {key for key in aws | gcp if aws.get(key) != gcp.get(key)}
    assert different == machines | {"head_setup_commands", "head_start_ray_commands"}


# What is sent to the nodes


@pytest.mark.parametrize("name", CLUSTERS)
def test_only_code_travels_to_the_nodes(name):
    config = load(name)
    mounts = config["file_mounts"]
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    packages = (name.rstrip("*") for name in tools["setuptools"]["packages"]["find"]["include"])
    files = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert {*packages, *files} <= set(mounts.values())
    for remote, local in mounts.items():
        assert remote == f"~/convae-study/{local}"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    ours = {ROOT / path for path in subprocess.check_output(listed, cwd=ROOT, text=True).split()}
    for local in mounts.values():
        place = ROOT / local
        sent = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
        sent = [p for p in sent if not set(p.parts) & set(config["rsync_exclude"])]
        assert sent
        assert set(sent) <= ours, set(sent) - ours  # nothing that git ignores
        assert not any(p.name.startswith(".") for p in sent)
        assert sum(p.stat().st_size for p in sent) < 2**20
    assert {"__pycache__", ".git", ".venv", "results"} <= set(config["rsync_exclude"])


SECRETS = (
    r"AKIA[0-9A-Z]{16}",
    r"PRIVATE KEY",
    r"\b[0-9a-f]{64}\b",  # a Ray token
    r"(?i)(secret|password|access_key|auth_token)[\w-]*\s*[:=]\s*['\"]?[\w/+]{8,}",
)


@pytest.mark.parametrize("path", FILES)
def test_no_file_holds_a_secret_or_opens_a_port_to_the_world(path):
    text = (ROOT / path).read_text()
    for secret in SECRETS:
        assert not re.search(secret, text), secret
    for cidr in re.findall(r"\b\d+\.\d+\.\d+\.\d+/\d+", text):
        assert ipaddress.ip_network(cidr, strict=False).prefixlen >= 16, cidr
    for host in re.findall(r"--dashboard-host[= ](\S+)", text):
        assert host == "127.0.0.1"


# The token


def node_in(folder):
    """Runs commands of a cluster file in a home of their own, with a `ray` that only notes."""
    home, tools = folder / "home", folder / "bin"
    home.mkdir()
    tools.mkdir()
    calls = folder / "calls"
    (tools / "ray").write_text(
        f"""#!/bin/bash
if [ "$1" = get-auth-token ]; then exec {sys.executable} -m ray.scripts.scripts "$@"; fi
{sys.executable} - "$@" >> {calls} << 'END'
import json, os, sys
print(json.dumps({{"arguments": sys.argv[1:], "environment": dict(os.environ)}}))
END
"""
    )
    (tools / "ray").chmod(0o755)
    environment = {
        "HOME": str(home),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "RAY_HEAD_IP": "192.0.2.1",
        "OMP_NUM_THREADS": "1",
        # What `ray up` puts before each of the head's commands, which the file overrules.
        "RAY_enable_autoscaler_v2": "1",
    }

    def run(lines):
        calls.unlink(missing_ok=True)
        printed = ""
        for line in lines:
            shell = ["bash", "-c", f"umask 022; {line}"]
            printed += subprocess.check_output(
                shell, env=environment, stderr=subprocess.STDOUT, text=True
            )
        notes = [json.loads(line) for line in calls.read_text().splitlines()]
        starts = [note for note in notes if note["arguments"][0] == "start"]
        return starts, printed

    run.home = home
    return run


@pytest.fixture
def node(tmp_path):
    return node_in(tmp_path)


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_head_makes_a_token_that_nobody_sees_and_starts_with_it(name, node):
    lines = load(name)["head_start_ray_commands"]
    starts, printed = node(lines)
    token = node.home / ".ray/auth_token"
    assert len(token.read_text()) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text() not in printed
    (start,) = starts
    assert token.read_text() not in json.dumps(start)
    assert start["environment"]["RAY_AUTH_MODE"] == "token"
    assert "--head" in start["arguments"]
    assert "--dashboard-host=127.0.0.1" in start["arguments"]

    earlier = token.read_text()
    node(lines)  # `ray up` once more: nodes that run already keep their token
    assert token.read_text() == earlier


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_worker_starts_with_the_token_and_its_own_thread_count(name, node):
    (start,), _ = node(load(name)["worker_start_ray_commands"])
    assert start["environment"]["RAY_AUTH_MODE"] == "token"
    assert "OMP_NUM_THREADS" not in start["environment"]
    assert "--address=192.0.2.1:6379" in start["arguments"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_shell_on_the_cluster_uses_the_token(name, node):
    bashrc = node.home / ".bashrc"
    lines = [line for line in load(name)["setup_commands"] if "bashrc" in line]
    bashrc.write_text("# before\n")
    node([*lines, *lines, "source ~/.bashrc; ray start"])
    assert bashrc.read_text().count("RAY_AUTH_MODE=token") == 1
    (start,), _ = node(["source ~/.bashrc; ray start"])
    assert start["environment"]["RAY_AUTH_MODE"] == "token"
    assert start["environment"]["PATH"].startswith(f"{node.home}/venv/bin:")


# AWS, simulated


class Recorder:
    """Stands in for `subprocess` in Ray's launcher: notes the ssh and rsync commands it would run.

    The configuration that `ray up` puts on the head is kept: it exists only while it is copied.
    """

    DEVNULL = subprocess.DEVNULL

    def __init__(self):
        self.commands = []
        self.head_config = None

    def check_call(self, command, *_, **__):
        self.commands.append(command)
        for word in command:
            if Path(word).name.startswith("ray-bootstrap-"):
                self.head_config = json.loads(Path(word).read_text())

    def check_output(self, command, *_, **__):
        self.check_call(command)
        return b""

    def copies(self):
        """(source, host, target) of each rsync, without the trailing slash of a directory."""
        for command in self.commands:
            if command[0] == "rsync":
                source, (host, target) = command[-2], command[-1].split(":")
                yield source.rstrip("/"), host.split("@")[1], target.rstrip("/")


class SpotRefused:
    """EC2 without spot machines."""

    def __init__(self, ec2):
        self.ec2 = ec2

    def create_instances(self, **request):
        from botocore.exceptions import ClientError

        if request.get("InstanceMarketOptions", {}).get("MarketType") == "spot":
            error = {"Code": "InsufficientInstanceCapacity", "Message": "no spot capacity"}
            raise ClientError({"Error": error}, "RunInstances")
        return self.ec2.create_instances(**request)


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    """boto3 on a simulated AWS with the stack of deploy/aws.yaml, in a home of its own."""
    import boto3
    from moto import mock_aws

    home = tmp_path_factory.mktemp("home")
    # This machine is the laptop, and the head as well.
    (home / "convae-study").symlink_to(ROOT)
    (home / "ray_bootstrap_key.pem").symlink_to(home / ".ssh/ray-autoscaler_us-east-1.pem")
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text("0123456789abcdef" * 4)
    environment = {
        "HOME": home,
        "AWS_ACCESS_KEY_ID": "simulated",
        "AWS_SECRET_ACCESS_KEY": "simulated",
        "AWS_DEFAULT_REGION": "us-east-1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, value in environment.items():
            patch.setenv(name, str(value))
        patch.setattr("tempfile.tempdir", str(home))  # Ray's cache of resolved configurations
        patch.setattr("ray.autoscaler._private.aws.node_provider.TAG_BATCH_DELAY", 0)
        patch.chdir(ROOT)
        stacks = boto3.client("cloudformation")
        stacks.create_stack(
            StackName="convae-study",
            TemplateBody=(ROOT / "deploy/aws.yaml").read_text(),
            Parameters=[{"ParameterKey": "SshFrom", "ParameterValue": SSH_FROM}],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        yield boto3


@pytest.fixture(scope="module")
def up(aws):
    """`ray up cluster.yaml`: what the laptop did, with the configuration that is on the head."""
    from ray.autoscaler._private import commands as launcher

    (stack,) = aws.client("cloudformation").describe_stacks()["Stacks"]
    (group,) = [o["OutputValue"] for o in stack["Outputs"] if o["OutputKey"] == "SecurityGroup"]
    text = (ROOT / AWS).read_text()
    config = launcher._bootstrap_config(yaml.safe_load(text.replace("sg-REPLACE", group)))
    laptop = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves a temporary file open
        launcher.get_or_create_head_node(config, AWS, False, False, True, None, _runner=laptop)
        gc.collect()
    return laptop


@pytest.fixture(scope="module")
def on_head(tmp_path_factory):
    """The head's environment as its `ray start` finds it."""
    node = node_in(tmp_path_factory.mktemp("head"))
    (start,), _ = node(load(AWS)["head_start_ray_commands"])
    return {k: v.replace(str(node.home), "~") for k, v in start["environment"].items()}


@pytest.fixture
def autoscaler(up, monkeypatch, on_head):
    """Ray's autoscaler as it starts on the head, before two trials that want a GPU each."""
    from ray.autoscaler._private.autoscaler import StandardAutoscaler
    from ray.autoscaler._private.load_metrics import LoadMetrics

    assert on_head["RAY_enable_autoscaler_v2"] == "0"  # the scorer is the first autoscaler's
    modules = Path(on_head["PYTHONPATH"]).expanduser()
    monkeypatch.syspath_prepend(modules)
    scorer = on_head["RAY_AUTOSCALER_UTILIZATION_SCORER"]
    monkeypatch.setenv("RAY_AUTOSCALER_UTILIZATION_SCORER", scorer)

    config = json.loads(json.dumps(up.head_config))
    config["provider"]["foreground_node_launch"] = True  # one thread, so that updates have an order
    demand = LoadMetrics()
    scaler = StandardAutoscaler(
        lambda: json.loads(json.dumps(config)),
        demand,
        gcs_client=None,
        max_failures=0,
        process_runner=Recorder(),
        update_interval_s=0,
    )
    (head,) = scaler.provider.non_terminated_nodes({"ray-node-type": "head"})
    trials = [{"CPU": 4, "GPU": 1}] * 2
    demand.update(scaler.provider.internal_ip(head), b"head", {}, {}, 0, trials)
    yield scaler
    scaler.provider.terminate_nodes(scaler.provider.non_terminated_nodes(WORKERS))


def launched(scaler, updates):
    """The types of the workers that exist after some rounds of the autoscaler."""
    for _ in range(updates):
        scaler.update()
    for updater in scaler.updaters.values():
        updater.join()
    nodes = scaler.provider.non_terminated_nodes(WORKERS)
    return sorted(scaler.provider.node_tags(node)["ray-user-node-type"] for node in nodes)


def test_a_spot_machine_is_asked_for_first(autoscaler):
    assert launched(autoscaler, 3) == ["gpu_spot", "gpu_spot"]


def test_on_demand_is_the_fallback_when_spot_is_refused(autoscaler):
    autoscaler.provider.ec2_fail_fast = SpotRefused(autoscaler.provider.ec2_fail_fast)
    assert launched(autoscaler, 1) == []
    assert launched(autoscaler, 3) == ["gpu_on_demand", "gpu_on_demand"]


def test_without_the_scorer_ray_asks_for_spot_for_ever(autoscaler):
    """Why deploy/spot_first.py exists: once Ray passes this by itself, it can go."""
    from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer

    autoscaler.resource_demand_scheduler.utilization_scorer = _default_utilization_scorer
    autoscaler.provider.ec2_fail_fast = SpotRefused(autoscaler.provider.ec2_fail_fast)
    assert launched(autoscaler, 5) == []


def test_the_scorer_refuses_a_ray_that_it_was_not_checked_with(monkeypatch):
    monkeypatch.setattr("ray.__version__", "2.99.0")
    with pytest.raises(RuntimeError, match=r"checked with Ray 2\.60\.x, not 2\.99\.0"):
        runpy.run_path(str(ROOT / "deploy/spot_first.py"))


def test_a_worker_gets_the_token_from_the_head_by_rsync_alone(autoscaler, up):
    token = Path(TOKEN_PATH).expanduser()
    launched(autoscaler, 3)
    assert autoscaler.updaters
    addresses = set()
    for name, updater in autoscaler.updaters.items():
        assert updater.exitcode == 0
        addresses.add(autoscaler.provider.internal_ip(name))
    head = autoscaler.process_runner
    copied = {host for source, host, target in head.copies() if source == target == str(token)}
    assert copied == addresses
    # The laptop neither has nor sends one, and nobody says it in a command or a configuration.
    assert str(token) not in {source for source, _, _ in up.copies()}
    said = json.dumps([head.commands, up.commands, up.head_config])
    assert token.read_text() not in said


def test_the_laptop_sends_the_code_its_configuration_and_the_workers_key(up):
    sent = {target: source for source, _, target in up.copies()}
    assert sent.pop("~/ray_bootstrap_config.yaml")
    assert sent.pop("~/ray_bootstrap_key.pem")
    assert sent == load(AWS)["file_mounts"]


def test_nodes_listen_to_each_other_and_to_ssh_from_one_address(autoscaler, aws):
    launched(autoscaler, 3)
    ec2 = aws.client("ec2")
    reservations = ec2.describe_instances(
        Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    )["Reservations"]
    instances = [i for r in reservations for i in r["Instances"]]
    assert len(instances) == 3
    groups = {group["GroupId"] for i in instances for group in i["SecurityGroups"]}
    (group,) = ec2.describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
    ssh, among_nodes = sorted(group["IpPermissions"], key=lambda rule: rule["IpProtocol"] == "-1")
    assert (ssh["IpProtocol"], ssh["FromPort"], ssh["ToPort"]) == ("tcp", 22, 22)
    assert [r["CidrIp"] for r in ssh["IpRanges"]] == [SSH_FROM]
    assert among_nodes["IpRanges"] == []
    assert [pair["GroupId"] for pair in among_nodes["UserIdGroupPairs"]] == [group["GroupId"]]
    for rule in group["IpPermissions"]:
        assert rule["Ipv6Ranges"] == []
        assert rule["PrefixListIds"] == []

    profiles = {i["InstanceType"]: i["IamInstanceProfile"]["Arn"] for i in instances}
    assert profiles["m6i.large"].endswith("/convae-study-head")
    assert profiles["g5.xlarge"].endswith("/convae-study-worker")
    assert {i["MetadataOptions"]["HttpTokens"] for i in instances} == {"required"}
    volumes = ec2.describe_volumes()["Volumes"]
    assert all(volume["Encrypted"] for volume in volumes)


def test_a_worker_may_use_the_bucket_and_nothing_else(aws):
    iam = aws.client("iam")
    bucket = aws.client("s3").list_buckets()["Buckets"][0]["Name"]
    profile = iam.get_instance_profile(InstanceProfileName="convae-study-worker")
    (role,) = profile["InstanceProfile"]["Roles"]
    policies = iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
    statements = []
    for policy in policies:
        document = iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId="v1")
        statements += document["PolicyVersion"]["Document"]["Statement"]
    actions = [action for statement in statements for action in statement["Action"]]
    assert len(actions) == 8
    assert all(action.startswith("s3:") and "*" not in action for action in actions)
    resources = {statement["Resource"] for statement in statements}
    assert resources == {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"}


@pytest.mark.usefixtures("aws")
def test_ray_up_stops_before_the_security_group_is_filled_in(capsys):
    from ray.autoscaler._private.commands import _bootstrap_config

    with pytest.raises(AssertionError):
        _bootstrap_config(load(AWS), no_config_cache=True)
    assert "any of the configured SecurityGroupIds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("addresses", "allowed"),
    [("203.0.113.7/32", True), ("10.1.0.0/16", True), ("10.0.0.0/8", False), ("0.0.0.0/0", False)],
)
def test_the_stack_refuses_ssh_from_everywhere(addresses, allowed):
    class Loader(yaml.SafeLoader):
        """Reads CloudFormation's tags as nothing."""

    Loader.add_multi_constructor("!", lambda *_: None)
    template = yaml.load((ROOT / "deploy/aws.yaml").read_text(), Loader)
    pattern = template["Parameters"]["SshFrom"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, addresses)) == allowed


# Kubernetes


def pods(cluster):
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [pod for group in groups for pod in group["template"]["spec"]["containers"]]


def test_the_rayjob_scales_from_nothing_ends_by_itself_and_asks_for_the_token():
    job = load(RAYJOB)["spec"]
    cluster = job["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0
        assert group["maxReplicas"] <= 4
    assert job["shutdownAfterJobFinishes"] is True
    assert job["activeDeadlineSeconds"] <= 86400
    # A retried job runs the same command.
    assert job["backoffLimit"] > 0
    assert {"--name", "--resume-or-start"} <= set(job["entrypoint"].split())
    for pod in pods(cluster):
        assert "env" not in pod  # no token and no key written down
        assert pod["resources"]["limits"] == pod["resources"]["requests"]
