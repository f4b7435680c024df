//! Events: every call, denial and rotation is told, once, to whoever listens, and nothing secret with it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulla::kek::{DenyReason, Identity, KekProvider, Providers};
use bulla::{Action, Engine, Event, EventSink, Outcome, Store};
use bulla_envelope::record::UnverifiedRecord;
use bulla_envelope::secret::Root;
use bulla_testkit::provider::{Calls, SimProvider, key_id};
use bulla_testkit::runtime::SimRuntime;
use bulla_testkit::scripted::ScriptedStore;
use object_store::memory::InMemory;

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

/// Hears everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<Event>>>);

impl EventSink for Heard {
    fn emit(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Heard {
    fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, action: Action) -> usize {
        self.all().iter().filter(|event| event.action == action).count()
    }

    fn only(&self, action: Action) -> Event {
        let mut found: Vec<Event> = self.all().into_iter().filter(|event| event.action == action).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    fn forget(&self) {
        self.0.lock().unwrap().clear();
    }

    fn calls(&self) -> Calls {
        let count = |action| u64::try_from(self.count(action)).unwrap();
        Calls { describe: count(Action::Describe), wrap: count(Action::Wrap), unwrap: count(Action::Unwrap) }
    }
}

/// A store whose engine is listened to from the beginning.
async fn listened() -> (World, Heard) {
    let runtime = SimRuntime::new(tokio::time::Instant::now(), 1);
    let raw = Arc::new(InMemory::new());
    let script = ScriptedStore::new(raw.clone());
    let provider = SimProvider::new(&runtime, "k");
    let heard = Heard::default();
    let engine = listening(&runtime, &provider, &heard);
    let store = engine.create(bucket(&script), create_options()).await.unwrap();
    (World { raw, script, provider, runtime, store }, heard)
}

fn listening(runtime: &SimRuntime, provider: &SimProvider, heard: &Heard) -> Engine {
    Engine::builder()
        .providers(Providers::new().with(Arc::new(provider.clone())))
        .runtime(Arc::new(runtime.clone()))
        .events(Arc::new(heard.clone()))
        .node("test-node")
        .gc_grace(GRACE)
        .build()
}

async fn traffic(store: &Store, seconds: u32) {
    let put = put(store, &data(10)).await;
    for _ in 0..seconds {
        pass(SECOND).await;
        let _ = get(store, &put.digest).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_provider_call_is_an_event() {
    let (world, heard) = listened().await;
    traffic(&world.store, 100).await;
    world.provider.new_version("k2");
    world.rotate_to("k2").await.unwrap();
    world.provider.deny("k2", DenyReason::Disabled);
    refused(&world, 70).await;
    world.provider.allow("k2");
    pass(20 * SECOND).await;
    traffic(&world.store, 40).await;
    let reopened = listening(&world.runtime, &world.provider, &heard);
    reopened.open(bucket(&world.script), world.pinned()).await.unwrap();
    assert_eq!(heard.calls(), world.provider.calls());
    assert!(heard.calls().unwrap > 5 && heard.calls().describe > 5 && heard.calls().wrap == 2);
}

/// Writes that may be refused.
async fn refused(world: &World, seconds: u32) {
    for _ in 0..seconds {
        pass(SECOND).await;
        let _ = world.store.put_bytes(data(3), bulla::PutOptions::default()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_says_who_which_version_how_it_ended_and_how_long_it_took() {
    let (world, heard) = listened().await;
    world.provider.set_latency(3 * SECOND);
    heard.forget();
    traffic(&world.store, 40).await;
    let unwrap = heard.all().into_iter().find(|event| event.action == Action::Unwrap).unwrap();
    assert_eq!(unwrap.outcome, Outcome::Done);
    assert_eq!(&*unwrap.node, "test-node");
    assert_eq!(unwrap.identity, Some(Identity::System));
    assert_eq!(unwrap.store, Some(world.store.id()));
    assert_eq!(unwrap.latency, 3 * SECOND);
    let [key] = &unwrap.keys[..] else { panic!("{unwrap:?}") };
    assert_eq!((key.name(), key.version().is_some()), ("k", true));
    let renewal = heard.all().into_iter().find(|event| event.action == Action::Renew).unwrap();
    assert_eq!((renewal.outcome, renewal.latency), (Outcome::Done, 3 * SECOND));
    assert_eq!(renewal.keys, unwrap.keys);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_is_an_event_too() {
    let (world, heard) = listened().await;
    heard.forget();
    world.provider.set_latency(2 * R);
    traffic(&world.store, 65).await;
    let given_up = heard.all().into_iter().find(|event| event.action == Action::Unwrap).unwrap();
    assert_eq!(given_up.outcome, Outcome::Unavailable);
    assert!(given_up.latency > 20 * SECOND && given_up.latency < R, "{given_up:?}");
}

#[tokio::test(start_paused = true)]
async fn a_denial_and_the_restoring_are_told_once_each() {
    let (world, heard) = listened().await;
    traffic(&world.store, 2).await;
    heard.forget();
    world.provider.deny("k", DenyReason::Forbidden);
    let digest = world.put(&data(20)).await.digest;
    for _ in 0..120 {
        pass(SECOND).await;
        let _ = get(&world.store, &digest).await;
    }
    let denial = heard.only(Action::Deny);
    assert_eq!((denial.outcome, denial.reason), (Outcome::Denied, Some(DenyReason::Forbidden)));
    assert_eq!(heard.count(Action::Restore), 0);
    // Requests meanwhile were refused, and probes came to nothing.
    let refused = |event: &Event| event.action == Action::Refuse && event.outcome == Outcome::Denied;
    assert!(heard.all().iter().filter(|event| refused(event)).count() > 50);
    assert!(heard.all().iter().any(|e| e.action == Action::Renew && e.outcome == Outcome::Denied));
    world.provider.allow("k");
    for _ in 0..60 {
        pass(SECOND).await;
        let _ = get(&world.store, &digest).await;
    }
    assert_eq!(heard.only(Action::Restore).outcome, Outcome::Done);
    assert_eq!(heard.count(Action::Deny), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_denial() {
    let (world, heard) = listened().await;
    world.provider.set_down(true);
    let digest = world.put(&data(20)).await.digest;
    for _ in 0..100 {
        pass(SECOND).await;
        let _ = get(&world.store, &digest).await;
    }
    world.provider.set_down(false);
    pass(20 * SECOND).await;
    get(&world.store, &digest).await.unwrap();
    assert_eq!((heard.count(Action::Deny), heard.count(Action::Restore)), (0, 0));
    assert!(heard.all().iter().any(|e| e.action == Action::Refuse && e.outcome == Outcome::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn a_rotation_is_told_in_steps_with_the_records_they_wrote() {
    let (world, heard) = listened().await;
    world.provider.new_version("k2");
    world.rotate_to("k2").await.unwrap();
    let (begin, end) = (heard.only(Action::RotateBegin), heard.only(Action::RotateEnd));
    assert_eq!((begin.log.unwrap().number, end.log.unwrap().number), (2, 3));
    assert_eq!((begin.keys[0].name(), end.keys[0].name()), ("k2", "k2"));
    assert_eq!((begin.outcome, end.outcome), (Outcome::Done, Outcome::Done));
    heard.forget();
    world.rotate_to("nowhere").await.unwrap_err();
    assert_eq!(heard.only(Action::RotateEnd).outcome, Outcome::Denied);
}

#[tokio::test(start_paused = true)]
async fn opening_and_being_refused_are_told() {
    let (world, heard) = listened().await;
    assert_eq!(heard.only(Action::Create).keys[0].name(), "k");
    let engine = listening(&world.runtime, &world.provider, &heard);
    engine.open(bucket(&world.script), world.pinned()).await.unwrap();
    let opened = heard.only(Action::Open);
    assert_eq!((opened.outcome, opened.store), (Outcome::Done, Some(world.store.id())));
    assert_eq!(opened.log, Some(world.store.mark()));
    heard.forget();
    let mut floor = world.pinned();
    floor.floor = Some(bulla::RecordMark { number: 1, hash: [7; 32] });
    engine.open(bucket(&world.script), floor).await.unwrap_err();
    assert_eq!(heard.only(Action::Open).outcome, Outcome::Corrupt);
}

#[tokio::test(start_paused = true)]
async fn no_event_contains_a_secret() {
    let (world, heard) = listened().await;
    world.provider.new_version("k2");
    traffic(&world.store, 40).await;
    world.provider.deny("k", DenyReason::Deleted);
    refused(&world, 70).await;
    world.provider.allow("k");
    pass(20 * SECOND).await;
    world.rotate_to("k2").await.unwrap();
    let record = UnverifiedRecord::decode(&world.read("store/00000001.cbor").await).unwrap();
    let wrap = &record.hint().roots[0].groups[0][0];
    let (key, alg) = (wrap.kid.parse().unwrap(), wrap.alg.parse().unwrap());
    let share = world.provider.unwrap_key(&key, &Identity::System, alg, &wrap.value).await.unwrap();
    let root = Root::join(&[share]).unwrap();
    let store_key = &record.hint().store_keys[0].value;
    let secrets: [Vec<u8>; 5] = [
        root.expose().to_vec(),
        root.record_key().expose().to_vec(),
        root.envelope_key().expose().to_vec(),
        root.store_key_wrapping_key().expose().to_vec(),
        store_key.to_vec(),
    ];
    let told: Vec<Action> = heard.all().iter().map(|event| event.action).collect();
    use Action::{Create, Deny, Describe, Refuse, Renew, Restore, RotateBegin, RotateEnd, Unwrap, Wrap};
    for action in [Create, Deny, Describe, Refuse, Renew, Restore, RotateBegin, RotateEnd, Unwrap, Wrap] {
        assert!(told.contains(&action), "{action:?} is missing");
    }
    for event in heard.all() {
        let shown = format!("{event:?} {event:#?}");
        for secret in &secrets {
            for form in forms(secret) {
                assert!(!shown.contains(&form), "{shown}");
            }
        }
    }
}

/// The beginning of a secret in the ways in which bytes get printed.
fn forms(secret: &[u8]) -> Vec<String> {
    let start = &secret[..8];
    let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{start:?}");
    let base64 = {
        // Without the last, partial character.
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bits = u64::from_be_bytes(start.try_into().unwrap());
        (0..10).map(|i| char::from(ALPHABET[usize::try_from(bits >> (58 - 6 * i) & 63).unwrap()])).collect()
    };
    vec![hex.to_uppercase(), hex, list.trim_matches(['[', ']']).to_owned(), base64]
}

/// Of a store of two parties, what opens it names both keys, and what each was asked names that one.
#[tokio::test(start_paused = true)]
async fn both_parties_keys_are_named() {
    let world = World::of_two_parties().await;
    let heard = Heard::default();
    let engine = listening(&world.runtime, &world.provider, &heard);
    let store = engine.open(bucket(&world.script), world.pinned()).await.unwrap();
    let names =
        |event: Event| -> Vec<String> { event.keys.iter().map(|key| key.name().to_owned()).collect() };
    assert_eq!(names(heard.only(Action::Open)), ["k", "c"]);
    let unwraps = heard.all().into_iter().filter(|event| event.action == Action::Unwrap);
    assert_eq!(unwraps.flat_map(names).collect::<Vec<_>>(), ["k", "c"]);
    heard.forget();
    world.provider.deny("c", DenyReason::Disabled);
    traffic(&store, 40).await;
    assert_eq!(names(heard.only(Action::Deny)), ["k", "c"]);
    let refused = |event: &Event| event.action == Action::Unwrap && event.outcome == Outcome::Denied;
    let refusals: Vec<Event> = heard.all().into_iter().filter(refused).collect();
    assert!(!refusals.is_empty());
    assert!(refusals.into_iter().all(|event| names(event) == ["c"]));
}

#[tokio::test(start_paused = true)]
async fn nodes_have_names_of_their_own() {
    let (world, _) = listened().await;
    let heard = Heard::default();
    for seed in 2..4 {
        let runtime = SimRuntime::new(tokio::time::Instant::now(), seed);
        let engine = Engine::builder()
            .providers(Providers::new().with(Arc::new(world.provider.clone())))
            .runtime(Arc::new(runtime))
            .events(Arc::new(heard.clone()))
            .build();
        engine.open(bucket(&world.script), world.pinned()).await.unwrap();
    }
    let opened: Vec<Event> = heard.all().into_iter().filter(|event| event.action == Action::Open).collect();
    assert_ne!(opened[0].node, opened[1].node);
    assert_eq!(key_id("k").name(), opened[0].keys[0].name());
}
