"""Signs and verifies images of a registry with a key of the publisher's, by the specifications alone.

Signatures are cosign's simple signing payloads, attestations in-toto statements in DSSE envelopes; both are artifacts that
refer to the image and are found through the registry's referrers API (OCI Distribution 1.1). Keys are ECDSA P-256.

    trust.py sign    REGISTRY REPOSITORY DIGEST KEY         attach a signature and an attestation
    trust.py forge   REGISTRY REPOSITORY DIGEST KEY HOW     attach what must not verify
    trust.py verify  REGISTRY REPOSITORY DIGEST PUBLIC-KEY  fails unless every one verifies and there is one of each
    trust.py keys    KEY PUBLIC-KEY                         make a pair
"""

import base64
import hashlib
import json
import sys
import urllib.request

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
NOTE = "dev.cosignproject.cosign/signature"


class Refused(Exception):
    """Something is not what it claims to be."""


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Repository:
    def __init__(self, registry, name):
        self.base = f"http://{registry}/v2/{name}"
        self.http = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, method, url, body=None, kind="application/octet-stream"):
        if url.startswith("/"):
            url = self.base[: self.base.index("/v2/")] + url
        headers = {"Accept": MANIFEST + ", application/vnd.oci.image.index.v1+json"}
        if body is not None:
            headers["Content-Type"] = kind
        return self.http.open(urllib.request.Request(url, data=body, headers=headers, method=method))

    def get(self, what, digest):
        content = self.ask("GET", f"{self.base}/{what}/{digest}").read()
        if digest_of(content) != digest:
            raise Refused(f"{digest} has other content")
        return content

    def push_blob(self, content):
        begun = self.ask("POST", f"{self.base}/blobs/uploads/", b"")
        where = begun.headers["Location"]
        joint = "&" if "?" in where else "?"
        self.ask("PUT", f"{where}{joint}digest={digest_of(content)}", content)
        return {"digest": digest_of(content), "size": len(content)}

    def attach(self, subject, artifact, layer):
        content = self.get("manifests", subject)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact,
            "config": {"mediaType": EMPTY, **self.push_blob(b"{}")},
            "layers": [layer],
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": len(content)},
        }
        body = json.dumps(manifest).encode()
        answer = self.ask("PUT", f"{self.base}/manifests/{digest_of(body)}", body, MANIFEST)
        if answer.headers["OCI-Subject"] != subject:
            raise Refused("the registry does not say that it knows referrers")

    def referrers(self, subject, artifact):
        answer = self.ask("GET", f"{self.base}/referrers/{subject}?artifactType={urllib.request.quote(artifact, safe='')}")
        if answer.headers["OCI-Filters-Applied"] != "artifactType":
            raise Refused("the registry did not filter")
        for entry in json.load(answer)["manifests"]:
            manifest = json.loads(self.get("manifests", entry["digest"]))
            if manifest["subject"]["digest"] != subject or manifest["artifactType"] != artifact:
                raise Refused("this is about something else")
            yield manifest["layers"][0], self.get("blobs", manifest["layers"][0]["digest"])


def payload_of(name, digest):
    identity = {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest}}
    return json.dumps({"critical": {**identity, "type": "cosign container image signature"}, "optional": None}).encode()


def sign(key, message):
    return base64.b64encode(key.sign(message, ec.ECDSA(hashes.SHA256()))).decode()


def check(public, signature, message):
    try:
        public.verify(base64.b64decode(signature), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused("the signature is not this key's, or of something else") from None


def pre_authentication(kind, body):
    """DSSE's PAE."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(body), body)


def attach_signature(repository, digest, payload, signature):
    layer = {"mediaType": SIMPLE_SIGNING, **repository.push_blob(payload), "annotations": {NOTE: signature}}
    repository.attach(digest, SIGNATURE, layer)


def attach_attestation(repository, digest, body, signature):
    envelope = {
        "payloadType": IN_TOTO,
        "payload": base64.b64encode(body).decode(),
        "signatures": [{"keyid": "", "sig": signature}],
    }
    repository.attach(digest, IN_TOTO, {"mediaType": DSSE, **repository.push_blob(json.dumps(envelope).encode())})


def statement_of(name, digest):
    algorithm, value = digest.split(":")
    return json.dumps({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {algorithm: value}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": {"buildType": "https://example.com/by-hand"}},
    }).encode()


def attach_all(repository, name, digest, key, how):
    """Signs `digest`; `how` says what is wrong with that, if something is."""
    other = "sha256:" + "0" * 64
    if how == "stranger":
        key = ec.generate_private_key(ec.SECP256R1())
    signed = other if how == "another-image" else digest
    payload, body = payload_of(name, signed), statement_of(name, signed)
    signature, attested = sign(key, payload), sign(key, pre_authentication(IN_TOTO, body))
    if how == "altered-signature":
        payload = payload.replace(b"null", b"true")
    if how == "altered-attestation":
        body = body.replace(b"by-hand", b"by-magic")
    attach_signature(repository, digest, payload, signature)
    attach_attestation(repository, digest, body, attested)


def verify(repository, digest, public):
    counted = {"signatures": 0, "attestations": 0}
    for layer, payload in repository.referrers(digest, SIGNATURE):
        check(public, layer["annotations"][NOTE], payload)
        if json.loads(payload)["critical"]["image"]["docker-manifest-digest"] != digest:
            raise Refused("the signature is of another image")
        counted["signatures"] += 1
    for _, envelope in repository.referrers(digest, IN_TOTO):
        envelope = json.loads(envelope)
        body = base64.b64decode(envelope["payload"])
        check(public, envelope["signatures"][0]["sig"], pre_authentication(envelope["payloadType"], body))
        if json.loads(body)["subject"][0]["digest"] != dict([digest.split(":")]):
            raise Refused("the attestation is of another image")
        counted["attestations"] += 1
    if 0 in counted.values():
        raise Refused(f"there is nothing to verify: {counted}")
    return counted


def main(command, *arguments):
    if command == "keys":
        key = ec.generate_private_key(ec.SECP256R1())
        encoding = serialization.Encoding.PEM
        with open(arguments[0], "wb") as file:
            form = serialization.PrivateFormat.PKCS8
            file.write(key.private_bytes(encoding, form, serialization.NoEncryption()))
        with open(arguments[1], "wb") as file:
            file.write(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
        return
    registry, name, digest, key = arguments[:4]
    repository = Repository(registry, name)
    with open(key, "rb") as file:
        pem = file.read()
    if command == "verify":
        print(json.dumps(verify(repository, digest, serialization.load_pem_public_key(pem))))
    else:
        key = serialization.load_pem_private_key(pem, None)
        attach_all(repository, name, digest, key, arguments[4] if command == "forge" else "")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Refused as refused:
        sys.exit(f"refused: {refused}")
