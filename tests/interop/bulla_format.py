"""FORMAT.md in Python, from the text and none of Bulla's code.

Sealed messages, key wraps, SIV and RSA come from `cryptography`, CBOR from `cbor2`. This is a second reader and writer to test
the first one against: it is not fast, and it does not wipe secrets.
"""

import base64
import hashlib
import hmac
import io
import os
import re

import cbor2
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

MAX_OBJECT = 1 << 20
MAX_INLINE = 65_536
MAX_TIME = 253_402_300_799_999
SUITE = "Cobblestone-256"
DIGEST_LENGTHS = {"sha256": 32, "sha512": 64}


class Refused(Exception):
    """An object that a reader refuses, and the step at which it does."""

    def __init__(self, step, why):
        super().__init__(f"{step}: {why}")
        self.step = step


def require(holds, why, step="decode"):
    if not holds:
        raise Refused(step, why)


# --- §1 conventions ---------------------------------------------------------------------------------------------------


def label(text):
    return text.encode("ascii").ljust(32, b"\0")


def field(data):
    return len(data).to_bytes(4, "big") + data


def base32(data):
    return base64.b32encode(data).decode("ascii").lower().rstrip("=")


def from_base32(text, step):
    require(re.fullmatch("[a-z2-7]*", text), "not lower-case base32", step)
    try:
        data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except ValueError as error:
        raise Refused(step, "not base32") from error
    require(base32(data) == text, "not canonical base32", step)
    return data


def encode(value):
    return cbor2.dumps(value, canonical=True)


def decode(data):
    """The one value whose deterministic encoding `data` is."""
    require(len(data) <= MAX_OBJECT, "over 1 MiB")
    try:
        value = cbor2.load(io.BytesIO(data))
        again = encode(value)
    except Exception as error:  # cbor2 has many, and any of them means: not CBOR
        raise Refused("decode", "not CBOR") from error
    require(again == data, "not the deterministic encoding")
    return value


def is_uint(value):
    return type(value) is int and value >= 0


def is_bytes(value, *lengths):
    return type(value) is bytes and (not lengths or len(value) in lengths)


def is_printable(value, longest):
    return type(value) is str and re.fullmatch("[!-~]{1,%d}" % longest, value) is not None


def is_time(value):
    return is_uint(value) and value <= MAX_TIME


def is_array(value, *lengths):
    return type(value) is list and (not lengths or len(value) in lengths)


def different(items):
    return len(set(items)) == len(items)


def versioned(data):
    value = decode(data)
    require(is_array(value) and value and value[0] == 1, "not version 1")
    return value


# --- §4 keys ----------------------------------------------------------------------------------------------------------


def expand(root, name, *fields, length=32):
    info = label(name) + b"".join(field(data) for data in fields)
    return HKDFExpand(hashes.SHA512(), length, info).derive(root)


def record_key(root):
    return expand(root, "bulla/v1/root/record")


def name_key(root, kind):
    return expand(root, "bulla/v1/root/name", kind.encode(), length=64)


def envelope_key(root):
    return expand(root, "bulla/v1/root/envelope")


def store_key_wrapping_key(root):
    return expand(root, "bulla/v1/root/store-key-wrap")


def retired_root_wrapping_key(root):
    return expand(root, "bulla/v1/root/retired-root-wrap")


def sealing_key(root, dek):
    """The EK."""
    return HKDF(hashes.SHA512(), 32, envelope_key(root), label("bulla/v1/envelope-key")).derive(dek)


def anchor(root):
    return "bulla-anchor-v1:" + base32(expand(root, "bulla/v1/root/anchor"))


def wrap(key, secret):
    return keywrap.aes_key_wrap(key, secret)


def unwrap(key, value):
    require(len(value) == 40, "A256KW of 32 bytes has 40", "unwrap")
    try:
        return keywrap.aes_key_unwrap(key, value)
    except keywrap.InvalidUnwrap as error:
        raise Refused("unwrap", "does not unwrap") from error


# --- §2 and §5 sealed messages ----------------------------------------------------------------------------------------


def seal(key, context, plaintext):
    encryptor = Cobblestone256Encryptor(key, context)
    return encryptor.update(plaintext) + encryptor.finalize()


def open_sealed(key, context, message):
    decryptor = Cobblestone256Decryptor(key, context)
    try:
        return decryptor.update(message) + decryptor.finalize()
    except (InvalidTag, ValueError) as error:
        raise Refused("open", "does not open") from error


def plaintext_length(length):
    """The length of the plaintext in a message of `length` bytes, or None."""
    whole, last = divmod(length - 56, 16_400)
    return whole * 16_384 + last - 16 if length >= 56 and last >= 16 else None


def extent_context(store_id, blob_id):
    return label("bulla/v1/extent") + store_id + blob_id


def envelope_context(header, algorithm, digest):
    return label("bulla/v1/envelope") + field(header) + field(algorithm.encode()) + field(digest)


# --- §6 envelopes -----------------------------------------------------------------------------------------------------


def check_kid(kid):
    require(is_printable(kid, 512), "kid")


def check_alg(alg):
    require(is_printable(alg, 32) and alg != "RSA1_5", "alg")


def check_wrap(value):
    require(is_array(value, 3), "a wrap")
    kid, alg, wrapped = value
    check_kid(kid)
    check_alg(alg)
    require(is_bytes(wrapped, *range(1, 1025)), "a wrapped key")


def decode_envelope(data):
    """The header's bytes, its ids, the wraps and what is sealed."""
    value = versioned(data)
    require(is_array(value, 4), "an envelope")
    _, header, wraps, sealed = value
    require(is_bytes(header) and is_bytes(sealed), "header or sealed")
    suite_and_ids = decode(header)
    require(is_array(suite_and_ids, 3) and suite_and_ids[0] == SUITE, "suite")
    store_id, root_id = suite_and_ids[1:]
    require(is_bytes(store_id, 16) and is_bytes(root_id, 16), "ids")
    require(is_array(wraps, 1, 2, 3, 4), "1 to 4 wraps")
    for one in wraps:
        check_wrap(one)
    require(different([kid for kid, _, _ in wraps]), "kids")
    require(plaintext_length(len(sealed)) is not None, "the length of what is sealed")
    return header, store_id, root_id, wraps, sealed


def open_envelope(data, root, dek, algorithm, digest):
    """The blob record in the envelope `data`, asked for as the envelope of that digest."""
    header, _, _, _, sealed = decode_envelope(data)
    plaintext = open_sealed(sealing_key(root, dek), envelope_context(header, algorithm, digest), sealed)
    try:
        record = decode(plaintext)
        check_blob_record(record)
    except Refused as error:
        raise Refused("open", "what is inside: " + str(error)) from error
    require((record[1], record[2]) == (algorithm, digest), "another digest inside", "open")
    return record


def check_blob_record(record):
    require(type(record) is dict, "a map")
    require(set(range(1, 8)) <= set(record) <= set(range(1, 12)), "keys")
    require(type(record[1]) is str and record[1] in DIGEST_LENGTHS, "algorithm")
    require(is_bytes(record[2], DIGEST_LENGTHS[record[1]]), "digest")
    require(is_uint(record[3]) and record[3] < 1 << 64, "size")
    require(is_bytes(record[4], 16) and is_bytes(record[7], 16), "ids")
    extents, inline = record[5], record.get(9)
    require(is_array(extents), "extents")
    for extent in extents:
        require(is_array(extent, 4), "an extent")
        name, length, salt, commitment = extent
        require(is_bytes(name, 16) and is_bytes(salt, 24) and is_bytes(commitment, 32), "an extent")
        require(is_uint(length) and length > 0, "an extent's length")
    require(different([extent[0] for extent in extents]), "extent ids")
    require(different([extent[2] for extent in extents]), "extent salts")
    require((inline is None) == bool(extents), "inline or extents")
    if inline is None:
        require(sum(extent[1] for extent in extents) == record[3], "the sum of the lengths")
    else:
        require(is_bytes(inline) and len(inline) == record[3] <= MAX_INLINE, "inline")
    require(is_time(record[6]) and is_time(record.get(8, 0)) and is_time(record.get(11, 0)), "times")
    padding = record.get(10, b"")
    require(is_bytes(padding) and not any(padding), "padding")


def make_envelope(store_id, root_id, wraps, root, dek, record):
    header = encode([SUITE, store_id, root_id])
    context = envelope_context(header, record[1], record[2])
    return encode([1, header, wraps, seal(sealing_key(root, dek), context, encode(record))])


# --- §7 names ---------------------------------------------------------------------------------------------------------


def seal_name(root, kind, parent, name):
    key, kind, parent = name_key(root, kind), kind.encode(), parent.encode()
    if len(name) > 109:
        message = label("bulla/v1/long-name") + field(kind) + field(parent) + field(name)
        return "_" + base32(hmac.digest(key, message, "sha512")[:32])
    return base32(AESSIV(key).encrypt(name, [kind, parent]))


def open_name(root, kind, parent, component):
    sealed = from_base32(component, "name")
    require(16 <= len(sealed) <= 125, "length", "name")
    try:
        return AESSIV(name_key(root, kind)).decrypt(sealed, [kind.encode(), parent.encode()])
    except InvalidTag as error:
        raise Refused("name", "does not open") from error


def blob_key(root, root_id, algorithm, digest):
    parent = "blobs/" + base32(root_id)
    component = seal_name(root, "blob", parent, algorithm.encode() + digest)
    return f"{parent}/{from_base32(component, 'name')[0]:02x}/{component}"


def digest_of_blob_key(root, root_id, key):
    parent = "blobs/" + base32(root_id)
    name = open_name(root, "blob", parent, key.rpartition("/")[2])
    for algorithm, length in DIGEST_LENGTHS.items():
        digest = name.removeprefix(algorithm.encode())
        if name != digest and len(digest) == length:
            require(blob_key(root, root_id, algorithm, digest) == key, "another directory", "name")
            return algorithm, digest
    raise Refused("name", "not a digest")


def extent_key(extent_id):
    return f"data/{extent_id[0]:02x}/{base32(extent_id)}"


# --- §8 the log -------------------------------------------------------------------------------------------------------


def decode_record(data):
    """The body's bytes, the record in it, and the MAC."""
    value = versioned(data)
    require(is_array(value, 3), "a stub" if len(value) == 1 else "a record")
    _, body, mac = value
    require(is_bytes(body), "body")
    record = decode(body)
    check_record(record)
    pending = any(root[1] == 2 for root in record[9])
    require(is_bytes(mac, 128 if pending else 64), "MAC")
    return body, record, mac


def record_mac(root, body):
    return hmac.digest(record_key(root), label("bulla/v1/record") + body, "sha512")


def verify_record(data, root, pending_root=None):
    body, record, mac = decode_record(data)
    expected = record_mac(root, body)
    if pending_root is not None:
        expected += record_mac(pending_root, body)
    require(hmac.compare_digest(mac, expected), "MAC", "verify")
    return record


def check_record(record):
    require(type(record) is dict, "a map")
    require(set(record) | {12, 15} == set(range(1, 16)), "keys")
    require(is_uint(record[1]) and 1 <= record[1] <= 99_999_999, "number")
    require(is_array(record[2], record[1] - 1) and all(is_bytes(one, 32) for one in record[2]), "history")
    require(is_bytes(record[3], 16), "store id")
    require(is_uint(record[4]) and record[4] <= 1, "mode")
    require(is_uint(record[5]) and 1 <= record[5] <= 31_622_400_000, "revocation bound")
    others = record.get(15, [])
    require(is_array(others, *range(1, 8)) if 15 in record else True, "other parties")
    for party in [[record[6], record[7]], *others]:
        require(is_array(party, 2), "a party")
        check_party(*party)
    require(not others or (record[4] == 0 and record[13] == 1), "several parties are customers, and not in direct mode")
    check_keks(record[8])
    check_roots(record[9], {(kek[0], kek[1]) for kek in record[8]}, 1 + len(others))
    check_store_keys(record[10], {root[0] for root in record[9]})
    require(is_time(record[11]) and is_time(record.get(12, 0)) and is_time(record[14]), "times")
    require(is_uint(record[13]) and record[13] <= 1, "managed")


def check_party(identity, key_id):
    require(type(identity) is str and 1 <= len(identity.encode()) <= 512, "identity")
    require(re.search("[\0-\x1f\x7f-\x9f]", identity) is None, "control character in identity")
    require(is_printable(key_id, 512), "key id")


def check_keks(keks):
    require(is_array(keks, *range(1, 129)), "1 to 128 KEKs")
    for kek in keks:
        require(is_array(kek, 4), "a KEK")
        kid, alg, state, since = kek
        check_kid(kid)
        check_alg(alg)
        require(not kid.startswith("store-key:"), "a store key's kid")
        require(is_uint(state) and state <= 1 and is_time(since), "a KEK")
    require(different([(kek[0], kek[1]) for kek in keks]), "the same KEK twice")
    require(any(kek[2] == 0 for kek in keks), "an active KEK")


def check_roots(roots, keks, parties):
    require(is_array(roots, *range(1, 17)), "1 to 16 roots")
    for root in roots:
        require(is_array(root, 4), "a root")
        root_id, state, groups, parent = root
        require(is_bytes(root_id, 16) and is_uint(state) and state <= 2 and is_array(groups), "a root")
        if state == 1:
            require(groups == [] and is_bytes(parent, 40), "a retiring root")
            continue
        require(parent is None and 1 <= len(groups) <= 16, "an active or pending root")
        for group in groups:
            require(is_array(group, 1, parties), "a group")
            for member in group:
                check_wrap(member)
                require((member[0], member[1]) in keks, "a KEK that is not listed")
            require(different([member[0] for member in group]), "one KEK twice in a group")
    require(different([root[0] for root in roots]), "the same root twice")
    require([root[1] for root in roots].count(0) == 1, "one active root")
    require([root[1] for root in roots].count(2) <= 1, "one pending root")


def check_store_keys(keys, roots):
    require(is_array(keys, *range(1, 129)), "1 to 128 store keys")
    for key in keys:
        require(is_array(key, 5), "a store key")
        key_id, state, root_id, value, since = key
        require(is_bytes(key_id, 16) and is_uint(state) and state <= 2, "a store key")
        require(is_bytes(root_id, 16) and root_id in roots, "a store key's root")
        require(is_bytes(value, 40) and is_time(since), "a store key")
    require(different([key[0] for key in keys]), "the same store key twice")
    require([key[1] for key in keys].count(0) == 1, "one active store key")


def digest_of(algorithm, data):
    return hashlib.new(algorithm, data).digest()


def random(length):
    return os.urandom(length)
