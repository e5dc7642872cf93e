#!/usr/bin/env python3
"""Validates the data of a release with validators made by others: `validate.py FOLDER [STATEMENT...]`.

The manifest by its schema (jsonschema), the bill of materials by CycloneDX's (cyclonedx-python-lib), the provenance and
further statements by in-toto's message definitions (in-toto-attestation). tests/setup installs them.
"""

import base64
import copy
import json
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from jsonschema import Draft202012Validator

PREDICATES = {
    "https://slsa.dev/provenance/v1": provenance_pb2.Provenance,
    "https://in-toto.io/attestation/test-result/v0.1": test_result_pb2.TestResult,
}


def spoilt(manifest):
    """Manifests with one fault each, and what the fault is."""

    def with_(path, value):
        changed = copy.deepcopy(manifest)
        place = changed
        for key in path[:-1]:
            place = place[key]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        return changed

    image = next(i for i, a in enumerate(manifest["artifacts"]) if a["kind"] == "image")
    yield "no source", with_(["source"], None)
    yield "an unknown field", with_(["more"], 1)
    yield "a short digest", with_(["artifacts", 0, "sha512"], "00")
    yield "an image without layout", with_(["artifacts", image, "layout"], None)
    yield "an empty region", with_(["artifacts", image, "layout", 0, "size"], 0)
    yield "a file in another folder", with_(["artifacts", 0, "name"], "../x")
    yield "a version that is none", with_(["version"], "one")
    yield "an unknown role", with_(["dependencies", 0, "role"], "toy")


def check_manifest(folder, schema):
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    manifest = json.loads((folder / "manifest.json").read_text())
    validator.validate(manifest)
    for fault, changed in spoilt(manifest):
        if validator.is_valid(changed):
            sys.exit(f"the schema accepts a manifest with {fault}")


def check_bill(path):
    error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(path.read_text())
    if error:
        sys.exit(f"{path}: {error}")


def check_statement(path):
    data = json.loads(path.read_text())
    if "payload" in data:
        assert data["payloadType"] == "application/vnd.in-toto+json", data["payloadType"]
        assert len(data["signatures"]) == 1
        data = json.loads(base64.b64decode(data["payload"], validate=True))
    Statement.copy_from_pb(json_format.ParseDict(data, statement_pb2.Statement())).validate()
    json_format.ParseDict(data["predicate"], PREDICATES[data["predicateType"]]())


def main():
    folder, *statements = map(Path, sys.argv[1:])
    check_manifest(folder, json.loads((Path(__file__).parent.parent / "manifest.schema.json").read_text()))
    check_bill(folder / "sbom.cdx.json")
    for statement in [folder / "provenance.intoto.json", *statements]:
        check_statement(statement)


main()
