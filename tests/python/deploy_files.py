"""The files of deploy/: manifests as objects, kustomizations rendered, schemas, flags of commands."""

import base64
import copy
import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def secrets(folder):
    """Copies deploy/kubernetes, with the secrets of deploy/secrets.sh."""
    shutil.copytree(DEPLOY / "kubernetes", folder, ignore=shutil.ignore_patterns("secrets"))
    made = subprocess.run([DEPLOY / "secrets.sh", folder / "base" / "secrets"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder


def render(folder):
    """The objects of `kubectl kustomize` for a folder, without hashes, as far as these folders need it."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    known = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "secretGenerator", "images", "patches"}
    assert set(kustomization) <= known, set(kustomization) - known
    objects = []
    for resource in kustomization["resources"]:
        path = folder / resource
        objects += render(path) if path.is_dir() else documents(path)
    for kind, generator in [("ConfigMap", "configMapGenerator"), ("Secret", "secretGenerator")]:
        for entry in kustomization.get(generator, []):
            data = dict(literal.split("=", 1) for literal in entry.get("literals", []))
            for file in entry.get("files", []):
                name, path = file.split("=", 1)
                data[name] = (folder / path).read_text()
            for path in entry.get("envs", []):
                lines = (folder / path).read_text().splitlines()
                data.update(line.split("=", 1) for line in lines if line)
            if kind == "Secret":
                data = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
            made = {"apiVersion": "v1", "kind": kind, "metadata": {"name": entry["name"]}, "data": data}
            objects.append(made | ({"type": "Opaque"} if kind == "Secret" else {}))
    for patch in kustomization.get("patches", []):
        target = yaml.safe_load(patch["patch"])
        assert target["$patch"] == "delete", target
        kept = [o for o in objects if (o["kind"], o["metadata"]["name"]) != (target["kind"], target["metadata"]["name"])]
        assert len(kept) == len(objects) - 1, f"the patch of {folder} finds nothing"
        objects = kept
    for made in objects:
        if made["kind"] != "Namespace":
            made["metadata"]["namespace"] = kustomization["namespace"]
    for image in kustomization.get("images", []):
        for pod in pods(objects):
            for container in pod["spec"]["containers"]:
                if container["image"] == image["name"]:
                    container["image"] += ":" + image["newTag"]
    return objects


def pods(objects):
    return [o["spec"]["template"] for o in objects if o["kind"] in ("Deployment", "StatefulSet")]


def of_kind(objects, *kinds):
    return [o for o in objects if o["kind"] in kinds]


def named(objects, kind, name):
    [found] = [o for o in of_kind(objects, kind) if o["metadata"]["name"] == name]
    return found


def strict(schema):
    """The structural schema of a custom resource as JSON Schema without additional fields."""
    schema = copy.deepcopy(schema)

    def visit(node):
        if isinstance(node, list):
            for child in node:
                visit(child)
        elif isinstance(node, dict):
            if node.pop("x-kubernetes-int-or-string", False):
                node.pop("anyOf", None)
                node["type"] = ["integer", "string"]
            open_ended = node.get("x-kubernetes-preserve-unknown-fields") or node.get("x-kubernetes-embedded-resource")
            if isinstance(node.get("properties"), dict) and node.get("type") == "object" and not open_ended:
                node.setdefault("additionalProperties", False)
            for child in node.values():
                visit(child)

    visit(schema)
    # Validated by the API server, not by the schema.
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def custom(name, document):
    crd = json.loads((DEPLOY / "schemas" / f"{name}.json").read_text())
    assert document["apiVersion"] == f"{crd['group']}/{crd['version']}" and document["kind"] == crd["kind"]
    jsonschema.Draft202012Validator(strict(crd["schema"])).validate(document)


def flags_in(arguments):
    return {argument.split("=", 1)[0] for argument in arguments if argument.startswith("--")}


def value_of(flag, arguments):
    [value] = [a.split("=", 1)[1] for a in arguments if a.startswith(flag + "=")]
    return value


def port_of(flag, arguments):
    return int(value_of(flag, arguments).rsplit(":", 1)[1])


def selects(labels, pod):
    return labels.items() <= pod["metadata"]["labels"].items()


def instructions(path):
    """The instructions of a Containerfile as (name, rest), with continued lines joined."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    return [line.split(None, 1) for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]


def seconds(text):
    return {"s": 1, "m": 60}[text[-1]] * int(text[:-1])
