#!/usr/bin/env bash
# The life of a container registry's storage under its customer's key: made, rotated, fenced in, revoked and restored.
#
#   examples/acr-story.sh [BULLA]
#
# BULLA is the built command, as an argument or in the environment; without it `cargo build --release` makes one. It needs
# bash 5 and the usual tools, no account and no network: `bulla vault serve` stands in for Azure Key Vault and hands out
# the tokens of managed identities, so that Microsoft's own SDK and credentials do the talking. Everything happens in a
# temporary folder, which is removed at the end. Where Azure has a command for a step, it stands above it as a comment.
set -euo pipefail
export LC_ALL=C

# ── Telling ──────────────────────────────────────────────────────────────────────────────────────────────────────────

# How soon a revocation acts, in seconds. What this script sees also has processes that start and end, so it allows them
# some time on a busy machine.
bound=2
allowance=4

steps=0 claims=0
began=$EPOCHREALTIME

step() { printf '\n%d. %s\n' $((++steps)) "$*"; }
show() { printf '  $ %s\n' "$*"; }
claim() { claims=$((claims + 1)) && printf '  ✓ %s\n' "$*"; }
fail() {
  printf '  ✗ %s\n' "$*" >&2
  [[ ! -s error ]] || cat error >&2
  exit 1
}

# Runs what must succeed.
run() { show "$@" && quietly "$@"; }
quietly() { "$@" >out 2>error || fail "\`$*\` ended with exit code $?"; }
# The same, and shows what it prints.
tell() { run "$@" && sed 's/^/    /' out; }

# Runs what must fail with this exit code, and shows the error.
refused() {
  local expected=$1 code=0
  shift
  show "$@"
  "$@" >out 2>error || code=$?
  ((code == expected)) || fail "exit code $code instead of $expected"
  sed 's/^/    /' error
}

# Runs the command that the last error names between backticks, as the owner of the key would: the owner knows the
# vault's folder (DIR) and the machine's address (CIDR).
do_what_the_error_says() {
  local command
  command=$(sed -n 's/[^`]*`\(bulla [^`]*\)`.*/\1/p' error | head -n 1)
  [[ -n $command ]] || fail "the error names no command"
  command=${command/DIR/vault}
  read -ra command <<<"${command/CIDR/127.0.0.1}"
  run "${command[@]}"
}

microseconds() { echo "${EPOCHREALTIME/./}"; }

# ── The stage ────────────────────────────────────────────────────────────────────────────────────────────────────────

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${1:-${BULLA:-}}
if [[ -z $program ]]; then
  cargo build --release --quiet --manifest-path "$repository/Cargo.toml" --package bulla-cli
  program=${CARGO_TARGET_DIR:-$repository/target}/release/bulla
fi
program=$(realpath "$program")
# In the background "$program" is run itself: of a function, only the shell around it could be ended.
bulla() { "$program" "$@"; }

folder=$(mktemp -d "${TMPDIR:-/tmp}/acr-story.XXXXXX")
clean_up() {
  local running
  running=$(jobs -p)
  # Each of them may have ended by itself.
  [[ -z $running ]] || kill $running 2>/dev/null || true
  wait
  rm -rf "$folder"
}
trap clean_up EXIT
cd "$folder"

# Nothing of the user's own settings has a part in it.
unset BULLA_STORE BULLA_VAULT_PASSPHRASE BULLA_AZURE_CREDENTIAL RUST_LOG
unset AZURE_CLIENT_ID AZURE_TENANT_ID AZURE_FEDERATED_TOKEN_FILE HTTPS_PROXY https_proxy
export BULLA_CONFIG_DIR=$folder/config
export BULLA_VAULT_PASSPHRASE_FILE=$folder/passphrase
(umask 077 && head -c 32 /dev/urandom | base64 >passphrase)

# ── The story ────────────────────────────────────────────────────────────────────────────────────────────────────────

step "A user-assigned identity for the registry, and a vault with soft delete and purge protection"
# az identity create --resource-group contoso --name registry --query clientId
identity=5f0d3c1e-8a54-4b7c-9e0b-6f1f0c2a9d11
# az keyvault create --resource-group contoso --name contoso --enable-purge-protection
run bulla vault create vault
# Its REST API. Azure has that running already, and every machine there has the endpoint of its managed identities.
export IDENTITY_HEADER
IDENTITY_HEADER=$(head -c 32 /dev/urandom | base64)
serve=(vault serve vault --listen 127.0.0.1:0 --identity-listen 127.0.0.1:0 --identity system "$identity" --json)
show bulla "${serve[@]}" "&"
"$program" "${serve[@]}" >served 2>serve-error &
server=$!
until [[ -s served ]]; do
  kill -0 $server 2>/dev/null || fail "it did not start: $(<serve-error)"
  sleep 0.05
done
vault=$(sed 's/.*"url":"\([^"]*\)".*/\1/' served)
export IDENTITY_ENDPOINT
IDENTITY_ENDPOINT=$(sed 's/.*"endpoint":"\([^"]*\)".*/\1/' served)
# Azure's own hosts are allowed and trusted without these two.
export BULLA_KEYVAULT_HOSTS=${vault#https://} BULLA_KEYVAULT_CA_FILE=$folder/vault/tls/cert.pem

step "A key, and the right for the identity to wrap and unwrap with it"
# az keyvault key create --vault-name contoso --name registry --kty RSA --size 3072 --ops wrapKey unwrapKey
run bulla vault key create vault --name registry --kty RSA --size 3072
key=$vault/keys/registry
# az keyvault set-policy --name contoso --spn CLIENT_ID --key-permissions get wrapKey unwrapKey
run bulla vault set-policy vault --identity "$identity" --key-permissions get wrapKey unwrapKey

step "A registry's storage under that key, from the \`encryption\` block of its ARM template"
# az acr create --name contoso --sku Premium --identity registry --key-encryption-key https://contoso.vault.azure.net/keys/registry
cat >encryption.json <<JSON
{ "Encryption": { "STATUS": "Enabled",
                  "keyvaultproperties": { "Identity": "$identity", "KEYIDENTIFIER": "$key" } } }
JSON
show "cat encryption.json" && sed 's/^/    /' encryption.json
tell bulla init store --encryption encryption.json --revocation-bound ${bound}s
# From here on the store keeps a record of what happens to its keys.
run bulla audit start store
run bulla audit keygen store --out audit.key
cp out audit.pub

step "Real files go in and come out; the folder has neither their bytes nor their names"
cp "${BASH_SOURCE[0]}" manifest 2>/dev/null || cp "$repository/examples/acr-story.sh" manifest
cp "$BASH" binary
head -c 100663296 /dev/urandom >layer
for file in manifest binary layer; do
  run bulla put store $file
  declare "$file=$(<out)"
done
for file in manifest binary layer; do
  quietly bulla get store "${!file}" --output copy
  cmp -s $file copy || fail "$file came back changed"
  [[ ${!file} == "sha256:$(sha256sum <$file | cut -d' ' -f1)" ]] || fail "$file has another digest"
done
claim "three files came back byte for byte, under the digests that any registry gives them"
! grep -rqaF -e 'The life of a container registry' -e "${manifest#sha256:}" store || fail "something readable is in the store"
claim "no text and no digest of them is anywhere in the store's folder"

step "What \`az acr encryption show\` shows"
# az acr encryption show --name contoso
tell bulla status store
[[ $(<out) == *"\"identity\": \"$identity\""*"\"keyIdentifier\": \"$key\""*'"keyRotationEnabled": true'* ]] ||
  fail "that is not the key and identity of the template"
[[ $(<out) == *"\"versionedKeyIdentifier\": \"$key/"*'"status": "enabled"'* ]] || fail "the encryption is not enabled"
claim "enabled, under the template's key and identity; new versions are followed, because the id has none"

in_use() { bulla status store | sed -n 's/.*"versionedKeyIdentifier": "\(.*\)".*/\1/p'; }
reads_and_writes() {
  quietly bulla get store "$binary" --output copy
  cmp -s binary copy || fail "what was read is not what was put"
  quietly bulla put store manifest
}
# Names, sizes and times of everything that holds data.
data() { find store/data store/blobs -type f -printf '%p %s %T@\n' | sort | sha256sum; }

step "Rotation to a new version of the key: one secret is wrapped anew, no data is touched"
first=$(in_use) before=$(data)
# az keyvault key rotate --vault-name contoso --name registry
run bulla vault key create vault --name registry --kty RSA --size 3072
# (Where the key id has no version, Azure's registry follows within the hour; so does a process that keeps a store open.)
tell bulla rotate store
[[ $(in_use) == "$key/"* && $(in_use) != "$first" ]] || fail "the store is still under $first"
[[ $(data) == "$before" ]] || fail "data was touched"
claim "another version is in use, and every data object and envelope is as it was"
# az keyvault key set-attributes --id …/keys/registry/OLD --enabled false
run bulla vault key disable vault --name registry --version "${first##*/}"
reads_and_writes
claim "the old version can be disabled: everything is read and written without it"

step "Rotation to another key"
# az keyvault key create --vault-name contoso --name registry-2 …
run bulla vault key create vault --name registry-2 --kty RSA --size 3072
# az acr encryption rotate-key --name contoso --key-encryption-key https://contoso.vault.azure.net/keys/registry-2
tell bulla rotate store --kek "$vault/keys/registry-2"
# az keyvault key delete --vault-name contoso --name registry
run bulla vault key delete vault --name registry
reads_and_writes
claim "the old key can be deleted: everything is read and written without it"

# A reader and a writer that are in their middle when something happens: slow clients, a megabyte every tenth of a second.
mkfifo download upload
take_slowly() { while (($(head -c 1048576 | wc -c) > 0)); do : >reading && sleep 0.1; done; }
give_slowly() { while head -c 1048576 /dev/zero 2>/dev/null; do : >writing && sleep 0.1; done; }
traffic_begins() {
  rm -f reading writing
  take_slowly <download &
  "$program" get store "$layer" >download 2>reader-error &
  reader=$!
  give_slowly >upload &
  "$program" put store - <upload >/dev/null 2>writer-error &
  writer=$!
  until [[ -e reading && -e writing ]]; do
    kill -0 $reader $writer 2>/dev/null || fail "they did not begin: $(<reader-error) $(<writer-error)"
    sleep 0.02
  done
  echo "  (a download and an upload are under way)"
}
# Both end with exit code 4 in time, and nothing new begins.
traffic_is_cut_off() {
  local since=$1 code took
  for one in reader writer; do
    code=0
    wait "${!one}" || code=$?
    [[ $code == 4 ]] || fail "the $one ended with exit code $code: $(<$one-error)"
  done
  took=$((($(microseconds) - since) / 1000))
  ((took <= (bound + allowance) * 1000)) || fail "that took $took ms"
  claim "the download and the upload were cut off after $((took / 1000)).$((took % 1000 / 100)) s, exit code 4; promised: ${bound} s"
  refused 4 bulla get store "$binary" --output copy
  [[ ! -e copy ]] || fail "a refused read left a file"
  quietly_refused 4 bulla put store manifest
  quietly_refused 4 bulla ls store
  claim "nothing is read, written or listed any more"
}
quietly_refused() { refused "$@" >/dev/null; }
# Takes the key away, with a download and an upload under way.
taken_away_by() {
  rm -f copy
  traffic_begins
  run "$@"
  traffic_is_cut_off "$(microseconds)"
}
given_back() {
  do_what_the_error_says
  reads_and_writes
  claim "given back: everything is read and written again"
}

step "The key is taken away: the identity's policy is deleted"
# az keyvault delete-policy --name contoso --spn CLIENT_ID
taken_away_by bulla vault delete-policy vault --identity "$identity"
given_back

step "The key is taken away: its version is disabled"
# az keyvault key set-attributes --vault-name contoso --name registry-2 --enabled false
taken_away_by bulla vault key disable vault --name registry-2
given_back

step "The key is taken away: it is deleted"
# az keyvault key delete --vault-name contoso --name registry-2
taken_away_by bulla vault key delete vault --name registry-2
cp error revoked
# az keyvault key purge --vault-name contoso --name registry-2
refused 7 bulla vault key purge vault --name registry-2
claim "purge protection keeps it from being lost"
cp revoked error
# az keyvault key recover --vault-name contoso --name registry-2
given_back

step "A firewall around the vault: a user-assigned identity is no trusted service"
# az keyvault update --name contoso --default-action Deny --bypass None
run bulla vault network-rule vault --default-action deny --bypass none
refused 4 bulla get store "$binary" --output copy
# az keyvault update --name contoso --bypass AzureServices
run bulla vault network-rule vault --default-action deny --bypass trusted-services
refused 4 bulla get store "$binary" --output copy
quietly_refused 4 bulla put store manifest
claim "locked out, with and without the exception for trusted services"
# az keyvault network-rule add --name contoso --ip-address ADDRESS
given_back

step "Rotation to the system-assigned identity, which is one"
# az keyvault set-policy --name contoso --object-id PRINCIPAL_ID --key-permissions get wrapKey unwrapKey
run bulla vault set-policy vault --identity system --key-permissions get wrapKey unwrapKey
# az acr encryption rotate-key --name contoso --key-encryption-key … --identity [system]
tell bulla rotate store --identity system
run bulla vault delete-policy vault --identity "$identity"
run bulla vault network-rule vault --default-action deny --bypass trusted-services
reads_and_writes
claim "behind the firewall, without the other identity, everything is read and written"
run bulla vault network-rule vault --default-action deny --bypass none
refused 4 bulla get store "$binary" --output copy
given_back

step "There is no way back: the encryption is the customer's, and on"
echo '{ "status": "disabled" }' >disabled.json
refused 7 bulla init store --encryption disabled.json
[[ $(<error) == *"can't be turned off"* ]] || fail "the error does not say so"
run bulla init other --service-vault service
refused 2 bulla rotate store --kek "vault+file://$folder/service/keys/service"
[[ $(bulla status store) == *'"status": "enabled"'* ]] || fail "the encryption is off"
claim "neither turned off nor handed to a key that is not the customer's"

step "The data keys get a new key too, and a count says when the old one is needed no more"
tell bulla rewrap store
[[ $(<out) == *"0 of 3 under "*": safe to retire"* ]] || fail "no count"
reads_and_writes
claim "three data keys were wrapped anew, counted, and the old key retired"

step "The customer's record of it, in the vault, and the operator's, in the store"
for outcome in ForbiddenByPolicy KeyDisabled KeyNotFound ForbiddenByFirewall; do
  grep -q "\"outcome\":\"$outcome\"" vault/audit.jsonl || fail "the audit log has no $outcome"
done
uses=$(grep -c '"operation":"unwrapKey"' vault/audit.jsonl)
claim "the vault's audit log has every refusal, and every use of the key: $uses times unwrapped, for all of the above"
run bulla audit export store --key audit.key --output audit.export
run bulla audit verify audit.export --key audit.pub
head -n 1 out | sed 's/^/    /'
[[ $(<out) == "complete and unaltered"* ]] || fail "it is not"
[[ $(grep -c ^rotated out) == 3 ]] || fail "there were three rotations"
claim "the store's is signed, complete and unaltered, and has the three rotations"

step "Everything that was ever acknowledged is there"
tell bulla verify store --deep
tell bulla gc store --grace 0s --dry-run
for file in manifest binary layer; do
  quietly bulla get store "${!file}" --verify --output copy
  cmp -s $file copy || fail "$file is not what was put"
done
claim "every byte was read, authenticated and hashed"

took=$(((${EPOCHREALTIME/./} - ${began/./}) / 1000000))
printf '\nacr-story: %d claims, all of them hold; %d s\n' $claims $took
