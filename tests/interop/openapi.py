#!/usr/bin/env python3
"""Checks a transcript of Graph calls against graph-openapi-files.json with the jsonschema package.

usage: openapi.py TRANSCRIPT   (JSON lines: method, url, status, location, request, body, length)

Each call must be an operation of the contract, answer one of its statuses, and its JSON must fit the schema.
Path-based addressing is not expressible in OpenAPI and is mapped to the operation on the item, as the contract's
description says. Beyond JSON Schema, a property that no schema names is an error: it would be a misspelling.
"""
import json
import pathlib
import re
import sys

import jsonschema

CONTRACT = json.loads((pathlib.Path(__file__).parent / "graph-openapi-files.json").read_text())
# Not in the contract, which was cut from the CSDL: described in the fact sheet.
OUTSIDE = [
    (r"/\$batch", "graph-api 11.5"),
    (r"/me", "graph-api 14"),
]


def nullable(node):
    """OpenAPI 3.0 `nullable` in terms of JSON Schema; the bare nullable object of Graph's anyOf stands for null."""
    if isinstance(node, list):
        return [nullable(n) for n in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "object" and node.get("nullable") and set(node) == {"type", "nullable"}:
        return {"type": "null"}
    out = {k: nullable(v) for k, v in node.items() if k != "nullable"}
    if node.get("nullable") is True and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
        if "enum" in out:
            out["enum"] = out["enum"] + [None]
    return out


SCHEMAS = nullable(CONTRACT["components"]["schemas"])
ROOT = {"components": {"schemas": SCHEMAS}}


def resolve(schema):
    while "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rsplit("/", 1)[1]]
    return schema


def properties(schema):
    """All properties a schema names, through allOf and anyOf; None when it names none at all."""
    schema = resolve(schema)
    found = dict(schema.get("properties", {}))
    for part in schema.get("allOf", []) + schema.get("anyOf", []):
        found.update(properties(part))
    return found


def unknown(value, schema, where):
    if isinstance(value, dict):
        known = properties(schema)
        for key, inner in value.items():
            if key in known:
                yield from unknown(inner, known[key], f"{where}/{key}")
            elif known and "@" not in key and not open_set(schema):
                yield f"{where}: no schema names the property {key!r}"
    elif isinstance(value, list):
        schema = resolve(schema)
        for n, inner in enumerate(value):
            yield from unknown(inner, schema.get("items", {}), f"{where}/{n}")


def open_set(schema):
    """identitySet, identity and inner errors are open on purpose."""
    schemas = [resolve(schema)] + [resolve(s) for s in resolve(schema).get("anyOf", [])]
    titles = {s.get("title", "") for s in schemas}
    return bool(titles & {"identitySet", "identity", "sharePointIdentitySet"}) or any(
        "request-id" in s.get("properties", {}) for s in schemas
    )


def patterns():
    for path, operations in CONTRACT["paths"].items():
        literal = re.split(r"(\{[^}]*\})", path)
        regex = "".join("[^/]+" if p.startswith("{") else re.escape(p) for p in literal)
        regex = regex.replace(r"\(\)", r"(?:\(\))?")
        yield len([p for p in literal if not p.startswith("{")]), "".join(literal).count("{"), regex, path, operations


PATTERNS = sorted(patterns(), key=lambda p: p[1])


def normal(url):
    """The path as the contract would write it."""
    path = re.sub(r"^https?://[^/]+", "", url).split("?")[0]
    if not path.startswith("/v1.0"):
        return None
    path = path[len("/v1.0"):]
    path = re.sub(r"\((path|q|token)='[^']*'\)", r"(\1='X')", path)
    path = re.sub(r"^(/(?:me|users/[^/]+|groups/[^/]+|sites/[^/]+?(?::/.+?:)?))/drives?/(?=root|items|special)", "/drives/X/", path)
    path = re.sub(r"^(/(?:me|users/[^/]+|sites/[^/]+?))/drives/[^/]+/", "/drives/X/", path)
    path = re.sub(r"^/sites/[^/:]+:/[^:]+(:|$)", lambda m: "/sites/S" + ("" if m[1] else ""), path)
    path = re.sub(r"/(root|items/[^/:]+|special/[^/:]+):/[^:]*(:|$)", "/items/I", path)
    if re.match(r"^/drives/[^/]+/root(/(?!content|subscriptions/socketIo)|$)", path):
        path = re.sub(r"/root(?=/)", "/items/I", path)
    path = re.sub(r"/children\('[^/]*'\)", "/children/C", path)
    return path


def operation(method, path):
    for _, _, regex, name, operations in PATTERNS:
        if re.fullmatch(regex, path) and method.lower() in operations:
            return name, operations[method.lower()]
    # delta without parentheses, and functions on the root, are the same operation.
    return None, None


def answer_schema(responses, status):
    """The declared answer for a status, the exact one first; None when it is not declared."""
    for key in (str(status), f"{status // 100}XX", "default"):
        if key in responses:
            answer = responses[key]
            if "$ref" in answer:
                answer = CONTRACT["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
            return answer
    return None


def problems(call):
    path = normal(call["url"])
    if path is None or any(re.fullmatch(p, path) for p, _ in OUTSIDE):
        return None
    status = call["status"]
    name, op = operation(call["method"], path)
    if op is None:
        # What the contract does not have must be refused; copy, sessions by path and the like are mapped above.
        if status < 400:
            return [f"not an operation of the contract: {call['method']} {path}"]
        op, name = {"responses": {"4XX": {"$ref": "#/components/responses/error"}}}, "(none)"
    answer = answer_schema(op["responses"], status)
    if status == 304:
        return []
    if answer is None:
        return [f"{name}: the status {status} is not declared"]
    if "Location" in answer.get("headers", {}) and not call["location"]:
        return [f"{name}: {status} without Location"]
    content = answer.get("content", {}).get("application/json")
    if content is None:
        return [f"{name}: {status} must have no JSON body"] if call["body"] is not None else []
    if call["body"] is None:
        return [f"{name}: {status} has no JSON body"]
    schema = nullable(content["schema"])
    validator = jsonschema.Draft202012Validator(
        {**ROOT, **schema}, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    found = [f"{name}: {e.json_path}: {e.message[:300]}" for e in validator.iter_errors(call["body"])]
    found += [f"{name}: {u}" for u in unknown(call["body"], schema, "$")]
    return found


def main():
    covered, failed, checked = set(), 0, 0
    for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
        call = json.loads(line)
        found = problems(call)
        if found is None:
            continue
        checked += 1
        name, _ = operation(call["method"], normal(call["url"]))
        if name and call["status"] < 400:
            covered.add((call["method"], name))
        for problem in found:
            failed += 1
            print(f"{call['method']} {call['url']} -> {call['status']}\n    {problem}")
    operations = sum(1 for p in CONTRACT["paths"].values() for m in p if m in ("get", "put", "post", "patch", "delete"))
    print(f"{checked} answers checked, {failed} problems, {len(covered)} of {operations} operations succeeded at least once")
    if "-v" in sys.argv:
        for _, _, _, path, ops in PATTERNS:
            for method in ops:
                if method in ("get", "put", "post", "patch", "delete") and (method.upper(), path) not in covered:
                    print("  not covered:", method.upper(), path)
    sys.exit(1 if failed or not checked else 0)


if __name__ == "__main__":
    main()
