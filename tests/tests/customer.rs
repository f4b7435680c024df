//! A customer who takes the key away in every way there is and gives it back, while 64 readers and writers share one store.
//!
//! ```text
//! test process    the vault behind Key Vault's REST API, over TLS: keys, policies, firewall, audit log, tokens
//!       ▲ HTTPS
//! the same test,  a store in a folder under that key, 32 readers, 32 writers, the provider for Key Vault with Microsoft's
//! started again   SDK and its credential for managed identities (which reads the environment: hence another process);
//!                 and the customer, who changes the vault's folder
//! ```
//!
//! A binary of its own, so that no other test has a part in its times. What is promised is measured so that a slow machine
//! can't break it: a reader notes the time *before* it asks for a piece, and that is later than R after the last unwrap only
//! if the piece was released later too.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "what was measured is for who runs it with --nocapture")]

#[path = "customer/clients.rs"]
mod clients;
#[path = "customer/evidence.rs"]
mod evidence;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bulla::kek::{DenyReason, Identity, KeyId, KeyKind, LeaseState, Providers, TokioRuntime};
use bulla::{
    CreateOptions, Digest, Engine, ErrorKind, Managed, Mode, Store, StoreUrl, VerifyEvent, VerifyOptions,
};
use bulla_kek::Observed;
use bulla_kek_azure::{AzureOptions, AzureProvider, Credentials};
use bulla_vault::{
    AttributeChanges, CreateKey, CreateVault, NetworkAction, NetworkRules, Passphrase, PassphraseCost,
    Permission, Vault,
};
use bulla_vault_server::{Api, ApiOptions, Server, ServerOptions};
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::clients::{Clients, Event, What};
use crate::evidence::{Audit, Clock, Heard, Listener, Unwrap, covered};

/// The promise to the customer.
const R: Duration = Duration::from_secs(2);
/// What a busy machine may need beyond what is promised, for things that are not the promise.
const SLACK: Duration = Duration::from_secs(10);

const KEY: &str = "registry";
/// The client id of a user-assigned identity.
const IDENTITY: &str = "5f0d3c1e-8a54-4b7c-9e0b-6f1f0c2a9d11";

fn identity() -> Identity {
    Identity::User(IDENTITY.into())
}

// ── The test process: the vault ──

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_later_than_promised_and_everything_comes_back() {
    let folder = TempDir::new().unwrap();
    let create =
        CreateVault { cost: PassphraseCost::MINIMAL, ..CreateVault::new(Passphrase::new("open sesame")) };
    let vault = Vault::create(folder.path().join("vault"), create).unwrap();
    vault.create_key(&CreateKey::new(KEY, KeyKind::Rsa { bits: 2048 })).unwrap();
    vault.set_policy(&identity(), &Permission::FOR_STORES).unwrap();
    let options = ApiOptions { identities: Some(BTreeSet::from([identity()])), ..ApiOptions::default() };
    let server =
        Server::bind(Api::new(vault, options).await.unwrap(), ServerOptions::default()).await.unwrap();
    let endpoint = server.identity().unwrap();
    let mut node = Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars_os() {
        // Azure's own variables would choose another credential.
        if ["AZURE_", "IDENTITY_", "MSI_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            node.env_remove(name);
        }
    }
    node.args(["--exact", "node", "--nocapture"])
        .env("IDENTITY_ENDPOINT", &endpoint.url)
        .env("IDENTITY_HEADER", &*endpoint.header)
        .env("BULLA_TEST_FOLDER", folder.path())
        .env("BULLA_TEST_HOST", server.url().strip_prefix("https://").unwrap())
        .env("BULLA_TEST_CA", server.certificate());
    drop(tokio::spawn(server.serve(std::future::pending())));
    let output = tokio::task::spawn_blocking(move || node.output().unwrap()).await.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("it holds"), "{stdout}\n{stderr}");
    println!("{stdout}");
}

// ── The test, started again: store, clients, customer ──

/// Does nothing unless started by the test above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() {
    let Some(folder) = std::env::var_os("BULLA_TEST_FOLDER") else { return };
    let set = |name: &str| std::env::var(name).unwrap();
    let folder = PathBuf::from(folder);
    let options = AzureOptions {
        credentials: Credentials::Managed,
        extra_hosts: vec![set("BULLA_TEST_HOST")],
        extra_ca_pem: std::fs::read(set("BULLA_TEST_CA")).unwrap(),
        ..AzureOptions::default()
    };
    let provider = Arc::new(AzureProvider::new(options, Arc::new(TokioRuntime)).unwrap());
    let clock = Clock::start();
    let heard = Arc::new(Heard { clock, unwraps: Mutex::default(), failures: Mutex::default() });
    let provider = Arc::new(Observed::new(provider, Listener(Arc::clone(&heard))));
    let engine = Engine::builder().providers(Providers::new().with(provider)).build();
    let create = CreateOptions {
        mode: Mode::Hierarchical,
        key: KeyId::key_vault(&set("BULLA_TEST_HOST"), KEY, None).unwrap(),
        identity: identity(),
        managed: Managed::Customer,
        revocation_bound: R,
        allow_unprotected_key: false,
        second: None,
    };
    let bucket = StoreUrl::parse(folder.join("store").to_str().unwrap()).unwrap().connect(true).unwrap();
    let store = engine.create(bucket, create).await.unwrap();
    let clients = Clients::start(&store, clock, 32, 32).await;

    // What managing a vault takes is its folder.
    let customer = Customer { vault: Vault::open(folder.join("vault"), None).unwrap(), clock };
    let mut outages = Vec::new();
    for way in WAYS {
        outages.push(customer.takes_away_and_gives_back(way, &store, &clients).await);
    }
    let expiry = customer.lets_it_expire(&clients).await;
    customer.can_not_decide(&clients).await;

    let ended = clock.now();
    let (events, acknowledged) = clients.stop().await;
    let unwraps = heard.unwraps.lock().unwrap().clone();
    let audit = Audit::read(&folder.join("vault/audit.jsonl"), clock);
    nothing_is_served_without_cover(&events, &unwraps, &audit);
    for outage in &outages {
        nothing_is_served_after_the_bound(&events, outage);
    }
    every_refusal_has_its_reason(&events, &expiry);
    the_owner_saw_everything(&audit);
    few_requests(&audit, ended, *heard.failures.lock().unwrap());
    nothing_acknowledged_is_lost(&store, acknowledged).await;
    store.close().await;
    println!("it holds");
}

// ── The customer ──

/// A way to take the key away, and how to give it back.
#[derive(Clone, Copy)]
struct Way {
    reason: DenyReason,
    take: fn(&Vault),
    give: fn(&Vault),
}

const WAYS: [Way; 4] = [
    Way {
        reason: DenyReason::Disabled,
        take: |vault| drop(vault.set_enabled(KEY, None, false).unwrap()),
        give: |vault| drop(vault.set_enabled(KEY, None, true).unwrap()),
    },
    Way {
        reason: DenyReason::Deleted,
        take: |vault| drop(vault.delete_key(KEY).unwrap()),
        give: |vault| drop(vault.recover_key(KEY).unwrap()),
    },
    Way {
        reason: DenyReason::Firewall,
        take: |vault| {
            let mut closed = NetworkRules::default();
            closed.default_action = NetworkAction::Deny;
            vault.set_network_rules(Some(closed)).unwrap();
        },
        give: |vault| vault.set_network_rules(None).unwrap(),
    },
    Way {
        reason: DenyReason::Forbidden,
        take: |vault| assert!(vault.delete_policy(&identity()).unwrap()),
        give: |vault| vault.set_policy(&identity(), &Permission::FOR_STORES).unwrap(),
    },
];

/// From when to when the key was taken away for certain.
#[derive(Debug)]
struct Outage {
    taken: Duration,
    giving: Duration,
    resumed: Duration,
}

struct Customer {
    vault: Vault,
    clock: Clock,
}

impl Customer {
    async fn takes_away_and_gives_back(&self, way: Way, store: &Store, clients: &Clients) -> Outage {
        clients.served(self.clock.now(), SLACK).await.expect("service");
        // Through a renewal or two.
        sleep(R).await;
        block_in_place(|| (way.take)(&self.vault));
        let taken = self.clock.now();
        sleep(R + R / 2).await;
        let state = store.key_state();
        assert!(
            matches!(state, LeaseState::Revoked { reason, .. } if reason == way.reason),
            "{:?}: {state:?}",
            way.reason
        );
        let giving = self.clock.now();
        block_in_place(|| (way.give)(&self.vault));
        let given = self.clock.now();
        // A denied key is probed every R/2: no restart, no call by anybody.
        let limit = R / 2 + SLACK;
        let resumed = clients.served(given, limit).await.expect("service resumes by itself");
        println!("{:?}: served again {:?} after it was given back", way.reason, resumed - given);
        Outage { taken, giving, resumed }
    }

    /// An expired key still opens what is there, and takes nothing new.
    async fn lets_it_expire(&self, clients: &Clients) -> Outage {
        let set = |expires| {
            let changes = AttributeChanges { expires: Some(expires), ..AttributeChanges::default() };
            block_in_place(|| self.vault.set_attributes(KEY, None, &changes).unwrap());
        };
        set(Some(SystemTime::now() - Duration::from_secs(3600)));
        let taken = self.clock.now();
        sleep(R + R / 2).await;
        let giving = self.clock.now();
        set(None);
        let given = self.clock.now();
        let resumed = clients.served(given, R / 2 + SLACK).await.expect("writes resume by themselves");
        Outage { taken, giving, resumed }
    }

    /// Off and on, faster than anybody can follow.
    async fn can_not_decide(&self, clients: &Clients) {
        for _ in 0..20 {
            for enabled in [false, true] {
                block_in_place(|| self.vault.set_enabled(KEY, None, enabled).unwrap());
                sleep(Duration::from_millis(70)).await;
            }
        }
        clients.served(self.clock.now(), R / 2 + SLACK).await.expect("service");
    }
}

// ── What must hold ──

/// The promise: no plaintext later than R after the last unwrap that was granted was sent, nor anything written. By the
/// node's own times, and by those of the vault's log, where a request arrives after it was sent.
fn nothing_is_served_without_cover(events: &[Event], unwraps: &[Unwrap], audit: &Audit) {
    // The log has times of day, which are adjusted now and then.
    let adjusted = R + Duration::from_millis(50);
    let served = || events.iter().filter(|event| event.refused.is_none());
    assert!(
        !served().all(|event| covered(unwraps, event.asked, event.got, R / 4)),
        "nothing could show here"
    );
    for event in served() {
        assert!(covered(unwraps, event.asked, event.got, R), "{event:?}");
        assert!(covered(&audit.unwraps, event.asked, event.got, adjusted), "by the audit log: {event:?}");
    }
}

/// As the customer has it: R after the key was taken away nothing is read or written until it is given back; and there was
/// somebody who tried.
fn nothing_is_served_after_the_bound(events: &[Event], outage: &Outage) {
    let within = |event: &&Event| event.asked > outage.taken + R && event.got < outage.giving;
    for event in events.iter().filter(within) {
        assert!(event.refused.is_some(), "{outage:?}: {event:?}");
    }
    for what in [What::Read, What::Write] {
        assert!(events.iter().filter(within).any(|event| event.what == what), "nobody tried: {outage:?}");
    }
}

/// A refusal says that the key was taken away or is out of reach; but for writes under an expired key.
fn every_refusal_has_its_reason(events: &[Event], expiry: &Outage) {
    let mut expired = 0;
    for event in events {
        match &event.refused {
            None | Some((ErrorKind::Revoked | ErrorKind::Unavailable, _)) => {}
            Some((ErrorKind::Invalid, message)) if message.contains("has expired") => {
                assert_eq!(event.what, What::Write, "{event:?}");
                assert!(event.got > expiry.taken && event.asked < expiry.resumed, "{event:?}");
                expired += 1;
            }
            Some(_) => panic!("{event:?}"),
        }
    }
    assert!(expired > 0, "nobody wrote under the expired key");
    let meanwhile = |event: &&Event| event.asked > expiry.taken + R && event.got < expiry.giving;
    let mut meanwhile = events.iter().filter(meanwhile).filter(|event| event.refused.is_none());
    assert!(meanwhile.all(|event| event.what == What::Read), "something was written under the expired key");
    assert!(
        events.iter().any(|event| {
            event.what == What::Read
                && event.refused.is_none()
                && event.asked > expiry.taken + R
                && event.got < expiry.giving
        }),
        "nothing was read under the expired key"
    );
}

fn the_owner_saw_everything(audit: &Audit) {
    for code in ["KeyDisabled", "KeyNotFound", "ForbiddenByFirewall", "ForbiddenByPolicy"] {
        assert!(audit.refusals.iter().any(|refusal| refusal == code), "{code}");
    }
}

/// With 64 clients at it: an unwrap and a describe per R/2, or for each probe of a denied key, which are up to a quarter
/// nearer together; one more where the key is taken away or given back; and where there was no answer, other tries.
fn few_requests(audit: &Audit, ended: Duration, failures: u32) {
    let pairs = ended.as_secs_f64() / (R / 2).mul_f64(0.75).as_secs_f64();
    let limit = pairs + 2.0 * (WAYS.len() as f64 + 2.0) + 3.0 * f64::from(failures);
    let (unwraps, describes) = (audit.unwraps.len(), audit.describes);
    println!("{unwraps} unwraps and {describes} describes in {ended:?}, of at most {limit}");
    assert!((unwraps as f64) <= limit && (describes as f64) <= limit, "{unwraps}, {describes}: {limit}");
}

async fn nothing_acknowledged_is_lost(store: &Store, acknowledged: Vec<Digest>) {
    let listed: Vec<_> = store.list().try_collect().await.unwrap();
    let listed: BTreeSet<String> = listed.into_iter().map(|entry| entry.digest.to_string()).collect();
    for digest in &acknowledged {
        assert!(listed.contains(&digest.to_string()), "{digest} was acknowledged and is gone");
    }
    let mut damaged = Vec::new();
    let report = store.verify(VerifyOptions { read: 1.0 }, |event| {
        if let VerifyEvent::Damaged(damage) = event {
            damaged.push(damage);
        }
    });
    let report = report.await.unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    println!("{} blobs acknowledged, {} there and sound", acknowledged.len(), report.blobs);
    assert!(report.blobs >= acknowledged.len() as u64);
}
