"""Reads Bulla's objects with foreign code, and makes objects for Bulla to read.

    cobblestone_interop.py read DIRECTORY     every vector in it (*.json) must behave as it says
    cobblestone_interop.py make DIRECTORY     writes vectors of the same form, with fresh keys
    cobblestone_interop.py rsa DIRECTORY      unwraps `to-python.json`, and writes `from-python.json`

Vectors are described in FORMAT.md §15. A failure is an exception, and so an exit code other than 0.
"""

import json
import pathlib
import sys

import bulla_audit
import bulla_format as bulla
from bulla_format import Refused
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

unhex = bytes.fromhex


def requested(vector):
    algorithm, _, digest = vector["requested"].partition(":")
    return algorithm, unhex(digest)


# --- read -------------------------------------------------------------------------------------------------------------


def blob_record_from(value):
    """The CBOR map that the JSON describes."""
    extents = [
        [unhex(one["id"]), one["length"], unhex(one["salt"]), unhex(one["commitment"])] for one in value["extents"]
    ]
    record = {1: value["algorithm"], 2: unhex(value["digest"]), 3: value["size"], 4: unhex(value["blob_id"])}
    record |= {5: extents, 6: value["created"], 7: unhex(value["dek_root_id"])}
    if "expires" in value:
        record[8] = value["expires"]
    if "there_since" in value:
        record[11] = value["there_since"]
    if "inline" in value:
        record[9] = unhex(value["inline"])
    return record


def read_envelope(vector):
    data, root = unhex(vector["object"]), unhex(vector["root"])
    algorithm, digest = requested(vector)
    _, store_id, root_id, wraps, _ = bulla.decode_envelope(data)
    [(kid, alg, value)] = wraps
    assert (kid, alg) == ("store-key:" + vector["store_key_id"], "A256KW")
    dek = bulla.unwrap(unhex(vector["store_key"]), value)
    record = bulla.open_envelope(data, root, dek, algorithm, digest)
    record.pop(10, None)  # padding
    assert record == blob_record_from(vector["record"])
    assert vector["key"] == bulla.blob_key(root, root_id, algorithm, digest)
    plaintext = record.get(9, b"")
    for name, length, salt, commitment in record[5]:
        message = unhex(vector["extents"][bulla.extent_key(name)])
        assert message[:56] == salt + commitment
        part = bulla.open_sealed(dek, bulla.extent_context(store_id, record[4]), message)
        assert len(part) == length
        plaintext += part
    assert bulla.digest_of(algorithm, plaintext) == digest


def log_record_from(value):
    """The CBOR map that the JSON describes."""
    member = lambda one: [one["kid"], one["alg"], unhex(one["value"])]
    keks = [[one["kid"], one["alg"], one["state"], one["since"]] for one in value["keks"]]
    roots = [
        [
            unhex(one["id"]),
            one["state"],
            [[member(wrap) for wrap in group] for group in one["groups"]],
            None if one["parent"] is None else unhex(one["parent"]),
        ]
        for one in value["roots"]
    ]
    store_keys = [
        [unhex(one["id"]), one["state"], unhex(one["root_id"]), unhex(one["value"]), one["since"]]
        for one in value["store_keys"]
    ]
    record = {1: value["number"], 2: [unhex(one) for one in value["history"]], 3: unhex(value["store_id"])}
    record |= {4: value["mode"], 5: value["revocation_bound"], 6: value["identity"], 7: value["key_id"]}
    record |= {8: keks, 9: roots, 10: store_keys, 11: value["created"], 13: value["managed"], 14: value["written"]}
    if "rotated" in value:
        record[12] = value["rotated"]
    if "other_parties" in value:
        record[15] = [[one["identity"], one["key_id"]] for one in value["other_parties"]]
    return record


def read_record(vector):
    data, root = unhex(vector["object"]), unhex(vector["root"])
    pending = unhex(vector["pending_root"]) if "pending_root" in vector else None
    record = bulla.verify_record(data, root, pending)
    assert record == log_record_from(vector["record"])
    assert vector["hash"] == bulla.digest_of("sha256", data).hex()
    assert vector["key"] == f"store/{record[1]:08d}.cbor"
    for _, _, root_id, value, _ in record[10]:
        if root_id == next(one[0] for one in record[9] if one[1] == 0):
            bulla.unwrap(bulla.store_key_wrapping_key(root), value)
    for _, state, _, parent in record[9]:
        if state == 1:
            bulla.unwrap(bulla.retired_root_wrapping_key(root), parent)


def read_derivations(vector):
    root, dek, keys = unhex(vector["root"]), unhex(vector["dek"]), vector["keys"]
    derived = {
        "record key": bulla.record_key(root),
        "name key of blob": bulla.name_key(root, "blob"),
        "envelope key": bulla.envelope_key(root),
        "EK": bulla.sealing_key(root, dek),
        "meta key": bulla.expand(root, "bulla/v1/root/meta"),
        "upload key": bulla.expand(root, "bulla/v1/root/upload"),
        "audit key": bulla.expand(root, "bulla/v1/root/audit"),
        "store key wrapping key": bulla.store_key_wrapping_key(root),
        "retired root wrapping key": bulla.retired_root_wrapping_key(root),
    }
    assert {name: key.hex() for name, key in derived.items()} == keys
    assert vector["anchor"] == bulla.anchor(root)
    store_key = unhex(vector["store_key"])
    assert unhex(vector["wrapped_store_key"]) == bulla.wrap(bulla.store_key_wrapping_key(root), store_key)
    assert unhex(vector["wrapped_dek"]) == bulla.wrap(store_key, dek)


def read_name(vector):
    root, name, kind, parent = unhex(vector["root"]), unhex(vector["name"]), vector["name_kind"], vector["parent"]
    if not vector["hashed"]:
        assert bulla.open_name(root, kind, parent, vector["component"]) == name
    assert bulla.seal_name(root, kind, parent, name) == vector["component"]


def read_blob_key(vector):
    algorithm, digest = bulla.digest_of_blob_key(unhex(vector["root"]), unhex(vector["root_id"]), vector["key"])
    assert vector["digest"] == f"{algorithm}:{digest.hex()}"


def read_extent_key(vector):
    assert vector["key"] == bulla.extent_key(unhex(vector["extent_id"]))


def read_anchor(vector):
    bulla.require(vector["anchor"] == bulla.anchor(unhex(vector["root"])), "another anchor")


def ids(vector):
    return [unhex(vector["store_id"]), unhex(vector["root_id"])]


def read_sealed(vector):
    data, root = unhex(vector["object"]), unhex(vector["root"])
    match vector["kind"]:
        case "meta object":
            kind, key = vector["meta_kind"], vector["key"]
            content = bulla_audit.open_meta(data, root, ids(vector), kind, key)
        case "job":
            name = vector["name"].encode()
            content = bulla_audit.open_job(data, root, ids(vector), name)
            key = "jobs/" + bulla.seal_name(root, "job", "jobs", name)
        case "session":
            session = unhex(vector["id"])
            content = bulla_audit.open_session(data, root, ids(vector), session)
            key = "uploads/" + bulla.seal_name(root, "upload", "uploads", session)
        case "audit batch":
            content = bulla_audit.open_batch(data, root, ids(vector), vector["number"])
            key = f"audit/{vector['number']:08d}.cbor"
    assert vector["key"] == key
    assert vector["content"] == bulla_audit.notation(content)


def read_export(vector):
    entries = bulla_audit.verify_export(vector["text"], vector["public_key"])
    assert vector["entries"] == [bulla_audit.notation(entry) for entry in entries]


def read_proof(vector):
    index, entry = bulla_audit.verify_proof(vector["text"], vector["public_key"])
    assert (vector["index"], vector["entry"]) == (index, bulla_audit.notation(entry))


READERS = {
    "envelope": read_envelope,
    "record": read_record,
    "derivations": read_derivations,
    "name": read_name,
    "blob key": read_blob_key,
    "extent key": read_extent_key,
    "anchor": read_anchor,
    "meta object": read_sealed,
    "job": read_sealed,
    "session": read_sealed,
    "audit batch": read_sealed,
    "audit export": read_export,
    "audit proof": read_proof,
}


def read(directory):
    files = sorted(directory.glob("*.json"))
    assert files, "no vectors"
    for file in files:
        vector = json.loads(file.read_text())
        step = None
        try:
            READERS[vector["kind"]](vector)
        except Refused as error:
            step = error.step
            if "fails" not in vector:
                raise
        except Exception as error:
            raise AssertionError(file.name) from error
        expected = vector.get("fails")
        assert step == expected, f"{file.name}: fails at {step}, not at {expected}"
    print(f"{len(files)} vectors behave as they say")


# --- make -------------------------------------------------------------------------------------------------------------


def made_envelope(algorithm, lengths, inline=None, expires=None):
    """A blob in extents of these lengths, or inline."""
    root, store_key, dek = bulla.random(32), bulla.random(32), bulla.random(32)
    store_id, root_id, store_key_id, blob_id = (bulla.random(16) for _ in range(4))
    parts = [bulla.random(length) for length in lengths]
    plaintext = b"".join(parts) if inline is None else inline
    digest = bulla.digest_of(algorithm, plaintext)
    messages = [bulla.seal(dek, bulla.extent_context(store_id, blob_id), part) for part in parts]
    names = [bulla.random(16) for _ in parts]
    extents = [
        [name, len(part), message[:24], message[24:56]] for name, part, message in zip(names, parts, messages)
    ]
    record = {1: algorithm, 2: digest, 3: len(plaintext), 4: blob_id, 5: extents, 6: 1_767_323_045_006, 7: root_id}
    described = {
        "algorithm": algorithm,
        "digest": digest.hex(),
        "size": len(plaintext),
        "blob_id": blob_id.hex(),
        "extents": [
            {"id": one[0].hex(), "length": one[1], "salt": one[2].hex(), "commitment": one[3].hex()} for one in extents
        ],
        "created": 1_767_323_045_006,
        "dek_root_id": root_id.hex(),
    }
    if expires is not None:
        record[8] = described["expires"] = expires
    if inline is not None:
        record[9], described["inline"] = inline, inline.hex()
    wraps = [["store-key:" + bulla.base32(store_key_id), "A256KW", bulla.wrap(store_key, dek)]]
    return {
        "about": "made by cobblestone_interop.py",
        "kind": "envelope",
        "root": root.hex(),
        "store_key": store_key.hex(),
        "store_key_id": bulla.base32(store_key_id),
        "requested": f"{algorithm}:{digest.hex()}",
        "record": described,
        "key": bulla.blob_key(root, root_id, algorithm, digest),
        "extents": {bulla.extent_key(name): message.hex() for name, message in zip(names, messages)},
        "object": bulla.make_envelope(store_id, root_id, wraps, root, dek, record).hex(),
    }


def made_record(directory):
    """A record of the vectors with a fresh root and store key."""
    root, store_key = bulla.random(32), bulla.random(32)
    vector = json.loads((directory / "record_rotating_two_groups.json").read_text())
    [key] = vector["record"]["store_keys"]
    key["value"] = bulla.wrap(bulla.store_key_wrapping_key(root), store_key).hex()
    body = bulla.encode(log_record_from(vector["record"]))
    data = bulla.encode([1, body, bulla.record_mac(root, body)])
    return vector | {"root": root.hex(), "object": data.hex(), "hash": bulla.digest_of("sha256", data).hex()}


def made_name(name):
    root = bulla.random(32)
    component = bulla.seal_name(root, "repository", "meta/r", name)
    return {
        "kind": "name",
        "root": root.hex(),
        "name_kind": "repository",
        "parent": "meta/r",
        "name": name.hex(),
        "hashed": component.startswith("_"),
        "component": component,
    }


def make(directory):
    vectors = pathlib.Path(__file__).parents[2] / "crates/envelope/vectors"
    made = {
        "envelope_one_extent": made_envelope("sha256", [1]),
        "envelope_chunk_ends": made_envelope("sha256", [16_383, 16_384, 16_385, 32_768]),
        "envelope_many_extents": made_envelope("sha512", range(1, 200)),
        "envelope_large_extent": made_envelope("sha256", [1_000_000]),
        "envelope_empty": made_envelope("sha256", [], inline=b""),
        "envelope_inline": made_envelope("sha512", [], inline=bulla.random(65_536), expires=1_767_409_445_006),
        "record": made_record(vectors),
        "name": made_name(b"library/busybox"),
        "name_hashed": made_name(bulla.random(300)),
    }
    for name, vector in made.items():
        (directory / f"{name}.json").write_text(json.dumps(vector))


# --- rsa --------------------------------------------------------------------------------------------------------------


def rsa(directory):
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    vector = json.loads((directory / "to-python.json").read_text())
    key = serialization.load_der_private_key(unhex(vector["pkcs8"]), None)
    assert key.decrypt(unhex(vector["wrapped"]), oaep) == unhex(vector["secret"])
    public = serialization.load_der_public_key(unhex(vector["spki"]))
    assert public.public_numbers() == key.public_key().public_numbers()
    secret = bulla.random(32)
    answer = {"wrapped": public.encrypt(secret, oaep).hex(), "secret": secret.hex()}
    (directory / "from-python.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    command, where = sys.argv[1:]
    {"read": read, "make": make, "rsa": rsa}[command](pathlib.Path(where))
