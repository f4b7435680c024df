use std::collections::BTreeSet;

use futures::TryStreamExt;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};

use super::*;

fn key(text: &str) -> Path {
    Path::from(text)
}

async fn put(store: &SimStore, text: &str, mode: PutMode) -> object_store::Result<UpdateVersion> {
    let payload = PutPayload::from(text.to_owned());
    store.put_opts(&key("count"), payload, PutOptions::from(mode)).await.map(UpdateVersion::from)
}

async fn read(store: &SimStore) -> object_store::Result<(String, UpdateVersion)> {
    let result = store.get_opts(&key("count"), GetOptions::default()).await?;
    let version = UpdateVersion { e_tag: result.meta.e_tag.clone(), version: None };
    Ok((String::from_utf8_lossy(&result.bytes().await?).into_owned(), version))
}

/// Counts up as a careful client does: after anything but success it looks whether its own text is there. With
/// ETags of content alone it has to be unique, or an old request of ours could apply a second time.
async fn count_up(store: &SimStore, runtime: &SimRuntime, times: u64) -> u64 {
    let mut done = 0;
    while done < times {
        let Ok((text, version)) = read(store).await else { continue };
        let count: u64 = text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let mut nonce = [0; 8];
        runtime.random().fill(&mut nonce);
        let next = format!("{} {nonce:02x?}", count + 1);
        if put(store, &next, PutMode::Update(version)).await.is_ok() {
            done += 1;
            continue;
        }
        // No definite answer. It may still be on its way, which our next read and update settle one way or the
        // other; until then nobody can say, so it does not count.
    }
    done
}

async fn counters(sim: &Simulation, faults: Faults) -> (u64, u64) {
    let first = sim.node("first");
    first
        .run({
            let store = first.store().clone();
            async move { put(&store, "0", PutMode::Create).await.map(drop) }
        })
        .await
        .expect("not killed")
        .expect("no faults yet");
    let nodes: Vec<_> = ["a", "b", "c"].iter().map(|name| sim.node(name)).collect();
    let work = nodes.iter().map(|node| {
        node.set_faults(faults.clone());
        let (store, runtime) = (node.store().clone(), node.runtime().clone());
        node.run(async move { count_up(&store, &runtime, 8).await })
    });
    let acknowledged = join_all(work).await.into_iter().map(|count| count.expect("not killed")).sum();
    let (text, _) = read(first.store()).await.expect("no faults");
    (acknowledged, text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0))
}

#[test]
fn no_acknowledged_write_is_lost() {
    for_each_seed(300, async |sim| {
        let faults = Faults::mixed(sim.random());
        let (acknowledged, counted) = counters(sim, faults).await;
        assert!(counted >= acknowledged, "{counted} of {acknowledged}");
    });
}

#[test]
fn without_faults_every_write_counts_once() {
    for_each_seed(100, async |sim| {
        let (acknowledged, counted) = counters(sim, Faults::SLOW).await;
        assert_eq!(counted, acknowledged);
    });
}

#[test]
fn a_seed_repeats_itself_and_another_differs() {
    let fingerprint = |seed| run_seed(seed, async |sim| counters(sim, Faults::mixed(sim.random())).await);
    let mut all = BTreeSet::new();
    for seed in 0..20 {
        let (counts, first) = fingerprint(seed);
        assert_eq!((counts, first), fingerprint(seed));
        all.insert(first);
    }
    assert_eq!(all.len(), 20);
}

/// The store makes mistakes that a careless client falls for: each kind is seen at least once.
#[test]
fn the_faults_happen() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        run_seed(seed, async |sim| {
            counters(sim, Faults::mixed(sim.random())).await;
            for line in sim.trace().last_lines() {
                for fate in ["LostRequest", "LostAnswer", "Retried", "Conflict", "Late", "BrokenRead"] {
                    if line.contains(fate) {
                        seen.insert(fate);
                    }
                }
            }
        });
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn a_retry_inside_turns_success_into_a_failed_condition() {
    run_seed(1, async |sim| {
        let node = sim.node("a");
        node.set_faults(Faults { retried: 1000, ..Faults::NONE });
        let created = put(node.store(), "1", PutMode::Create).await;
        assert!(matches!(created, Err(Error::AlreadyExists { .. })));
        let (text, version) = read(node.store()).await.expect("it is there");
        assert_eq!(text, "1");
        let updated = put(node.store(), "2", PutMode::Update(version)).await;
        assert!(matches!(updated, Err(Error::Precondition { .. })));
        assert_eq!(read(node.store()).await.expect("it is there").0, "2");
    });
}

#[test]
fn a_late_put_is_applied_after_its_error() {
    run_seed(1, async |sim| {
        let node = sim.node("a");
        node.set_faults(Faults { late: 1000, late_by: Duration::from_secs(9), ..Faults::NONE });
        assert!(put(node.store(), "1", PutMode::Create).await.is_err());
        sim.sleep(Duration::from_secs(10)).await;
        assert_eq!(read(node.store()).await.expect("it is there").0, "1");
    });
}

#[test]
fn a_crash_stops_the_node_between_any_two_requests() {
    let mut applied = BTreeSet::new();
    for seed in 0..50 {
        run_seed(seed, async |sim| {
            let node = sim.node("a");
            node.set_faults(Faults { lost_request: 300, ..Faults::SLOW });
            node.crash_after(3);
            let store = node.store().clone();
            let result = node.run(async move {
                for name in ["1", "2", "3", "4"] {
                    let _ = store.put(&key(name), "x".into()).await;
                }
            });
            assert!(result.await.is_none());
            assert_eq!(node.store().sent(), 3);
            sim.sleep(Duration::from_secs(60)).await;
            let again = sim.node("a");
            let names: Vec<_> =
                again.store().list(None).map_ok(|meta| meta.location).try_collect().await.expect("ok");
            assert!(!names.contains(&key("4")));
            applied.insert(names.contains(&key("3")));
        });
    }
    assert_eq!(applied.len(), 2, "the last request is sometimes applied and sometimes not");
}

#[test]
#[should_panic(expected = "seed 0 fails")]
fn a_failure_names_its_seed() {
    for_each_seed(3, async |_| panic!("as expected"));
}

#[test]
#[should_panic(expected = "background task")]
fn a_panic_in_the_background_is_a_failure() {
    run_seed(0, async |sim| {
        let node = sim.node("a");
        node.runtime().spawn(Box::pin(async { panic!("as expected") }));
        sim.sleep(Duration::from_secs(1)).await;
    });
}

#[test]
#[should_panic(expected = "never comes")]
fn waiting_for_ever_is_a_failure() {
    run_seed(0, async |_| std::future::pending::<()>().await);
}

#[test]
fn replays_name_the_test() {
    let command = replay(7, "simulation::tests::x");
    assert!(
        command.starts_with(
            "BULLA_SIM_SEED=7 cargo test -p bulla-testkit --lib -- --exact simulation::tests::x"
        )
    );
}

#[test]
fn clocks_jump_alone() {
    run_seed(0, async |sim| {
        let (a, b) = (sim.node("a"), sim.node("b"));
        let before = a.runtime().now();
        a.runtime().suspend(Duration::from_secs(100));
        a.runtime().set_wall_back(Duration::from_secs(30));
        let after = a.runtime().now();
        assert_eq!(after.boot - before.boot, Duration::from_secs(100));
        assert_eq!(after.wall.duration_since(before.wall).ok(), Some(Duration::from_secs(70)));
        assert_eq!(b.runtime().now().boot, before.boot);
    });
}
