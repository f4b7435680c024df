//! The provider passes what every provider passes, on every kind of key that each module has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bulla_kek::conformance::{self, Fixture, FixtureError, Hooked, TestKey};
use bulla_kek::{Identity, KekProvider, KeyId, TokioRuntime, async_trait};
use bulla_kek_pkcs11::{PinSource, Pkcs11Options, Pkcs11Provider, UserPin};

use crate::token::{Kind, LABEL, PIN, Token, on_token};

struct TokenFixture {
    token: Token,
    provider: Arc<Pkcs11Provider>,
    /// What keys are made of: `aes`, `rsa`, and more words for `Token::manage`.
    words: &'static str,
    /// Whether the module keeps dates of such keys.
    dates: bool,
    keys: AtomicU32,
}

impl TokenFixture {
    fn new(token: Token, words: &'static str, dates: bool) -> Self {
        let pin = PinSource::value(UserPin::new(PIN.into()));
        let mut options = Pkcs11Options::new(&token.module, LABEL, pin);
        // The only OAEP of SoftHSM2.
        options.allow_oaep_sha1 = token.kind == Kind::SoftHsm;
        let provider = Arc::new(Pkcs11Provider::new(options, Arc::new(TokioRuntime)));
        Self { token, provider, words, dates, keys: AtomicU32::new(0) }
    }

    fn make(&self, label: &str, id: &str) {
        let (what, rest) = self.words.split_once(' ').unwrap_or((self.words, ""));
        self.token.manage(format!("{what} {label} {id} {rest}").trim());
    }

    fn date(&self, key: &TestKey, word: &str) -> Result<Hooked, FixtureError> {
        if !self.dates {
            return Ok(Hooked::NotSupported);
        }
        self.token.manage(&format!("set {} 01 {word}", key.key.name()));
        Ok(Hooked::Done)
    }
}

#[async_trait]
impl Fixture for TokenFixture {
    fn provider(&self) -> Arc<dyn KekProvider> {
        self.provider.clone()
    }

    async fn fresh_key(&self) -> Result<TestKey, FixtureError> {
        let name = format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed));
        self.make(&name, "01");
        Ok(TestKey { key: KeyId::pkcs11(LABEL, &name, None)?, identity: Identity::System })
    }

    async fn new_version(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.make(key.key.name(), "02");
        Ok(Hooked::Done)
    }

    async fn expire(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.date(key, "end=20200101")
    }

    async fn postpone(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.date(key, "start=20990101")
    }

    async fn cut_off(&self) -> Result<Hooked, FixtureError> {
        self.token.remove();
        Ok(Hooked::Done)
    }

    async fn reconnect(&self) -> Result<Hooked, FixtureError> {
        self.token.insert();
        Ok(Hooked::Done)
    }
}

/// What a token has no means for.
const NEVER: [&str; 4] = [
    "a disabled key does not unwrap, and does again when enabled",
    "a deleted key does nothing, and does again when recovered",
    "no access, no use; access restored, use restored",
    "a stranger has no access",
];
const DATES: [&str; 2] =
    ["an expired key unwraps and does not wrap", "a key that is not valid yet unwraps and does not wrap"];

fn conforms(test: &str, kind: Kind, words: &'static str, dates: bool) {
    on_token(test, kind, async |token| {
        let report = conformance::run(&TokenFixture::new(token, words, dates)).await;
        let report = report.unwrap_or_else(|failure| panic!("{failure}"));
        let expected = [NEVER.as_slice(), if dates { &[] } else { &DATES }].concat();
        assert_eq!(report.skipped, expected);
    });
}

#[test]
fn softhsm_aes_by_gcm() {
    conforms("conformance::softhsm_aes_by_gcm", Kind::SoftHsm, "aes", false);
}

#[test]
fn softhsm_aes_by_key_wrap() {
    conforms("conformance::softhsm_aes_by_key_wrap", Kind::SoftHsm, "aes no-encrypt no-decrypt", false);
}

/// SoftHSM2 reads the dates of public objects only.
#[test]
fn softhsm_aes_with_dates() {
    conforms("conformance::softhsm_aes_with_dates", Kind::SoftHsm, "aes public", true);
}

#[test]
fn softhsm_rsa_with_sha1_allowed() {
    conforms("conformance::softhsm_rsa_with_sha1_allowed", Kind::SoftHsm, "rsa", false);
}

#[test]
fn kryoptic_aes_by_key_wrap() {
    conforms("conformance::kryoptic_aes_by_key_wrap", Kind::Kryoptic, "aes", true);
}

#[test]
fn kryoptic_rsa() {
    conforms("conformance::kryoptic_rsa", Kind::Kryoptic, "rsa", true);
}

/// A key that only unwraps keys, as many HSMs want it.
#[test]
fn kryoptic_rsa_by_unwrap_key() {
    conforms("conformance::kryoptic_rsa_by_unwrap_key", Kind::Kryoptic, "rsa no-encrypt no-decrypt", true);
}
