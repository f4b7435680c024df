//! Against a real vault behind Key Vault's REST API: the suite that every provider passes, and every real credential.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use azure_core::credentials::{AccessToken, Secret as Token, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use bulla_envelope::secret::Secret;
use bulla_kek::conformance::{self, Fixture, FixtureError, Hooked, TestKey};
use bulla_kek::{
    DenyReason, Identity, KekError, KekErrorKind, KekProvider, KeyId, KeyKind, SystemRandom, TokioRuntime,
    async_trait,
};
use bulla_kek_azure::{AzureOptions, AzureProvider, CredentialSource, Credentials};
use bulla_vault::{
    AttributeChanges, CreateKey, CreateVault, NetworkAction, NetworkRules, Passphrase, PassphraseCost,
    Permission, Vault,
};
use bulla_vault_server::{Api, ApiOptions, Audience, Fault, Faults, Server, ServerOptions};
use tempfile::TempDir;

use crate::support::{USER, user};

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) vault: Vault,
    api: Api,
    faults: Faults,
    token_faults: Faults,
    /// `127.0.0.1:PORT`
    host: String,
    ca: Vec<u8>,
    /// `IDENTITY_ENDPOINT`, `IDENTITY_HEADER`
    identity: (String, String),
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let create =
            CreateVault { cost: PassphraseCost::MINIMAL, ..CreateVault::new(Passphrase::new("open sesame")) };
        let vault = Vault::create(folder.path().join("vault"), create).unwrap();
        vault.set_policy(&user(), &Permission::FOR_STORES).unwrap();
        vault.set_policy(&Identity::System, &Permission::FOR_STORES).unwrap();
        let (faults, token_faults) = (Faults::new(), Faults::new());
        let options = ApiOptions {
            identities: Some(BTreeSet::from([Identity::System, user()])),
            faults: faults.clone(),
            token_faults: token_faults.clone(),
            ..ApiOptions::default()
        };
        let api = Api::new(vault.clone(), options).await.unwrap();
        let server = Server::bind(api.clone(), ServerOptions::default()).await.unwrap();
        let host = server.url().strip_prefix("https://").unwrap().to_owned();
        let ca = fs::read(server.certificate()).unwrap();
        let identity = server.identity().unwrap();
        let identity = (identity.url.clone(), identity.header.to_string());
        drop(tokio::spawn(server.serve(std::future::pending())));
        Self { folder, vault, api, faults, token_faults, host, ca, identity }
    }

    pub(crate) fn options(&self) -> AzureOptions {
        AzureOptions {
            credentials: Credentials::Custom(Arc::new(Issuer(self.api.clone()))),
            extra_hosts: vec![self.host.clone()],
            extra_ca_pem: self.ca.clone(),
            ..AzureOptions::default()
        }
    }

    pub(crate) fn key(&self, name: &str) -> KeyId {
        KeyId::key_vault(&self.host, name, None).unwrap()
    }

    /// What was asked of the vault, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(self.api.audit_log()).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .filter(|line| line["status"] != 401)
            .map(|line| line["operation"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

/// Issues tokens as the vault's own endpoints do.
struct Issuer(Api);

#[derive(Debug)]
struct Issued(String);

impl CredentialSource for Issuer {
    fn credential(&self, identity: &Identity) -> Result<Arc<dyn TokenCredential>, KekError> {
        Ok(Arc::new(Issued(self.0.tokens().issue(identity, &Audience::Vault, HOUR).to_string())))
    }
}

#[async_trait]
impl TokenCredential for Issued {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        Ok(AccessToken::new(Token::new(self.0.clone()), OffsetDateTime::now_utc() + HOUR))
    }
}

struct VaultFixture {
    world: World,
    provider: Arc<AzureProvider>,
    kind: KeyKind,
    keys: AtomicU32,
}

impl VaultFixture {
    fn change(&self, key: &TestKey, changes: &AttributeChanges) -> Result<Hooked, FixtureError> {
        self.world.vault.set_attributes(key.key.name(), None, changes)?;
        Ok(Hooked::Done)
    }

    fn create(&self, name: &str) -> Result<(), FixtureError> {
        self.world.vault.create_key(&CreateKey::new(name, self.kind.clone()))?;
        Ok(())
    }
}

#[async_trait]
impl Fixture for VaultFixture {
    fn provider(&self) -> Arc<dyn KekProvider> {
        self.provider.clone()
    }

    async fn fresh_key(&self) -> Result<TestKey, FixtureError> {
        let name = format!("Key-{}", self.keys.fetch_add(1, Ordering::Relaxed));
        self.create(&name)?;
        Ok(TestKey { key: self.world.key(&name), identity: user() })
    }

    async fn new_version(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.create(key.key.name())?;
        Ok(Hooked::Done)
    }

    async fn disable(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.world.vault.set_enabled(key.key.name(), None, false)?;
        Ok(Hooked::Done)
    }

    async fn enable(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.world.vault.set_enabled(key.key.name(), None, true)?;
        Ok(Hooked::Done)
    }

    async fn delete(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.world.vault.delete_key(key.key.name())?;
        Ok(Hooked::Done)
    }

    async fn recover(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.world.vault.recover_key(key.key.name())?;
        Ok(Hooked::Done)
    }

    async fn remove_access(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.world.vault.delete_policy(&key.identity)?;
        Ok(Hooked::Done)
    }

    async fn grant_access(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.world.vault.set_policy(&key.identity, &Permission::FOR_STORES)?;
        Ok(Hooked::Done)
    }

    async fn expire(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        let past = SystemTime::now() - HOUR;
        self.change(key, &AttributeChanges { expires: Some(Some(past)), ..Default::default() })
    }

    async fn postpone(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        let future = SystemTime::now() + HOUR;
        self.change(key, &AttributeChanges { not_before: Some(Some(future)), ..Default::default() })
    }

    async fn cut_off(&self) -> Result<Hooked, FixtureError> {
        self.world.faults.always(Fault::Drop);
        Ok(Hooked::Done)
    }

    async fn reconnect(&self) -> Result<Hooked, FixtureError> {
        self.world.faults.clear();
        Ok(Hooked::Done)
    }
}

async fn conforms(kind: KeyKind) {
    let world = World::new().await;
    // A description that is believed for no time: a change shows at the next wrap.
    let options = AzureOptions { description_max_age: Duration::ZERO, ..world.options() };
    let provider = Arc::new(AzureProvider::new(options, Arc::new(TokioRuntime)).unwrap());
    let fixture = VaultFixture { world, provider, kind, keys: AtomicU32::new(0) };
    let report = conformance::run(&fixture).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(report.skipped.is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rsa_2048_keys_conform() {
    conforms(KeyKind::Rsa { bits: 2048 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rsa_3072_keys_conform() {
    conforms(KeyKind::Rsa { bits: 3072 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn aes_keys_conform() {
    conforms(KeyKind::Aes { bits: 256 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rsa_4096_keys_wrap_and_unwrap() {
    let world = World::new().await;
    world.vault.create_key(&CreateKey::new("k", KeyKind::Rsa { bits: 4096 })).unwrap();
    let provider = AzureProvider::new(world.options(), Arc::new(TokioRuntime)).unwrap();
    round_trip(&provider, &world.key("k"), &user()).await.unwrap();
}

async fn round_trip(provider: &AzureProvider, key: &KeyId, identity: &Identity) -> Result<(), KekError> {
    let description = provider.describe(key, identity).await?;
    let secret = Secret::random(&SystemRandom);
    let alg = description.kind.wrap_algorithm().expect("a key that wraps");
    let wrapped = provider.wrap_key(&description.key, identity, alg, &secret).await?;
    let back = provider.unwrap_key(&wrapped.key, identity, alg, &wrapped.value).await?;
    assert!(back.ct_eq(&secret));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_firewall_keeps_out_and_lets_in_again() {
    let world = World::new().await;
    world.vault.create_key(&CreateKey::new("k", KeyKind::Rsa { bits: 2048 })).unwrap();
    let provider = AzureProvider::new(world.options(), Arc::new(TokioRuntime)).unwrap();
    round_trip(&provider, &world.key("k"), &user()).await.unwrap();
    let mut closed = NetworkRules::default();
    closed.default_action = NetworkAction::Deny;
    world.vault.set_network_rules(Some(closed)).unwrap();
    let error = provider.describe(&world.key("k"), &user()).await.unwrap_err();
    assert_eq!(error.kind(), KekErrorKind::Denied(DenyReason::Firewall), "{error}");
    world.vault.set_network_rules(None).unwrap();
    round_trip(&provider, &world.key("k"), &user()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn throttled_lost_and_failed_requests_are_repeated() {
    let world = World::new().await;
    world.vault.create_key(&CreateKey::new("k", KeyKind::Aes { bits: 256 })).unwrap();
    let provider = AzureProvider::new(world.options(), Arc::new(TokioRuntime)).unwrap();
    for fault in [
        Fault::throttled(Some(Duration::from_secs(1))),
        Fault::inner(409, "Conflict", "ObjectIsBeingRecovered"),
        Fault::answer(503, "ServiceUnavailable"),
        Fault::Drop,
        Fault::DropAnswer,
    ] {
        world.faults.next(1, &fault);
        round_trip(&provider, &world.key("k"), &user())
            .await
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
    }
}

/// What one process does with real credentials, which read the environment: this test, started again with it set.
///
/// Its output is a line per identity: the identity, then `ok` or how it failed.
#[allow(clippy::print_stdout, reason = "read by the test that started it")]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn child() {
    let Ok(key) = std::env::var("BULLA_TEST_KEY") else { return };
    let set = |name: &str| std::env::var(name).unwrap_or_default();
    let key: KeyId = key.parse().unwrap();
    let credentials = match set("BULLA_TEST_CREDENTIALS").as_str() {
        "managed" => Credentials::Managed,
        "workload" => Credentials::Workload,
        "developer" => Credentials::Developer,
        _ => Credentials::Automatic,
    };
    let options = AzureOptions {
        credentials,
        extra_hosts: vec![key.host().to_owned()],
        extra_ca_pem: fs::read(set("BULLA_TEST_CA")).unwrap(),
        connect_timeout: Duration::from_secs(1),
        give_up_after: Duration::from_secs(4),
        ..AzureOptions::default()
    };
    let provider = AzureProvider::new(options, Arc::new(TokioRuntime)).unwrap();
    for identity in set("BULLA_TEST_IDENTITIES").split(' ') {
        let identity: Identity = identity.parse().unwrap();
        let outcome = match round_trip(&provider, &key, &identity).await {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{:?}: {error}", error.kind()),
        };
        println!("\noutcome {identity} {outcome}");
    }
}

/// Runs [`child`]; the outcomes by identity.
fn run_child(world: &World, key: &str, identities: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let ca = world.folder.path().join("ca.pem");
    fs::write(&ca, &world.ca).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "real::child", "--nocapture"]);
    for (name, _) in std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("AZURE_") || name.starts_with("IDENTITY_") || name.starts_with("MSI_")
    }) {
        command.env_remove(name);
    }
    command.env("BULLA_TEST_KEY", world.key(key).to_string()).env("BULLA_TEST_IDENTITIES", identities);
    command.env("BULLA_TEST_CA", ca).envs(environment.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{stdout}\n{stderr}");
    assert!(!stdout.contains("eyJ") && !stderr.contains("eyJ"), "a token was printed: {stdout}\n{stderr}");
    let outcomes = stdout.lines().filter_map(|line| line.strip_prefix("outcome "));
    outcomes.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managed_identities_of_both_sorts() {
    let world = World::new().await;
    world.vault.create_key(&CreateKey::new("k", KeyKind::Rsa { bits: 2048 })).unwrap();
    let (endpoint, header) = world.identity.clone();
    let environment = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", header.as_str())];
    let run = |identities: &str, more: &[(&str, &str)]| {
        run_child(&world, "k", identities, &[&environment[..], more].concat())
    };
    let outcomes = run(&format!("system {USER} stranger"), &[]);
    assert_eq!(outcomes[..2], ["system ok".to_owned(), format!("{USER} ok")], "{outcomes:?}");
    assert!(outcomes[2].starts_with("stranger Denied(IdentityUnknown)"), "{outcomes:?}");
    // An App Service takes no resource ids from this SDK.
    let outcomes =
        run("/subscriptions/s/resourceGroups/g/providers/p/i", &[("BULLA_TEST_CREDENTIALS", "managed")]);
    assert!(outcomes[0].contains("Unavailable") && outcomes[0].contains("resource IDs"), "{outcomes:?}");
    // The identity is known, and may do nothing.
    world.vault.delete_policy(&Identity::System).unwrap();
    assert!(run("system", &[])[0].starts_with("system Denied(Forbidden)"));
    // The endpoint does not believe who asks; is in trouble, for a while and for good; is not there.
    let outcomes = run(USER, &[("IDENTITY_HEADER", "wrong")]);
    assert!(outcomes[0].contains("Denied(IdentityUnknown)"), "{outcomes:?}");
    world.token_faults.next(1, &Fault::answer(500, "InternalServerError"));
    assert_eq!(run(USER, &[]), [format!("{USER} ok")]);
    for fault in [Fault::answer(503, "ServiceUnavailable"), Fault::Hang, Fault::Drop] {
        world.token_faults.always(fault);
        let outcomes = run(USER, &[]);
        assert!(outcomes[0].contains(" Unavailable: "), "{outcomes:?}");
        world.token_faults.clear();
    }
    let outcomes = run(USER, &[("IDENTITY_ENDPOINT", "http://127.0.0.1:1/token")]);
    assert!(outcomes[0].contains(" Unavailable: the identity endpoint can't be reached"), "{outcomes:?}");
    // Never through a proxy, which would see the tokens.
    assert_eq!(
        run(USER, &[("HTTP_PROXY", "http://127.0.0.1:1"), ("http_proxy", "http://127.0.0.1:1")]),
        [format!("{USER} ok")]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workload_identity() {
    let world = World::new().await;
    world.vault.create_key(&CreateKey::new("k", KeyKind::Rsa { bits: 2048 })).unwrap();
    let federated = world.api.tokens().issue(&user(), &Audience::TokenExchange, HOUR);
    let file = world.folder.path().join("federated");
    fs::write(&file, federated.as_bytes()).unwrap();
    let (authority, tenant) = (format!("https://{}", world.host), world.api.tokens().tenant().to_owned());
    let environment = [
        ("AZURE_AUTHORITY_HOST", authority.as_str()),
        ("AZURE_TENANT_ID", tenant.as_str()),
        ("AZURE_CLIENT_ID", USER),
        ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap()),
    ];
    // The service account's own identity, the same by name, and one that it is not federated with.
    let outcomes = run_child(&world, "k", &format!("system {USER} another"), &environment);
    assert_eq!(outcomes[..2], ["system ok".to_owned(), format!("{USER} ok")], "{outcomes:?}");
    assert!(outcomes[2].starts_with("another Denied(IdentityUnknown)"), "{outcomes:?}");

    fs::remove_file(&file).unwrap();
    let outcomes = run_child(&world, "k", USER, &environment);
    assert!(
        outcomes[0].contains(" Unavailable: ") && outcomes[0].contains("AZURE_FEDERATED_TOKEN_FILE"),
        "{outcomes:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn developer_credentials_only_on_request() {
    let world = World::new().await;
    world.vault.create_key(&CreateKey::new("k", KeyKind::Rsa { bits: 2048 })).unwrap();
    // A stand-in for the Azure CLI, whose answer is all that is used of it.
    let token = world.api.tokens().issue(&user(), &Audience::Vault, HOUR);
    let bin = world.folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let az = bin.join("az");
    let answer = serde_json::json!({ "accessToken": &**token, "expires_on": 4_000_000_000_u64, "tokenType": "Bearer" });
    fs::write(&az, format!("#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&az, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let developer = ("BULLA_TEST_CREDENTIALS", "developer");
    assert_eq!(run_child(&world, "k", USER, &[("PATH", path.as_str()), developer]), [format!("{USER} ok")]);
    // Signed in or not, without being asked for it the CLI is not used.
    let outcomes = run_child(
        &world,
        "k",
        USER,
        &[("PATH", path.as_str()), ("IDENTITY_ENDPOINT", "http://127.0.0.1:1/"), ("IDENTITY_HEADER", "x")],
    );
    assert!(outcomes[0].contains(" Unavailable: the identity endpoint"), "{outcomes:?}");
    fs::write(&az, "#!/bin/sh\necho 'Please run az login to setup account.' >&2\nexit 1\n").unwrap();
    let outcomes = run_child(&world, "k", USER, &[("PATH", path.as_str()), developer]);
    assert!(outcomes[0].contains(" Unavailable: ") && outcomes[0].contains("`az login`"), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_are_counted() {
    let world = World::new().await;
    world.vault.create_key(&CreateKey::new("k", KeyKind::Rsa { bits: 2048 })).unwrap();
    let provider = AzureProvider::new(world.options(), Arc::new(TokioRuntime)).unwrap();
    let described = provider.describe(&world.key("k"), &user()).await.unwrap();
    let secret = Secret::random(&SystemRandom);
    let alg = described.kind.wrap_algorithm().unwrap();
    for _ in 0..100 {
        provider.wrap_key(&described.key, &user(), alg, &secret).await.unwrap();
    }
    assert_eq!(world.asked(), ["get", "unwrapKey"], "a hundred wraps, one proof");
}
