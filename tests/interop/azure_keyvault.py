"""Azure's SDK for Python, as it comes, against `bulla vault serve`.

    azure_keyvault.py SETTINGS

SETTINGS is a JSON file of the test that starts the servers: where they and their certificates are, and how to call `bulla`.
Identities get their tokens as in Azure: from IDENTITY_ENDPOINT, with IDENTITY_HEADER, both in the environment.
Prints the name of every scene that went as it should.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone

from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.identity import ManagedIdentityCredential, WorkloadIdentityCredential
from azure.keyvault.keys import JsonWebKey, KeyClient
from azure.keyvault.keys.crypto import (
    CryptographyClient,
    EncryptionAlgorithm,
    KeyWrapAlgorithm,
)
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

SETTINGS = json.load(open(sys.argv[1]))
SECRET = bytes(range(32))
OAEP_256 = KeyWrapAlgorithm.rsa_oaep_256


class Vault:
    """One server, and the folder behind it."""

    def __init__(self, name):
        self.url = SETTINGS[name]["url"]
        self.folder = SETTINGS[name]["folder"]
        # The one thing that differs from Azure: the host is not in a domain that the challenge could name.
        self.options = {
            "connection_verify": SETTINGS[name]["certificate"],
            "verify_challenge_resource": False,
        }

    def keys(self, credential, **more):
        return KeyClient(self.url, credential, **self.options, **more)

    def crypto(self, key, credential, **more):
        """Remote operations only: without the permission to get a key the SDK does nothing by itself."""
        key = key if isinstance(key, str) else key.id
        return CryptographyClient(key, credential, **self.options, **more)

    def bulla(self, *arguments):
        command = [SETTINGS["bulla"], "vault", arguments[0]]
        rest = list(arguments[1:])
        if arguments[0] == "key":
            command.append(rest.pop(0))
        return subprocess.run(
            command + [self.folder] + rest, check=True, capture_output=True, text=True
        ).stdout

    def allow(self, identity, *permissions):
        self.bulla("set-policy", "--identity", identity, "--key-permissions", *permissions)


class Issued:
    """A credential that shows a token of `bulla vault token`."""

    def __init__(self, vault, identity):
        self.token = vault.bulla("token", "--identity", identity).strip()

    def get_token(self, *scopes, **_):
        return AccessToken(self.token, int(time.time()) + 3000)


def refused(kind, inner, call, *arguments, **named):
    """`call` fails as `kind`, exactly, and the body says `inner`."""
    try:
        call(*arguments, **named)
    except HttpResponseError as error:
        assert type(error) is kind, (type(error), error)
        code = error.error.innererror or {} if error.error else {}
        code = code.get("code") or (error.error and error.error.code)
        assert code == inner, (code, inner, error)
        return error
    raise AssertionError(f"{call} did not fail with {inner}")


def user_assigned():
    return ManagedIdentityCredential(client_id="registry")


def system_assigned():
    return ManagedIdentityCredential()


# ---- scenes ----


def every_operation_as_a_managed_identity():
    vault = Vault("protected")
    for credential in (user_assigned(), system_assigned()):
        keys = vault.keys(credential)
        name = "ops-" + os.urandom(4).hex()
        key = keys.create_rsa_key(name, size=2048, tags={"team": "storage"})
        assert key.id.startswith(f"{vault.url}/keys/{name}/"), key.id
        assert key.key_type == "RSA" and key.properties.tags == {"team": "storage"}
        assert key.properties.enabled and key.properties.recovery_level == "Recoverable"
        assert keys.get_key(name).id == key.id
        assert keys.get_key(name, key.properties.version).key.n == key.key.n
        for crypto in (vault.crypto(key, credential), keys.get_cryptography_client(name)):
            for algorithm in (OAEP_256, KeyWrapAlgorithm.rsa_oaep):
                wrapped = crypto.wrap_key(algorithm, SECRET)
                opened = crypto.unwrap_key(algorithm, wrapped.encrypted_key)
                assert opened.key == SECRET and wrapped.algorithm == algorithm
            sealed = crypto.encrypt(EncryptionAlgorithm.rsa_oaep_256, b"hello")
            assert crypto.decrypt(EncryptionAlgorithm.rsa_oaep_256, sealed.ciphertext).plaintext == b"hello"


def wraps_of_the_sdk_open_in_the_vault():
    """The SDK wraps with the public half by itself where it may get it; here it also unwraps what the vault wrapped."""
    vault = Vault("protected")
    credential = user_assigned()
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.private_numbers()
    size = lambda number: number.to_bytes((number.bit_length() + 7) // 8, "big")
    jwk = JsonWebKey(
        kty="RSA",
        key_ops=["wrapKey", "unwrapKey"],
        n=size(numbers.public_numbers.n),
        e=size(numbers.public_numbers.e),
        d=size(numbers.d),
        p=size(numbers.p),
        q=size(numbers.q),
        dp=size(numbers.dmp1),
        dq=size(numbers.dmq1),
        qi=size(numbers.iqmp),
    )
    key = vault.keys(credential).import_key("imported", jwk)
    assert key.key.d is None and key.key.n == jwk.n
    local = CryptographyClient.from_jwk(jwk)
    remote = vault.crypto(key, credential)
    for algorithm in (OAEP_256, KeyWrapAlgorithm.rsa_oaep):
        assert remote.unwrap_key(algorithm, local.wrap_key(algorithm, SECRET).encrypted_key).key == SECRET
    # Without `get` the SDK can't wrap by itself.
    vault.allow("wrapper", "wrapKey")
    wrapped = vault.crypto(key, Issued(vault, "wrapper")).wrap_key(OAEP_256, SECRET)
    assert local.unwrap_key(OAEP_256, wrapped.encrypted_key).key == SECRET


def aes_keys_as_in_managed_hsm():
    vault = Vault("protected")
    keys = vault.keys(user_assigned())
    key = keys.create_oct_key("aes", size=256, hardware_protected=True)
    assert key.key_type == "oct-HSM" and key.key.k is None
    crypto = vault.crypto(key, user_assigned())
    wrapped = crypto.wrap_key(KeyWrapAlgorithm.aes_256, SECRET)
    assert len(wrapped.encrypted_key) == 40
    assert crypto.unwrap_key(KeyWrapAlgorithm.aes_256, wrapped.encrypted_key).key == SECRET
    known = bytes(32)
    jwk = JsonWebKey(kty="oct", key_ops=["wrapKey", "unwrapKey"], k=known)
    imported = keys.import_key("aes-imported", jwk)
    foreign = aes_key_wrap(known, SECRET)
    opened = vault.crypto(imported, user_assigned()).unwrap_key(KeyWrapAlgorithm.aes_256, foreign)
    assert opened.key == SECRET


def attributes_versions_and_pages():
    vault = Vault("protected")
    keys = vault.keys(user_assigned())
    now = datetime.now(timezone.utc).replace(microsecond=0)
    key = keys.create_oct_key("many", expires_on=now + timedelta(days=1))
    assert key.properties.expires_on == now + timedelta(days=1)
    changed = keys.update_key_properties("many", enabled=False, tags={"a": "b"})
    assert not changed.properties.enabled and changed.properties.tags == {"a": "b"}
    assert changed.properties.expires_on == key.properties.expires_on
    made = {key.properties.version} | {keys.create_oct_key("many").properties.version for _ in range(4)}
    pages = list(keys.list_properties_of_key_versions("many", max_page_size=2).by_page())
    found = [list(page) for page in pages]
    assert [len(page) for page in found] == [2, 2, 1], found
    assert {item.version for page in found for item in page} == made
    names = {keys.create_oct_key(f"page-{number:02}").name for number in range(27)}
    listed = [item.name for item in keys.list_properties_of_keys()]
    assert names <= set(listed) and len(listed) == len(set(listed)), "more than a page, each once"


def soft_delete_and_recovery():
    vault = Vault("protected")
    keys = vault.keys(user_assigned())
    key = keys.create_rsa_key("gone", size=2048)
    crypto = vault.crypto(key, Issued(vault, "registry"))
    wrapped = crypto.wrap_key(OAEP_256, SECRET).encrypted_key
    deleted = keys.begin_delete_key("gone").result()
    assert deleted.recovery_id == f"{vault.url}/deletedkeys/gone" and deleted.deleted_date
    assert keys.get_deleted_key("gone").id == key.id
    assert "gone" in [item.name for item in keys.list_deleted_keys()]
    assert "gone" not in [item.name for item in keys.list_properties_of_keys()]
    refused(ResourceNotFoundError, "KeyNotFound", keys.get_key, "gone")
    refused(ResourceNotFoundError, "KeyNotFound", crypto.unwrap_key, OAEP_256, wrapped)
    refused(ResourceExistsError, "ObjectIsDeletedButRecoverable", keys.create_rsa_key, "gone")
    refused(HttpResponseError, "PurgeProtectionEnabled", keys.purge_deleted_key, "gone")
    assert keys.begin_recover_deleted_key("gone").result().id == key.id
    assert crypto.unwrap_key(OAEP_256, wrapped).key == SECRET
    refused(ResourceNotFoundError, "KeyNotFound", keys.get_deleted_key, "gone")
    refused(ResourceNotFoundError, "KeyNotFound", keys.get_key, "never")


def purging():
    vault = Vault("unprotected")
    keys = vault.keys(Issued(vault, "registry"))
    assert keys.create_oct_key("k").properties.recovery_level == "Recoverable+Purgeable"
    keys.begin_delete_key("k").result()
    keys.purge_deleted_key("k")
    refused(ResourceNotFoundError, "KeyNotFound", keys.get_deleted_key, "k")
    keys.create_oct_key("k")


def disabled_and_expired_keys():
    vault = Vault("protected")
    credential = user_assigned()
    keys = vault.keys(credential)
    for key, algorithm in (
        (keys.create_rsa_key("off", size=2048), OAEP_256),
        (keys.create_oct_key("off-aes"), KeyWrapAlgorithm.aes_256),
    ):
        # As an identity that can't get the key, so that every call goes to the vault.
        vault.allow("blind", "wrapKey", "unwrapKey")
        crypto = vault.crypto(key, Issued(vault, "blind"))
        wrapped = crypto.wrap_key(algorithm, SECRET).encrypted_key
        vault.bulla("key", "disable", "--name", key.name)
        refused(HttpResponseError, "KeyDisabled", crypto.unwrap_key, algorithm, wrapped)
        if key.key_type == "RSA":
            crypto.wrap_key(algorithm, SECRET)
        else:
            refused(HttpResponseError, "KeyDisabled", crypto.wrap_key, algorithm, SECRET)
        assert not keys.get_key(key.name).properties.enabled
        vault.bulla("key", "enable", "--name", key.name)
        for past, future, inner in (("2000-01-01", "none", "KeyExpired"), ("none", "2100-01-01", "KeyNotYetValid")):
            vault.bulla("key", "set-attributes", "--name", key.name, "--expires", past, "--not-before", future)
            refused(HttpResponseError, inner, crypto.wrap_key, algorithm, SECRET)
            assert crypto.unwrap_key(algorithm, wrapped).key == SECRET
        vault.bulla("key", "set-attributes", "--name", key.name, "--expires", "none", "--not-before", "none")
        vault.bulla("key", "set-attributes", "--name", key.name, "--ops", "unwrapKey")
        refused(HttpResponseError, "KeyOperationForbidden", crypto.wrap_key, algorithm, SECRET)


def what_is_wrong_with_a_call():
    vault = Vault("protected")
    keys = vault.keys(user_assigned())
    vault.allow("blind", "wrapKey", "unwrapKey")
    crypto = vault.crypto(keys.create_rsa_key("calls", size=2048), Issued(vault, "blind"))
    refused(HttpResponseError, "BadParameter", crypto.unwrap_key, OAEP_256, bytes(256))
    refused(HttpResponseError, "BadParameter", crypto.wrap_key, KeyWrapAlgorithm.rsa1_5, SECRET)
    refused(HttpResponseError, "BadParameter", crypto.wrap_key, KeyWrapAlgorithm.aes_256, SECRET)
    refused(HttpResponseError, "BadParameter", keys.create_ec_key, "curve")
    refused(HttpResponseError, "BadParameter", keys.create_rsa_key, "small", size=1024)
    refused(HttpResponseError, "NotSupported", keys.rotate_key, "calls")


def policies():
    vault = Vault("protected")
    vault.keys(user_assigned()).create_oct_key("mine")
    keys = vault.keys(ManagedIdentityCredential(client_id="stranger"))
    refused(HttpResponseError, "ForbiddenByPolicy", keys.get_key, "mine")
    refused(HttpResponseError, "ForbiddenByPolicy", keys.get_key, "there-is-none")
    vault.allow("stranger", "get")
    keys.get_key("mine")
    refused(HttpResponseError, "ForbiddenByPolicy", keys.begin_delete_key, "mine")
    vault.bulla("delete-policy", "--identity", "stranger")
    refused(HttpResponseError, "ForbiddenByPolicy", keys.get_key, "mine")


def firewall():
    vault = Vault("protected")
    mine, trusted = vault.keys(user_assigned()), vault.keys(system_assigned())
    mine.create_oct_key("walled")
    try:
        vault.bulla("network-rule", "--default-action", "deny", "--allow", "192.0.2.0/24", "--bypass", "trusted-services")
        refused(HttpResponseError, "ForbiddenByFirewall", mine.get_key, "walled")
        trusted.get_key("walled")
        vault.bulla("network-rule", "--default-action", "deny", "--bypass", "none")
        refused(HttpResponseError, "ForbiddenByFirewall", trusted.get_key, "walled")
        vault.bulla("network-rule", "--default-action", "deny", "--allow", "127.0.0.1", "::1")
        mine.get_key("walled")
    finally:
        vault.bulla("network-rule", "--clear")
    mine.get_key("walled")


def identities_that_are_none():
    vault = Vault("protected")

    class Forged:
        def get_token(self, *scopes, **_):
            return AccessToken("eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.e30.", int(time.time()) + 3000)

    refused(ClientAuthenticationError, "Unauthorized", vault.keys(Forged()).get_key, "k")
    other = Issued(Vault("unprotected"), "registry")
    refused(ClientAuthenticationError, "Unauthorized", vault.keys(other).get_key, "k")
    # The second server's identity endpoint knows one identity only.
    endpoint, header = os.environ["IDENTITY_ENDPOINT"], os.environ["IDENTITY_HEADER"]
    os.environ["IDENTITY_ENDPOINT"] = SETTINGS["unprotected"]["identity"]["endpoint"]
    os.environ["IDENTITY_HEADER"] = SETTINGS["unprotected"]["identity"]["header"]
    try:
        Vault("unprotected").keys(user_assigned()).create_oct_key("known")
        try:
            Vault("unprotected").keys(system_assigned()).get_key("known")
        except ClientAuthenticationError as error:
            assert "No User Assigned or Delegated Managed Identity" in error.message, error
        else:
            raise AssertionError("an identity that nobody assigned")
    finally:
        os.environ["IDENTITY_ENDPOINT"], os.environ["IDENTITY_HEADER"] = endpoint, header


def workload_identity():
    vault = Vault("protected")
    with tempfile.NamedTemporaryFile("w", suffix=".token") as file:
        file.write(vault.bulla("token", "--identity", "registry", "--exchange").strip())
        file.flush()
        credential = WorkloadIdentityCredential(
            tenant_id=SETTINGS["protected"]["tenant"],
            client_id="registry",
            token_file_path=file.name,
            authority=vault.url,
            disable_instance_discovery=True,
            connection_verify=SETTINGS["protected"]["certificate"],
        )
        vault.keys(credential).create_oct_key("workload")


def throttling():
    """The server takes 3 requests per second: the SDK waits as told and gets through, or gives up if it may not retry."""
    vault = Vault("throttled")
    credential = Issued(vault, "registry")
    keys = vault.keys(credential)
    keys.create_oct_key("busy")
    for _ in range(6):
        keys.get_key("busy")
    impatient = vault.keys(credential, retry_total=0)

    def burst():
        for _ in range(100):
            impatient.get_key("busy")
    error = refused(HttpResponseError, "Throttled", burst)
    assert error.status_code == 429 and error.response.headers["Retry-After"] == "1"


SCENES = [
    every_operation_as_a_managed_identity,
    wraps_of_the_sdk_open_in_the_vault,
    aes_keys_as_in_managed_hsm,
    attributes_versions_and_pages,
    soft_delete_and_recovery,
    purging,
    disabled_and_expired_keys,
    what_is_wrong_with_a_call,
    policies,
    firewall,
    identities_that_are_none,
    workload_identity,
    throttling,
]

if __name__ == "__main__":
    for scene in SCENES:
        scene()
        print(scene.__name__, flush=True)
