"""FORMAT.md §10 and §17 in Python: small sealed objects, and what is believed of an audit log with a public key alone.

Ed25519 comes from `cryptography`; the tree is RFC 6962 §2.1 and its proofs RFC 9162 §2.1.3.2, written out.
"""

import base64
import hashlib

import bulla_format as bulla
from bulla_format import Refused, field, label, require
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def notation(value):
    """CBOR's diagnostic notation (RFC 8949 §8), of what the format uses."""
    match value:
        case None:
            return "null"
        case int():
            return str(value)
        case bytes():
            return f"h'{value.hex()}'"
        case str():
            return f'"{value}"'
        case list():
            return "[" + ", ".join(map(notation, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{key}: {notation(one)}" for key, one in value.items()) + "}"
    raise AssertionError(f"the format has no {type(value)}")


# --- §10 small sealed objects -----------------------------------------------------------------------------------------


def decode_sealed(data):
    """The header's bytes, its ids, and what is sealed."""
    value = bulla.versioned(data)
    require(bulla.is_array(value, 3), "an object")
    _, header, sealed = value
    require(bulla.is_bytes(header) and bulla.is_bytes(sealed), "header or sealed")
    suite_and_ids = bulla.decode(header)
    require(bulla.is_array(suite_and_ids, 3) and suite_and_ids[0] == bulla.SUITE, "suite")
    return header, suite_and_ids[1:], sealed


def open_inside(key, context, sealed, check):
    """What is sealed, decoded and found right: all of that is opening."""
    plaintext = bulla.open_sealed(key, context, sealed)
    try:
        return check(bulla.decode(plaintext))
    except Refused as error:
        raise Refused("open", "what is inside: " + str(error)) from error


def open_object(data, ids, key, context_of, kind, name, check):
    """The content of a small sealed object."""
    header, found, sealed = decode_sealed(data)
    require(found == ids, "another store's", "open")

    def inside(value):
        require(type(value) is dict and list(value) == [1, 2, 3], "a map of three")
        require((value[1], value[2]) == (kind, name), "of another place")
        content = bulla.decode(value[3])
        check(content)
        return content

    return open_inside(key, context_of(header), sealed, inside)


def meta_context(kind, name):
    return lambda header: label("bulla/v1/meta") + field(header) + field(kind.encode()) + field(name)


def meta_key(root, root_id, kind, path):
    key = f"meta/{bulla.base32(root_id)}/{kind}"
    for name in path:
        key += "/" + bulla.seal_name(root, kind, key, name.encode())
    return key


def open_meta(data, root, ids, kind, key):
    def check(content):
        require(bulla.is_array(content, 3), "path, nonce, payload")
        path, nonce, payload = content
        require(bulla.is_array(path, 1, 2, 3, 4) and bulla.is_bytes(nonce, 16), "path, nonce")
        require(bulla.is_bytes(payload) and len(payload) <= 65_536, "payload")
        require(meta_key(root, ids[1], kind, path) == key, "the path of another key")

    expand = bulla.expand(root, "bulla/v1/root/meta")
    return open_object(data, ids, expand, meta_context(kind, key.encode()), kind, key.encode(), check)


def open_job(data, root, ids, name):
    def check(content):
        require(bulla.is_array(content) and content[0] in (0, 1), "a job")
        if content[0] == 1:
            require(len(content) == 2 and bulla.is_time(content[1]), "a horizon")
            return
        require(len(content) == 3 and content[1] in (0, 1) and bulla.is_array(content[2], 16), "a sweep")
        for following, claim, rewrapped, failed in content[2]:
            require(bulla.is_uint(following) and following <= 16, "a row")
            require(bulla.is_uint(rewrapped) and bulla.is_uint(failed), "a row's counts")
            if claim is not None:
                require(following < 16, "a claim on a row that is done")
                require(bulla.is_bytes(claim[0], 16) and bulla.is_time(claim[1]), "a claim")

    expand = bulla.expand(root, "bulla/v1/root/meta")
    return open_object(data, ids, expand, meta_context("job", name), "job", name, check)


def open_session(data, root, ids, session):
    def check(content):
        require(type(content) is dict and set(content) | {12} == set(range(1, 13)), "keys")
        for wrap in content[1]:
            bulla.check_wrap(wrap)
        algorithm, chain, rest = content[6]
        length = bulla.DIGEST_LENGTHS[algorithm]
        uploaded = sum(extent[1] for extent in content[4]) + len(content[5])
        require(len(chain) == length and len(rest) == uploaded % (2 * length), "the hash state")
        require(len(content[5]) <= 65_536 and len(content[10]) <= 1024, "tail or owner")
        require(all(bulla.is_time(content[key]) for key in (7, 8, 11)), "times")

    context = lambda header: label("bulla/v1/upload") + field(header) + field(session)
    expand = bulla.expand(root, "bulla/v1/root/upload")
    return open_object(data, ids, expand, context, "upload", session, check)


# --- §17 the audit log ------------------------------------------------------------------------------------------------


def decode_entry(data):
    entry = bulla.versioned(data)
    require(len(entry) == 14, "an entry")
    first, last, count = entry[1:4]
    require(bulla.is_time(first) and bulla.is_time(last) and first <= last and count >= 1, "times and count")
    require(bulla.is_printable(entry[4], 64) and entry[5] <= 16 and entry[6] <= 8, "node, action, outcome")
    return entry


def open_batch(data, root, ids, number):
    header, found, sealed = decode_sealed(data)
    require(found == ids, "another store's", "open")

    def inside(value):
        require(bulla.is_array(value, 4) and value[0] == number, "a batch of this number")
        require((value[2] is None) == (number == 1) and (number > 1 or value[1] == 0), "what is before it")
        require(1 <= len(value[3]) <= 256, "entries")
        return value[:3] + [[decode_entry(entry) for entry in value[3]]]

    context = label("bulla/v1/audit") + field(header) + field(number.to_bytes(8, "big"))
    return open_inside(bulla.expand(root, "bulla/v1/root/audit"), context, sealed, inside)


def leaf_hash(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def root_hash(leaves):
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(root_hash(leaves[:split]), root_hash(leaves[split:]))


def is_included(entry, index, size, path, root):
    """RFC 9162 §2.1.3.2."""
    if index >= size:
        return False
    at, last, found = index, size - 1, leaf_hash(entry)
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def open_checkpoint(note, public_key):
    """Size and root of a checkpoint that the key signed."""
    name, key_id, key = public_key.split("+", 2)
    key = base64.b64decode(key)
    require(key[0] == 1, "not an Ed25519 key", "verify")
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    for line in signatures.splitlines():
        dash, signer, signature = line.split(" ")
        signature = base64.b64decode(signature)
        if dash == "\u2014" and signer == name and signature[:4].hex() == key_id:
            try:
                Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], text.encode())
            except InvalidSignature as error:
                raise Refused("verify", "the signature") from error
            origin, size, root, log = text.splitlines()
            require(origin == name and log.startswith("bulla-log "), "of another log", "verify")
            return int(size), base64.b64decode(root)
    raise Refused("verify", "not signed by this key")


def verify_export(text, public_key):
    entries, _, note = text.partition("\n\n")
    title, *lines = entries.split("\n")
    require(title == "bulla-audit-export-v1", "title")
    leaves = [base64.b64decode(line, validate=True) for line in lines]
    size, root = open_checkpoint(note, public_key)
    require(len(leaves) == size, "another number of entries", "verify")
    require(root_hash(leaves) == root, "other entries", "verify")
    return [decode_entry(leaf) for leaf in leaves]


def verify_proof(text, public_key):
    proof, _, note = text.partition("\n\n")
    title, extra, index, *path = proof.split("\n")
    require(title == "c2sp.org/tlog-proof@v1", "title")
    require(extra.startswith("extra ") and index.startswith("index "), "extra or index")
    leaf, index = base64.b64decode(extra[6:], validate=True), index[6:]
    require(str(int(index)) == index, "two spellings of an index")
    path = [base64.b64decode(line, validate=True) for line in path]
    size, root = open_checkpoint(note, public_key)
    require(is_included(leaf, int(index), size, path, root), "not in the log", "verify")
    return int(index), decode_entry(leaf)
