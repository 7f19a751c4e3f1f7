"""Checks deploy/ against schemas, for consistency, and against the real host.

Arguments: the host's binary, and the folder of the shared schemas, which may be absent. The rendering is
compared with that of kubectl if it is installed.
"""

import base64
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

from deploy_files import (
    DEPLOY,
    ROOT,
    custom,
    documents,
    flags_in,
    instructions,
    named,
    of_kind,
    pods,
    port_of,
    render,
    seconds,
    secrets,
    selects,
    value_of,
)

SPINFER, SHARED_SCHEMAS = sys.argv[1], Path(sys.argv[2])
# The releases of Kubernetes that are supported upstream, and two earlier ones.
KUBERNETES = ["1.33", "1.34", "1.35", "1.36", "1.37"]
# Seconds: the default of `--drain`, `SHUTDOWN_TIMEOUT` of host/src/server/mod.rs, and `LOG_TIMEOUT` of
# host/src/cli/up/mod.rs.
DRAIN, IN_FLIGHT, RECORDS = 5, 30, 10
STATE, COPIES = "/app/.spin", "/var/cache/spinfer/files"


def host(*arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPINFER_")}
    return subprocess.run([SPINFER, *arguments], capture_output=True, text=True, env=environment)


def flags_of(command):
    return set(re.findall(r"(?<![\w-])--[a-z-]+", host(command, "--help").stdout))


class Deploy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.kubernetes = secrets(Path(cls.folder.name) / "kubernetes")
        cls.base, cls.keda = render(cls.kubernetes / "base"), render(cls.kubernetes / "keda")
        cls.compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
        cls.deployment = named(cls.base, "Deployment", "spinfer")
        [cls.container] = cls.deployment["spec"]["template"]["spec"]["containers"]
        cls.version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    # Schemas.

    def test_kubernetes_objects_are_valid(self):
        for version in KUBERNETES:
            for made in self.base + self.keda:
                if made["kind"] != "ScaledObject":
                    with self.subTest(version=version, kind=made["kind"], name=made["metadata"]["name"]):
                        validated = kubernetes_validate.validate(made, version, strict=True)
                        self.assertEqual(validated, version)

    def test_the_validator_rejects_misspelt_fields(self):
        made = copy.deepcopy(self.deployment)
        made["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(made, KUBERNETES[-1], strict=True)

    def test_custom_resources_are_valid(self):
        [scaled] = of_kind(self.keda, "ScaledObject")
        [app] = documents(DEPLOY / "spinkube" / "spinapp.yaml")
        for name, made in [("keda.sh_scaledobjects", scaled), ("core.spinkube.dev_spinapps", app)]:
            custom(name, made)
            wrong = copy.deepcopy(made)
            wrong["spec"]["replicaCount"] = 1
            with self.assertRaises(jsonschema.ValidationError):
                custom(name, wrong)
        self.assertLessEqual(scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"])

    def test_restated_schemas_equal_the_originals(self):
        if not SHARED_SCHEMAS.is_dir():
            self.skipTest(f"{SHARED_SCHEMAS} is absent")

        def without_descriptions(node):
            if isinstance(node, dict):
                kept = {k: v for k, v in node.items() if not (k == "description" and isinstance(v, str))}
                return {k: without_descriptions(v) for k, v in kept.items()}
            return [without_descriptions(v) for v in node] if isinstance(node, list) else node

        for name in ["core.spinkube.dev_spinapps", "keda.sh_scaledobjects"]:
            [crd] = documents(SHARED_SCHEMAS / f"{name}.yaml")
            [version] = crd["spec"]["versions"]
            restated = json.loads((DEPLOY / "schemas" / f"{name}.json").read_text())
            self.assertEqual(without_descriptions(version["schema"]["openAPIV3Schema"]), restated["schema"])

    def test_the_compose_file_is_valid(self):
        schema = json.loads((DEPLOY / "schemas" / "compose-spec.json").read_text())
        validator = jsonschema.Draft201909Validator(schema)
        # The project name is newer than this schema.
        self.assertEqual(self.compose.pop("name"), "spinfer")
        validator.validate(self.compose)
        wrong = copy.deepcopy(self.compose)
        wrong["services"]["spinfer"]["read_onyl"] = True
        self.assertFalse(validator.is_valid(wrong))

    def test_kubectl_renders_the_same_objects(self):
        if not shutil.which("kubectl"):
            self.skipTest("kubectl is not installed")
        for name, ours in [("base", self.base), ("keda", self.keda)]:
            environment = os.environ | {"KUBECONFIG": os.devnull}
            command = ["kubectl", "kustomize", str(self.kubernetes / name)]
            rendered = subprocess.run(command, capture_output=True, text=True, env=environment)
            self.assertEqual(rendered.returncode, 0, rendered.stderr)
            # Names of generated objects end in a hash.
            text = re.sub(r"\b(spinfer|spinfer-runtime-config|spinfer-admin|redis-users)-[0-9a-z]{10}\b", r"\1", rendered.stdout)
            theirs = [document for document in yaml.safe_load_all(text) if document]

            def key(made):
                return made["kind"], made["metadata"]["name"]

            def plain(made):
                data = made.get("data", {})
                if made["kind"] == "Secret":
                    made = made | {"data": {k: base64.b64decode(v).strip() for k, v in data.items()}}
                return made

            theirs, mine = ([plain(made) for made in sorted(list_, key=key)] for list_ in (theirs, ours))
            self.assertEqual([key(made) for made in theirs], [key(made) for made in mine])
            for their, my in zip(theirs, mine):
                self.assertEqual(their, my)

    # References.

    def test_selectors_match(self):
        for objects in (self.base, self.keda):
            templates = pods(objects)

            def matched(labels):
                return [pod for pod in templates if selects(labels, pod)]

            for workload in of_kind(objects, "Deployment", "StatefulSet"):
                self.assertTrue(selects(workload["spec"]["selector"]["matchLabels"], workload["spec"]["template"]))
                for spread in workload["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
                    self.assertTrue(selects(spread["labelSelector"]["matchLabels"], workload["spec"]["template"]))
            for service in of_kind(objects, "Service"):
                [pod] = matched(service["spec"]["selector"])
                ports = {port["name"] for c in pod["spec"]["containers"] for port in c["ports"]}
                for port in service["spec"]["ports"]:
                    self.assertIn(port["targetPort"], ports)
            for budget in of_kind(objects, "PodDisruptionBudget"):
                self.assertEqual(len(matched(budget["spec"]["selector"]["matchLabels"])), 1)
            for stateful in of_kind(objects, "StatefulSet"):
                named(objects, "Service", stateful["spec"]["serviceName"])
            scalers = of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
            self.assertEqual(len(scalers), 1, "two autoscalers for one Deployment fight")
            named(objects, "Deployment", scalers[0]["spec"]["scaleTargetRef"]["name"])
            self.assertNotIn("replicas", named(objects, "Deployment", "spinfer")["spec"])

    def test_network_policies_name_existing_ports_and_pods(self):
        templates = pods(self.base)
        denied = set()
        for policy in of_kind(self.base, "NetworkPolicy"):
            labels = policy["spec"]["podSelector"].get("matchLabels", {})
            selected = [pod for pod in templates if selects(labels, pod)]
            self.assertTrue(selected)
            if not labels:
                denied = set(policy["spec"]["policyTypes"])
                self.assertFalse(policy["spec"].keys() & {"ingress", "egress"}, "the default lets nothing through")
            for rule in policy["spec"].get("ingress", []) + policy["spec"].get("egress", []):
                peers = rule.get("to", [])
                own = [p for peer in rule.get("from", []) + peers for p in [peer.get("podSelector")] if p and "namespaceSelector" not in peer]
                for selector in own:
                    self.assertTrue(any(selects(selector["matchLabels"], pod) for pod in templates), selector)
                # A named port is one of the pod that is connected to.
                reached = [p for p in templates if any(selects(s["matchLabels"], p) for s in own)] if peers else selected
                names = {port["name"] for pod in reached for c in pod["spec"]["containers"] for port in c["ports"]}
                for port in rule["ports"]:
                    self.assertTrue(isinstance(port["port"], int) or port["port"] in names, port)
        self.assertEqual(denied, {"Ingress", "Egress"})
        [spinfer] = [p for p in of_kind(self.base, "NetworkPolicy") if p["metadata"]["name"] == "spinfer"]
        [admin] = [r for r in spinfer["spec"]["ingress"] if {"port": "admin"} in r["ports"]]
        self.assertEqual(admin["from"][0]["namespaceSelector"]["matchLabels"], {"kubernetes.io/metadata.name": "monitoring"})

    def test_probes_use_existing_ports_and_paths(self):
        for pod in pods(self.base):
            for container in pod["spec"]["containers"]:
                ports = {port["name"]: port["containerPort"] for port in container["ports"]}
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    get = container[probe].get("httpGet")
                    if get:
                        self.assertIn(get["port"], ports)
        ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        self.assertEqual(ports["http"], port_of("--listen", self.container["args"]))
        self.assertEqual(ports["admin"], port_of("--admin", self.container["args"]))
        self.assertEqual(self.container["livenessProbe"]["httpGet"]["path"], "/v2/health/live")
        self.assertEqual(self.container["readinessProbe"]["httpGet"]["path"], "/v2/health/ready")
        [app] = documents(DEPLOY / "spinkube" / "spinapp.yaml")
        for name, check in app["spec"]["checks"].items():
            self.assertEqual(check["httpGet"]["path"], self.container[name + "Probe"]["httpGet"]["path"])

    def test_volumes_secrets_and_config_maps_exist(self):
        for workload in of_kind(self.base, "Deployment", "StatefulSet"):
            pod = workload["spec"]["template"]["spec"]
            volumes = {v["name"]: v for v in pod.get("volumes", [])}
            claims = {c["metadata"]["name"] for c in workload["spec"].get("volumeClaimTemplates", [])}
            mounted = {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", [])}
            self.assertEqual(mounted, volumes.keys() | claims)
            for volume in volumes.values():
                if "secret" in volume:
                    named(self.base, "Secret", volume["secret"]["secretName"])
            for container in pod["containers"]:
                for source in container.get("envFrom", []):
                    named(self.base, "ConfigMap", source["configMapRef"]["name"])
                for variable in container.get("env", []):
                    reference = variable["valueFrom"]["secretKeyRef"]
                    self.assertIn(reference["key"], named(self.base, "Secret", reference["name"])["data"])
        config = value_of("--runtime-config-file", self.container["args"])
        mounts = {m["name"]: m["mountPath"] for m in self.container["volumeMounts"]}
        self.assertEqual(Path(config).parent, Path(mounts["runtime-config"]))
        self.assertIn(Path(config).name, named(self.base, "Secret", "spinfer-runtime-config")["data"])

    def test_pods_meet_the_restricted_standard(self):
        level = named(self.base, "Namespace", "spinfer")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        self.assertEqual(level, "restricted")
        for pod in pods(self.base):
            context = pod["spec"]["securityContext"]
            self.assertTrue(context["runAsNonRoot"] and context["runAsUser"] > 0)
            self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertFalse(pod["spec"]["automountServiceAccountToken"])
            for container in pod["spec"]["containers"]:
                self.assertEqual(
                    container["securityContext"],
                    {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
                )
                self.assertIn("memory", container["resources"]["limits"])
                self.assertIn("cpu", container["resources"]["requests"])
        for service in self.compose["services"].values():
            self.assertTrue(service["read_only"])
            self.assertEqual((service["cap_drop"], service["security_opt"]), (["ALL"], ["no-new-privileges:true"]))

    def test_compose_names_existing_files(self):
        services = self.compose["services"]
        for service in services.values():
            self.assertLessEqual(set(service["secrets"]), self.compose["secrets"].keys())
            for volume in service["volumes"]:
                self.assertIn(volume.split(":")[0], self.compose["volumes"])
        made = {file.name for file in (self.kubernetes / "base" / "secrets").iterdir()}
        files = {Path(secret["file"]).name for secret in self.compose["secrets"].values()}
        files |= {Path(file).name for file in services["spinfer"]["env_file"]}
        self.assertEqual(files, made)
        build = services["spinfer"]["build"]
        self.assertEqual((DEPLOY / build["context"]).resolve(), ROOT)
        self.assertTrue((ROOT / build["dockerfile"]).is_file())
        ports = {port.rsplit(":", 1)[1] for port in services["spinfer"]["ports"]}
        command = services["spinfer"]["command"]
        self.assertEqual(ports, {str(port_of("--listen", command)), str(port_of("--admin", command))})

    # Consistency.

    def test_versions_agree(self):
        example, plain = f"spinfer-example:{self.version}", f"spinfer:{self.version}"
        [executor] = documents(DEPLOY / "spinkube" / "executor.yaml")
        self.assertEqual(self.container["image"], example)
        self.assertEqual(executor["spec"]["deploymentConfig"]["spinImage"], example)
        self.assertIn(example, self.compose["services"]["spinfer"]["image"])
        self.assertIn(["ARG", f"SPINFER={plain}"], instructions(DEPLOY / "app.Containerfile"))
        containerfile = instructions(DEPLOY / "Containerfile")
        self.assertIn(["ARG", f"VERSION={self.version}"], containerfile)
        channel = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
        [image] = [rest for name, rest in containerfile if name == "ARG" and rest.startswith("RUST_IMAGE=")]
        self.assertIn(f"rust:{channel.rsplit('.', 1)[0]}-", image)

    def test_the_image_agrees_with_the_deployments(self):
        containerfile = instructions(DEPLOY / "Containerfile")
        [stage] = [i for i, (name, rest) in enumerate(containerfile) if (name, rest) == ("FROM", "scratch AS host")]
        image = {}
        for name, rest in containerfile[stage:]:
            image.setdefault(name, []).append(rest)
        [user] = image["USER"]
        uid, gid = map(int, user.split(":"))
        pod = self.deployment["spec"]["template"]["spec"]["securityContext"]
        self.assertEqual((pod["runAsUser"], pod["runAsGroup"], pod["fsGroup"]), (uid, gid, gid))
        self.assertIn(f"USER_ID={uid}\n", (DEPLOY / "build.sh").read_text())
        self.assertIn(f"USER_ID={uid}\n", (DEPLOY / "test-image.sh").read_text())
        self.assertIn(f"--from=build --chown={user} /out/state/ {STATE}/", image["COPY"])
        self.assertEqual(image["STOPSIGNAL"], ["SIGTERM"])
        exposed = {int(port) for port in image["EXPOSE"][0].split()}
        self.assertEqual(exposed, {port["containerPort"] for port in self.container["ports"]})
        health = json.loads(image["HEALTHCHECK"][0].split("CMD", 1)[1])
        self.assertEqual(["CMD", *health], self.compose["services"]["spinfer"]["healthcheck"]["test"])
        self.assertLessEqual(flags_in(health), flags_of(health[1]))
        entry, command = (json.loads(image[name][-1]) for name in ("ENTRYPOINT", "CMD"))
        self.assertEqual((entry, command[0]), (["/usr/bin/spinfer"], "up"))
        self.assertLessEqual(flags_in(command), flags_of("up"))
        # Writable paths are mounts.
        mounts = {mount["mountPath"] for mount in self.container["volumeMounts"]}
        self.assertLessEqual({STATE, COPIES, "/tmp"}, mounts)
        service = self.compose["services"]["spinfer"]
        mounts = {volume.split(":")[1] for volume in service["volumes"]} | {mount.split(":")[0] for mount in service["tmpfs"]}
        self.assertLessEqual({STATE, COPIES, "/tmp"}, mounts)
        [app] = documents(DEPLOY / "spinkube" / "spinapp.yaml")
        self.assertEqual([mount["mountPath"] for mount in app["spec"]["volumeMounts"]], [STATE])
        [application] = [value_of("--from", self.container["args"])]
        self.assertEqual((application, app["spec"]["image"]), ("/app", "/app"))

    def test_flags_exist(self):
        known = flags_of("up")
        [unit] = [line for line in (DEPLOY / "systemd" / "spinfer.service").read_text().splitlines() if line.startswith("ExecStart=")]
        commands = {
            "kubernetes": self.container["args"],
            "compose": self.compose["services"]["spinfer"]["command"],
            "systemd": unit.split()[1:],
            # The command with which SpinKube's operator starts an executor's `spinImage`.
            "spinkube": ["up", "--listen", "-f", "--runtime-config-file", "--component-id"],
        }
        for name, arguments in commands.items():
            with self.subTest(name):
                self.assertEqual(arguments[0], "up")
                self.assertTrue(flags_in(arguments))
                self.assertLessEqual(flags_in(arguments), known)
        build = (DEPLOY / "build.sh").read_text() + (DEPLOY / "app.Containerfile").read_text()
        for flag in ("--aot", "--no-commands", "--from"):
            self.assertIn(flag, build)
            self.assertIn(flag, flags_of("build"))

    def test_grace_periods_exceed_the_time_to_shut_down(self):
        pod = self.deployment["spec"]["template"]["spec"]
        drain = seconds(value_of("--drain", self.container["args"]))
        after = IN_FLIGHT + RECORDS
        self.assertGreater(pod["terminationGracePeriodSeconds"], drain + after)
        # The pod serves until its readiness probe and the endpoints have been updated.
        self.assertGreaterEqual(drain, DRAIN)
        self.assertNotIn("lifecycle", self.container)
        self.assertGreater(seconds(self.compose["services"]["spinfer"]["stop_grace_period"]), DRAIN + after)
        unit = (DEPLOY / "systemd" / "spinfer.service").read_text()
        self.assertGreater(int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]), DRAIN + after)
        source = ROOT / "host" / "src"
        server = (source / "server" / "mod.rs").read_text()
        self.assertIn(f"SHUTDOWN_TIMEOUT: Duration = Duration::from_secs({IN_FLIGHT})", server)
        up = (source / "cli" / "up" / "mod.rs").read_text()
        self.assertIn(f"LOG_TIMEOUT: Duration = Duration::from_secs({RECORDS})", up)
        self.assertIn(f'default_value = "{DRAIN}s"', up)

    def test_redis_is_the_same_in_kubernetes_and_compose(self):
        [redis] = named(self.base, "StatefulSet", "redis")["spec"]["template"]["spec"]["containers"]
        service = self.compose["services"]["redis"]
        file = service["command"].index("--aclfile") + 1
        without_file = [[a for i, a in enumerate(arguments) if i != file] for arguments in (redis["args"], service["command"])]
        self.assertEqual(*without_file)
        self.assertEqual((redis["image"], redis["livenessProbe"]["exec"]["command"]), (service["image"], service["healthcheck"]["test"][1:]))

    def test_the_build_context_has_every_crate(self):
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        allowed = {line[1:] for line in ignored if line.startswith("!")}
        members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
        for path in [*members, "Cargo.lock", "rust-toolchain.toml", "spin.toml", "models", "wit", "deploy/build.sh"]:
            self.assertTrue(path in allowed or path.split("/")[0] in allowed, path)
        for path in allowed:
            self.assertTrue((ROOT / path).exists(), path)

    # The real host.

    def test_the_runtime_config_is_accepted(self):
        config = self.kubernetes / "base" / "secrets" / "runtime-config.toml"
        with tempfile.TemporaryDirectory() as folder:
            manifest = Path(folder) / "spin.toml"
            manifest.write_text(
                'spin_manifest_version = 2\n[application]\nname = "static"\n'
                '[[trigger.http]]\nroute = "/"\nstatic_response = { status_code = 200 }\n'
            )
            check = ["check", "--from", str(manifest), "--state-dir", folder, "--runtime-config-file"]
            passed = host(*check, str(config))
            self.assertEqual(passed.returncode, 0, passed.stderr)
            wrong = Path(folder) / "wrong.toml"
            wrong.write_text(config.read_text().replace("prefix =", "prefiks ="))
            refused = host(*check, str(wrong))
            self.assertIn("prefiks", refused.stderr)
            # SpinKube's operator writes this one if a SpinApp has no `runtimeConfig`.
            wrong.write_text('[[variables_provider]]\ntype = "env"\nprefix = "SPIN_VARIABLE_"\n')
            self.assertEqual(host(*check, str(wrong)).returncode, 0)

    def test_metrics_in_queries_exist(self):
        table = (ROOT / "host" / "src" / "metrics" / "table.rs").read_text()
        [scaled] = of_kind(self.keda, "ScaledObject")
        queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
        names = {name for query in queries for name in re.findall(r"\bspinfer_[a-z_]+", query)}
        self.assertIn("spinfer_requests_total", names)
        for name in names:
            self.assertIn(f'"{name}"', table)

    def test_the_scrape_config_finds_the_admin_port(self):
        [config] = yaml.safe_load((DEPLOY / "prometheus" / "scrape.yaml").read_text())["scrape_configs"]
        [keep] = [rule for rule in config["relabel_configs"] if rule.get("action") == "keep"]
        label = self.deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
        self.assertIn(f"{label};admin", keep["regex"])
        self.assertIn("admin", {port["name"] for port in self.container["ports"]})
        self.assertEqual(Path(config["authorization"]["credentials_file"]).name, "SPINFER_ADMIN_TOKEN")

    def test_secrets_are_random_and_not_overwritten(self):
        folder = Path(self.folder.name) / "twice"
        run = [DEPLOY / "secrets.sh", folder]
        subprocess.run(run, check=True, capture_output=True)
        before = {file.name: file.read_text() for file in folder.iterdir()}
        subprocess.run(run, check=True, capture_output=True)
        self.assertEqual(before, {file.name: file.read_text() for file in folder.iterdir()})
        others = {file.name: file.read_text() for file in (self.kubernetes / "base" / "secrets").iterdir()}
        for name in before:
            self.assertNotEqual(before[name], others[name])
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        token = before["admin.env"].strip().split("=", 1)
        self.assertEqual((token[0], len(token[1])), ("SPINFER_ADMIN_TOKEN", 64))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v"])
