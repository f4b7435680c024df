"""oras-py, the Python library of ORAS, with artifacts: push, push in chunks, pull, tags, deletion.

usage: oras_client.py HOST FOLDER [PASSWORD]

With a password it comes over TLS as `alice`; requests takes REQUESTS_CA_BUNDLE. Prints what it saw, as JSON.
"""

import hashlib
import json
import os
import sys

import oras.client

CHUNK = 700_000


def main(host, folder, password=None):
    if password is None:
        client = oras.client.OrasClient(hostname=host, insecure=True)
    else:
        client = oras.client.OrasClient(hostname=host, auth_backend="basic")
        client.login(hostname=host, username="alice", password=password)
    os.chdir(folder)
    repository = f"{host}/team/artifact"
    made = {}
    for number, size in enumerate([10, 3_000_000]):
        name = f"file-{number}"
        with open(name, "wb") as file:
            file.write(os.urandom(size))
        made[name] = digest(name)
    files = [f"{name}:application/vnd.example.part" for name in made]
    client.push(files=files, target=f"{repository}:v1", manifest_annotations={"of": "the tests"})
    client.push(files=files, target=f"{repository}:chunked", do_chunked=True, chunk_size=CHUNK)
    for tag in ["v1", "chunked"]:
        got = client.pull(target=f"{repository}:{tag}", outdir=f"got-{tag}")
        assert {os.path.basename(name): digest(name) for name in got} == made, got
    manifest = client.get_manifest(f"{repository}:v1")
    listed = client.get_tags(repository)
    client.delete_tags(repository, "chunked")
    json.dump({
        "tags": sorted(listed),
        "left": client.get_tags(repository),
        "annotations": manifest["annotations"],
        "types": sorted({layer["mediaType"] for layer in manifest["layers"]}),
    }, sys.stdout)


def digest(name):
    with open(name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


main(*sys.argv[1:])
