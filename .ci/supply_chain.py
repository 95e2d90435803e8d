#!/usr/bin/env python3
"""The dependencies, by `cargo metadata`: sources, licences, bans, advisories known to us, and that each is used.

Prints what is wrong and exits with 1; first it finds a planted case of each kind.
"""
import json, os, re, subprocess, sys

REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"
LICENCES = {"MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "0BSD", "BSL-1.0", "CC0-1.0",
            "Unicode-3.0", "Unlicense", "MPL-2.0", "CDLA-Permissive-2.0", "Apache-2.0 WITH LLVM-exception"}
# name → why not, and what instead.
BANNED = {
    "openssl-sys": "a system library; rustls with ring",
    "aws-lc-sys": "needs cmake, and a second provider makes rustls panic; ring",
    "native-tls": "a system library; rustls with ring",
    "protoc-bin-vendored": "a binary; protox",
    "async-graphql-axum": "its extractor ignores body limits; gateway/graphql/transport.rs",
}
# name → versions with a known advisory: (below, identifier).
ADVISORIES = {"lru": ((0, 17, 0), "RUSTSEC-2026-0253")}
# Used by generated code or by a feature alone; a library with another name than its package (webpki).
UNNAMED = {("fafnir-proto", "tonic-prost"), ("fafnir-tls", "rustls-webpki")}


def licence_ok(expression):
    tokens = re.findall(r"\(|\)|[^\s()/]+|/", (expression or "").replace("/", " OR "))
    words, i = [], 0
    while i < len(tokens):
        if i + 2 < len(tokens) and tokens[i + 1] == "WITH":
            words.append(" ".join(tokens[i:i + 3])); i += 3
        else:
            words.append(tokens[i]); i += 1
    python = " ".join({"AND": "and", "OR": "or", "(": "(", ")": ")"}.get(w) or repr(w in LICENCES) for w in words)
    return bool(words) and eval(python, {"__builtins__": {}})


def version(text):
    return tuple(int(n) for n in re.match(r"(\d+)\.(\d+)\.(\d+)", text).groups())


def names(package):
    """Every word in the Rust files of a package, except those of packages below it."""
    root, found = os.path.dirname(package["manifest_path"]), set()
    # The command line's end-to-end tests stand beside it.
    for base in {root} | {os.path.dirname(t["src_path"]) for t in package["targets"]}:
        for folder, inner, files in os.walk(base):
            inner[:] = [d for d in inner if d != "target" and not os.path.exists(os.path.join(folder, d, "Cargo.toml"))]
            for file in files:
                if file.endswith(".rs"):
                    with open(os.path.join(folder, file), encoding="utf-8") as source:
                        found.update(re.findall(r"\w+", source.read()))
    return found


def check(packages, members, words_of=names):
    wrong = []
    for p in packages:
        who = f"{p['name']} {p['version']}"
        if p["source"] not in (None, REGISTRY):
            wrong.append(f"{who} comes from {p['source']}")
        if p["source"] and not licence_ok(p["license"]):
            wrong.append(f"{who} has the licence {p['license']}")
        if p["name"] in BANNED:
            wrong.append(f"{who} is banned: {BANNED[p['name']]}")
        below, advisory = ADVISORIES.get(p["name"], (None, None))
        if below and version(p["version"]) < below:
            wrong.append(f"{who} has {advisory}")
        if p["id"] in members:
            words = words_of(p)
            for d in p["dependencies"]:
                name = (d["rename"] or d["name"]).replace("-", "_")
                if name not in words and (p["name"], d["name"]) not in UNNAMED and d["name"] != p["name"]:
                    wrong.append(f"{p['name']} does not use {d['name']}")
    return wrong


def planted():
    package = {"id": "x", "name": "lru", "version": "0.16.0", "source": "git+https://x", "license": "MIT AND GPL-3.0",
               "dependencies": [{"name": "a-b", "rename": None}, {"name": "c", "rename": None}]}
    found = check([package, {**package, "id": "y", "name": "openssl-sys", "license": "(MIT OR GPL-3.0) AND ISC"}],
                  {"x"}, lambda _: {"a_b"})
    kinds = ["comes from", "has the licence", "has RUSTSEC", "does not use c", "comes from", "is banned"]
    assert len(found) == len(kinds) and all(k in f for k, f in zip(kinds, found)), found


planted()
metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--locked"]))
wrong = check(metadata["packages"], set(metadata["workspace_members"]))
print("\n".join(wrong) or f"{len(metadata['packages'])} packages: sources, licences, bans, advisories and uses are in order")
sys.exit(bool(wrong))
