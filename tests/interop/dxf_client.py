"""python-dxf: blobs with aliases, which are schema 2 manifests without an image.

usage: dxf_client.py HOST FOLDER [PASSWORD]

With a password it comes over TLS as `alice`; requests takes REQUESTS_CA_BUNDLE. Prints what it saw, as JSON.
"""

import hashlib
import json
import os
import sys

import dxf


def main(host, folder, password=None):
    def auth(registry, response):
        registry.authenticate("alice", password, response=response)

    options = {"insecure": True} if password is None else {"auth": auth}
    registry = dxf.DXF(host, "team/blobs", **options)
    content = [os.urandom(size) for size in (10, 3_000_000)]
    digests = []
    for bytes_ in content:
        name = os.path.join(folder, "blob")
        with open(name, "wb") as file:
            file.write(bytes_)
        digests.append(registry.push_blob(name))
    assert digests == ["sha256:" + hashlib.sha256(bytes_).hexdigest() for bytes_ in content]
    for bytes_, digest in zip(content, digests):
        assert b"".join(registry.pull_blob(digest)) == bytes_
        assert registry.blob_size(digest) == len(bytes_)
    other = dxf.DXF(host, "other", **options)
    other.mount_blob("team/blobs", digests[1])
    assert b"".join(other.pull_blob(digests[1])) == content[1]
    registry.set_alias("both", *digests)
    registry.set_alias("one", digests[0])
    aliases = registry.list_aliases()
    of_both = registry.get_alias("both")
    registry.del_alias("one")
    json.dump({
        "aliases": sorted(aliases),
        "both": of_both == digests,
        "left": registry.list_aliases(),
        "repositories": sorted(dxf.DXFBase(host, **options).list_repos()),
    }, sys.stdout)


main(*sys.argv[1:])
