//! Names and passwords from a file of Apache's `htpasswd -B`: one `name:$2y$…` per line (bcrypt).
//!
//! ```text
//! Basic ─► right lately? wrong lately? ─► room to wait? ─► one of few at a time, on a thread of its own ─► bcrypt
//! ```
//!
//! Bcrypt is slow on purpose, so that a flood of guesses could keep every processor busy: few run at a time, few wait, and the rest
//! is told to come back. Who was right lately does not wait: his credentials are known by a keyed hash, never as they are.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderValue};
use bulla_listener::Watched;
use hmac::{Hmac, KeyInit, Mac};
use quick_cache::sync::Cache;
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::authorization::Basic;
use super::{Access, AccessError, Action, LOOK, Needs, Refused};

/// How long an answer is remembered.
const REMEMBER: Duration = Duration::from_secs(60);
/// How many of each kind.
const REMEMBERED: usize = 1024;
/// How many may wait for their password to be checked.
const WAITING: usize = 64;
/// Two to the 15th rounds take about two seconds; what is dearer was a mistake.
const COSTS: std::ops::RangeInclusive<u32> = 4..=15;
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Basic realm="bulla", charset="UTF-8""#);

/// Users with names and passwords. Everyone may pull, push, delete and list repositories, but for those who are read-only. The
/// file is read again when it changes, and counts from then on.
pub struct Htpasswd {
    users: Arc<Watched<Users>>,
    read_only: BTreeSet<String>,
    waiting: Semaphore,
    running: Arc<Semaphore>,
}

/// What the file says, and who was right or wrong by it lately.
struct Users {
    hashes: HashMap<String, String>,
    /// For those who are not in the file, to take as long.
    nobody: String,
    remembered: Remembered,
}

impl Htpasswd {
    /// The users in this file. Those in `read_only` may pull and list, and nothing else.
    ///
    /// # Errors
    /// If the file can't be read, a line has no bcrypt hash, or a read-only user is not in it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn load(file: PathBuf, read_only: BTreeSet<String>) -> Result<Self, AccessError> {
        let names = file.display().to_string();
        let users = tokio::task::spawn_blocking(move || {
            let started = AtomicBool::new(false);
            Watched::load(vec![file.clone()], move || {
                let text = match fs::read_to_string(&file) {
                    // Who takes the file away from a running server wants nobody to come.
                    Err(error) if error.kind() == ErrorKind::NotFound && started.load(Ordering::Relaxed) => {
                        String::new()
                    }
                    read => read.map_err(|error| {
                        AccessError::new(format!("the users' file {} can't be read", file.display()))
                            .because(error)
                    })?,
                };
                if started.swap(true, Ordering::Relaxed) && text.trim().is_empty() {
                    tracing::warn!(file = %file.display(), "the users' file is empty or gone: nobody is let in");
                    return Users::of(HashMap::new(), *COSTS.start())
                        .map_err(|why| AccessError::new(format!("{}: {why}", file.display())));
                }
                Users::parse(&text).map_err(|why| AccessError::new(format!("{}: {why}", file.display())))
            })
        });
        let users =
            users.await.map_err(|error| AccessError::new("the users could not be read").because(error))??;
        if let Some(name) = read_only.iter().find(|name| !users.get().hashes.contains_key(*name)) {
            return Err(AccessError::new(format!(
                "the read-only user {name} is not in {names}; add it there"
            )));
        }
        users.watch(LOOK);
        // Half of the processors are left for those who are known.
        let at_a_time = available_parallelism().map_or(1, |all| (all.get() / 2).max(1));
        let running = Arc::new(Semaphore::new(at_a_time));
        Ok(Self { users, read_only, waiting: Semaphore::new(WAITING), running })
    }

    /// Whether name and password belong together.
    async fn holds(&self, basic: Basic) -> Result<bool, Refused> {
        let users = self.users.get();
        let key = users.remembered.key(&basic);
        if let Some(known) = users.remembered.get(&key) {
            return Ok(known);
        }
        let _place = self.waiting.try_acquire().map_err(|_| Refused::TooMany { retry_after: 1 })?;
        let running = Arc::clone(&self.running).acquire_owned().await.expect("the semaphore is never closed");
        // The same credentials may have been checked meanwhile.
        if let Some(known) = users.remembered.get(&key) {
            return Ok(known);
        }
        let checked = tokio::task::spawn_blocking(move || {
            let holds = users.check(&basic);
            users.remembered.put(key, holds);
            // Here, not with the request: who hangs up has not stopped it.
            drop(running);
            holds
        });
        Ok(checked.await.unwrap_or(false))
    }
}

#[async_trait]
impl Access for Htpasswd {
    async fn check(&self, headers: &HeaderMap, needs: Needs<'_>) -> Result<(), Refused> {
        let unauthorized = || Refused::Unauthorized { challenge: CHALLENGE };
        let basic = Basic::parse(headers).ok_or_else(unauthorized)?;
        let name = basic.name().unwrap_or_default().to_owned();
        if !self.holds(basic).await? {
            return Err(unauthorized());
        }
        let changes = match needs {
            Needs::Login | Needs::Catalog | Needs::Repository { action: Action::Pull, .. } => false,
            Needs::Repository { action: Action::Push | Action::Delete, .. } | Needs::Mount { .. } => true,
        };
        if changes && self.read_only.contains(&name) { Err(Refused::Denied) } else { Ok(()) }
    }
}

impl fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Htpasswd").field("users", &self.users).finish_non_exhaustive()
    }
}

impl Users {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut hashes, mut dearest) = (HashMap::new(), *COSTS.start());
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) =
                line.split_once(':').ok_or_else(|| format!("line {number} is not NAME:HASH"))?;
            let cost = cost(hash).ok_or_else(|| {
                format!("line {number}: the password of {name} is not hashed with bcrypt; use `htpasswd -B`")
            })?;
            if !COSTS.contains(&cost) {
                let (least, most) = (COSTS.start(), COSTS.end());
                return Err(format!(
                    "line {number}: the cost of {name} is {cost}; use `htpasswd -B -C` {least} to {most}"
                ));
            }
            dearest = dearest.max(cost);
            if hashes.insert(name.to_owned(), hash.to_owned()).is_some() {
                return Err(format!("line {number}: {name} is there twice; remove one of them"));
            }
        }
        if hashes.is_empty() {
            return Err("there are no users in it; add one with `htpasswd -B`".to_owned());
        }
        Self::of(hashes, dearest)
    }

    fn of(hashes: HashMap<String, String>, dearest: u32) -> Result<Self, String> {
        let nobody = format!("$2y${dearest:02}${}", ".".repeat(53));
        Ok(Self { hashes, nobody, remembered: Remembered::new()? })
    }

    /// Blocks for as long as bcrypt takes, for known and unknown users alike.
    fn check(&self, basic: &Basic) -> bool {
        let hash = basic.name().and_then(|name| self.hashes.get(name));
        let holds = bcrypt::verify(basic.password(), hash.unwrap_or(&self.nobody)).unwrap_or(false);
        holds && hash.is_some()
    }
}

/// The cost of `$2y$COST$SALT+HASH`; `None` if it is something else.
fn cost(hash: &str) -> Option<u32> {
    let rest = ["$2y$", "$2b$", "$2a$"].iter().find_map(|version| hash.strip_prefix(version))?;
    let (cost, salted) = rest.split_once('$')?;
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
    let whole = cost.len() == 2 && salted.len() == 53 && salted.bytes().all(base64);
    // What the library can't decode would refuse the user for ever.
    (whole && hash.parse::<bcrypt::HashParts>().is_ok()).then(|| cost.parse().ok())?
}

/// Answers of the last minute, by HMAC-SHA-256 of name and password under a key that nobody has. Wrong ones can't drive out
/// right ones.
struct Remembered {
    key: Zeroizing<[u8; 32]>,
    right: Cache<[u8; 32], Instant>,
    wrong: Cache<[u8; 32], Instant>,
}

impl Remembered {
    fn new() -> Result<Self, String> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(|error| format!("the system has no random numbers: {error}"))?;
        Ok(Self { key, right: Cache::new(REMEMBERED), wrong: Cache::new(REMEMBERED) })
    }

    fn key(&self, basic: &Basic) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.key).expect("HMAC takes keys of any length");
        mac.update(basic.both());
        mac.finalize().into_bytes().into()
    }

    fn get(&self, key: &[u8; 32]) -> Option<bool> {
        let lately =
            |cache: &Cache<[u8; 32], Instant>| cache.get(key).is_some_and(|at| at.elapsed() < REMEMBER);
        if lately(&self.right) {
            return Some(true);
        }
        lately(&self.wrong).then_some(false)
    }

    fn put(&self, key: [u8; 32], holds: bool) {
        let cache = if holds { &self.right } else { &self.wrong };
        cache.insert(key, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `htpasswd -nbB -C 5 alice secret`
    const ALICE: &str = "alice:$2y$05$";

    #[test]
    fn files_are_understood_or_say_which_line_is_wrong() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let two = format!("# people\n\nalice:{hash}\r\n bob:{}\n", hash.replacen("$2b$", "$2y$", 1));
        assert_eq!(Users::parse(&two).unwrap().hashes.len(), 2);
        let dear = hash.replacen("$04$", "$16$", 1);
        for (text, why) in [
            (String::new(), "no users"),
            ("alice".to_owned(), "line 1"),
            ("alice:$apr1$x$y".to_owned(), "htpasswd -B"),
            ("alice:secret".to_owned(), "htpasswd -B"),
            (format!("{ALICE}short"), "htpasswd -B"),
            (format!("alice:{}", hash.replacen("$2b$", "$2x$", 1)), "htpasswd -B"),
            (format!("alice:{dear}"), "cost"),
            (format!("alice:{hash}\nalice:{hash}"), "twice"),
            (format!("alice:{}é", &hash[..58]), "htpasswd -B"),
        ] {
            let error = Users::parse(&text).err().unwrap();
            assert!(error.contains(why) && !error.contains(&hash), "{text}: {error}");
        }
    }

    /// At the start it is a mistake, later it is meant; half of a file changes nothing.
    #[tokio::test]
    async fn an_emptied_or_removed_file_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        let alice = format!("alice:{}\n", bcrypt::hash("secret", 4).unwrap());
        let load = || Htpasswd::load(file.clone(), BTreeSet::new());
        assert!(load().await.is_err());
        fs::write(&file, "").unwrap();
        assert!(load().await.is_err());
        fs::write(&file, &alice).unwrap();
        let access = load().await.unwrap();
        let count = || {
            access.users.look();
            access.users.get().hashes.len()
        };
        fs::write(&file, &alice[..20]).unwrap();
        assert_eq!(count(), 1);
        fs::write(&file, "").unwrap();
        assert_eq!(count(), 0);
        fs::write(&file, &alice).unwrap();
        assert_eq!(count(), 1);
        fs::remove_file(&file).unwrap();
        assert_eq!(count(), 0);
    }

    #[test]
    fn who_is_not_there_costs_as_much_as_who_is() {
        let users = Users::parse(&format!("alice:{}", bcrypt::hash("secret", 6).unwrap())).unwrap();
        assert_eq!(cost(&users.nobody), Some(6));
        // It is a hash that the library computes and compares, not one that it gives up on.
        assert!(!bcrypt::verify("secret", &users.nobody).unwrap());
    }
}
