//! Real tokens for tests: SoftHSM2 and Kryoptic, each test in a process of its own.
//!
//! A PKCS#11 library reads its configuration from the environment and is initialized once per process. So a test starts
//! itself again with the environment of a fresh token ([`on_token`]), and what is to happen to keys behind the provider's
//! back happens in yet another process ([`Token::manage`]), as another application would do it. The workspace's tests use
//! this file too.

#![allow(dead_code, reason = "two test binaries share this file, and not all of it")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::{AuthPin, Date};

pub(crate) const LABEL: &str = "Bulla Test";
pub(crate) const PIN: &str = "271828";
const SO_PIN: &str = "31415926";

/// In a child: the token's folder.
const FOLDER: &str = "BULLA_TEST_TOKEN";
/// In a managing child: what to do.
const MANAGE: &str = "BULLA_TEST_MANAGE";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    SoftHsm,
    Kryoptic,
}

/// A module's token in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) module: PathBuf,
    folder: PathBuf,
}

/// Runs `body` in a child process that has a fresh token for itself. `test` is the test's full name.
pub(crate) fn on_token(test: &str, kind: Kind, body: impl AsyncFnOnce(Token)) {
    if let Some(folder) = env::var_os(FOLDER) {
        let token = Token { kind, module: kind.module().unwrap(), folder: folder.into() };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(body(token));
        // Threads end before the exit handlers of the module's libraries run; a hanging one is not waited for.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(token) = Token::fresh(kind, folder.path()) else { return };
    let output = token.child(test).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "in the child: {}\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Kind {
    /// Where the library is: as `cargo xtask setup` says, or where Debian has it.
    fn module(self) -> Option<PathBuf> {
        let (variable, places): (_, &[&str]) = match self {
            Self::SoftHsm => (
                "BULLA_SOFTHSM2_MODULE",
                &["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm.so"],
            ),
            Self::Kryoptic => ("BULLA_KRYOPTIC_MODULE", &[]),
        };
        let set = env::var_os(variable).map(PathBuf::from);
        let found = set.or_else(|| places.iter().map(PathBuf::from).find(|path| path.is_file()));
        if found.is_none() {
            assert!(env::var_os("BULLA_NO_SKIPS").is_none_or(|value| value != "1"), "{self:?} is not there");
            #[allow(clippy::print_stdout, reason = "a test's output, which names what did not run")]
            {
                println!("SKIPPED: {variable} is not set; `cargo xtask test` installs {self:?}");
            }
        }
        found
    }
}

impl Token {
    /// An initialized token in a new folder; `None`, with a word about it, where the module is not installed.
    pub(crate) fn fresh(kind: Kind, folder: &Path) -> Option<Self> {
        let token = Self { kind, module: kind.module()?, folder: folder.to_owned() };
        fs::create_dir(token.tokens()).unwrap();
        let tokens = token.tokens().display().to_string();
        let conf = match kind {
            Kind::SoftHsm => format!("directories.tokendir = {tokens}\nobjectstore.backend = file\n"),
            Kind::Kryoptic => {
                format!("[[slots]]\nslot = 7\ndbtype = \"sqlite\"\ndbargs = \"{tokens}/token.sql\"\n")
            }
        };
        fs::write(folder.join("conf"), conf).unwrap();
        token.manage("init");
        Some(token)
    }

    /// The environment by which the module finds the token.
    pub(crate) fn environment(&self) -> (&'static str, PathBuf) {
        let name = match self.kind {
            Kind::SoftHsm => "SOFTHSM2_CONF",
            Kind::Kryoptic => "KRYOPTIC_CONF",
        };
        (name, self.folder.join("conf"))
    }

    /// A line more in the module's configuration, which it reads when it is initialized.
    pub(crate) fn configure(&self, line: &str) {
        let conf = self.folder.join("conf");
        let text = fs::read_to_string(&conf).unwrap();
        fs::write(conf, format!("{text}{line}\n")).unwrap();
    }

    /// Does something to the token in another process; see [`obey`] for the words.
    pub(crate) fn manage(&self, words: &str) {
        let output = self.child("token::manager").env(MANAGE, words).output().unwrap();
        assert!(output.status.success(), "{words}: {}", text(&output));
    }

    /// Takes the token away, as if it were pulled out.
    pub(crate) fn remove(&self) {
        match self.kind {
            Kind::SoftHsm => fs::rename(self.tokens(), self.away()).unwrap(),
            // Its file stays open, so moving it goes unnoticed.
            Kind::Kryoptic => {
                fs::copy(self.database(), self.away()).unwrap();
                fs::write(self.database(), b"").unwrap();
            }
        }
    }

    /// Undoes [`remove`](Self::remove).
    pub(crate) fn insert(&self) {
        match self.kind {
            Kind::SoftHsm => {
                // SoftHSM2 may have made an empty folder in the meantime.
                let _ = fs::remove_dir_all(self.tokens());
                fs::rename(self.away(), self.tokens()).unwrap();
            }
            // In one step, or it would be seen half there.
            Kind::Kryoptic => fs::rename(self.away(), self.database()).unwrap(),
        }
    }

    /// A file in the token's folder, for PINs and the like.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn tokens(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    fn away(&self) -> PathBuf {
        self.folder.join("away")
    }

    fn database(&self) -> PathBuf {
        self.tokens().join("token.sql")
    }

    /// This test binary again, running one test, on this token.
    fn child(&self, test: &str) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        let (name, value) = self.environment();
        command.args([test, "--exact", "--nocapture"]).env(name, value).env(FOLDER, &self.folder);
        let module = match self.kind {
            Kind::SoftHsm => "BULLA_SOFTHSM2_MODULE",
            Kind::Kryoptic => "BULLA_KRYOPTIC_MODULE",
        };
        command.env(module, &self.module).env("BULLA_TEST_MODULE", &self.module);
        command
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Not a test: what [`Token::manage`] runs in a process of its own.
#[test]
fn manager() {
    if let (Some(words), Some(module)) = (env::var_os(MANAGE), env::var_os("BULLA_TEST_MODULE")) {
        obey(Path::new(&module), words.to_str().unwrap());
    }
}

/// ```text
/// init                              a token with PINs
/// aes LABEL ID [WORD…]              an AES key; ID in hexadecimal or `none`
/// rsa LABEL ID [WORD…]              an RSA key pair
/// set LABEL ID WORD…                changes attributes of the secret or private key
/// destroy LABEL ID                  destroys every object of that label and id
/// pin OLD NEW                       changes the user's PIN
/// login                             logs in once
/// lock                              logs in with a wrong PIN until the token is locked
///
/// WORD of a new key: no-encrypt no-decrypt no-wrap no-unwrap public keep always only-gcm bits=N extractable plain
/// WORD of any key: start=YYYYMMDD end=YYYYMMDD confine may-decrypt may-unwrap stop-decrypt stop-unwrap
/// ```
fn obey(module: &Path, words: &str) {
    let pkcs11 = Pkcs11::new(module).unwrap();
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let words: Vec<&str> = words.split(' ').collect();
    if words[0] == "init" {
        let slot = pkcs11.get_slots_with_token().unwrap()[0];
        pkcs11.init_token(slot, &AuthPin::from(SO_PIN.to_owned()), LABEL).unwrap();
    }
    let slots = pkcs11.get_slots_with_token().unwrap();
    let slot = slots.into_iter().find(|slot| pkcs11.get_token_info(*slot).unwrap().label() == LABEL).unwrap();
    let session = pkcs11.open_rw_session(slot).unwrap();
    if words[0] == "init" {
        session.login(UserType::So, Some(&AuthPin::from(SO_PIN.to_owned()))).unwrap();
        session.init_pin(&AuthPin::from(PIN.to_owned())).unwrap();
        return;
    }
    let user = |pin: &str| session.login(UserType::User, Some(&AuthPin::from(pin.to_owned()))).unwrap();
    match words.as_slice() {
        ["pin", old, new] => {
            user(old);
            session.set_pin(&AuthPin::from((*old).to_owned()), &AuthPin::from((*new).to_owned())).unwrap();
        }
        ["login"] => user(PIN),
        ["lock"] => {
            while !pkcs11.get_token_info(slot).unwrap().user_pin_locked() {
                let _ = session.login(UserType::User, Some(&AuthPin::from("wrong PIN".to_owned())));
            }
        }
        [what @ ("aes" | "rsa"), label, id, rest @ ..] => {
            user(PIN);
            make(&session, what, label, id, rest);
        }
        ["set", label, id, rest @ ..] => {
            user(PIN);
            for class in [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY] {
                for object in session.find_objects(&of(label, id, Some(class))).unwrap() {
                    session.update_attributes(object, &attributes(rest)).unwrap();
                }
            }
        }
        ["destroy", label, id] => {
            user(PIN);
            for object in session.find_objects(&of(label, id, None)).unwrap() {
                session.destroy_object(object).unwrap();
            }
        }
        other => panic!("{other:?}"),
    }
}

fn of(label: &str, id: &str, class: Option<ObjectClass>) -> Vec<Attribute> {
    let mut template = vec![Attribute::Label(label.as_bytes().to_vec())];
    if id != "none" {
        template.push(Attribute::Id(bytes(id)));
    }
    template.extend(class.map(Attribute::Class));
    template
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn make(session: &Session, what: &str, label: &str, id: &str, words: &[&str]) {
    let number = |name: &str, default: u64| {
        words.iter().find_map(|word| word.strip_prefix(name)?.parse().ok()).unwrap_or(default)
    };
    let may = |name: &str| !words.contains(&format!("no-{name}").as_str());
    let mut key = of(label, id, None);
    key.extend([
        Attribute::Token(true),
        Attribute::Private(!words.contains(&"public")),
        Attribute::Sensitive(!words.contains(&"plain")),
        Attribute::Extractable(words.contains(&"extractable")),
        Attribute::Decrypt(may("decrypt")),
        Attribute::Unwrap(may("unwrap")),
    ]);
    key.extend(attributes(words));
    if what == "aes" {
        key.extend([Attribute::Encrypt(may("encrypt")), Attribute::Wrap(may("wrap"))]);
        key.push(Attribute::ValueLen((number("bits=", 256) / 8).into()));
        session.generate_key(&Mechanism::AesKeyGen, &key).unwrap();
        return;
    }
    let mut public = of(label, id, None);
    public.extend([
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Encrypt(may("encrypt")),
        Attribute::Wrap(may("wrap")),
        Attribute::ModulusBits(number("bits=", 2048).into()),
        Attribute::PublicExponent(vec![1, 0, 1]),
    ]);
    session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &key).unwrap();
}

/// The attributes that words other than `no-…` stand for.
fn attributes(words: &[&str]) -> Vec<Attribute> {
    let date = |text: &str| Date::new_from_str_slice(&text[..4], &text[4..6], &text[6..]).unwrap();
    let attribute = |word: &&str| match word.split_once('=') {
        Some(("start", day)) => Some(Attribute::StartDate(date(day))),
        Some(("end", day)) => Some(Attribute::EndDate(date(day))),
        _ => match *word {
            "confine" => Some(Attribute::Extractable(false)),
            "keep" => Some(Attribute::Destroyable(false)),
            "always" => Some(Attribute::AlwaysAuthenticate(true)),
            "only-gcm" => Some(Attribute::AllowedMechanisms(vec![MechanismType::AES_GCM])),
            "may-decrypt" => Some(Attribute::Decrypt(true)),
            "may-unwrap" => Some(Attribute::Unwrap(true)),
            "stop-decrypt" => Some(Attribute::Decrypt(false)),
            "stop-unwrap" => Some(Attribute::Unwrap(false)),
            _ => None,
        },
    };
    words.iter().filter_map(attribute).collect()
}
