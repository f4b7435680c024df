//! The lease: nothing unwrapped is used later than R after the last successful unwrap was sent.

use std::time::Duration;

use bulla::ErrorKind;
use bulla::KeyState;
use bulla::kek::DenyReason;
use bulla_testkit::provider::{Call, Trouble};
use bulla_testkit::scripted::Op;
use futures::TryStreamExt;

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

/// Reads once a second for a while; the kinds of what came back.
async fn traffic(world: &World, digest: &bulla::Digest, seconds: u32) -> Vec<Option<ErrorKind>> {
    let mut outcomes = Vec::new();
    for _ in 0..seconds {
        pass(SECOND).await;
        outcomes.push(get(&world.store, digest).await.err().map(|error| error.kind()));
    }
    outcomes
}

#[tokio::test(start_paused = true)]
async fn a_denial_ends_reads_and_writes_within_the_bound_and_restoring_heals() {
    for reason in
        [DenyReason::Forbidden, DenyReason::Disabled, DenyReason::Deleted, DenyReason::IdentityUnknown]
    {
        let world = World::new().await;
        let put = world.put(&data(10)).await;
        world.provider.deny("k", reason);
        let outcomes = traffic(&world, &put.digest, 60).await;
        // At the next renewal, R/2 later at the latest.
        assert_eq!(outcomes[31], Some(ErrorKind::Revoked), "{outcomes:?}");
        let error = get(&world.store, &put.digest).await.unwrap_err();
        assert_eq!(error.denied(), Some(reason));
        let error = world.store.put_bytes(data(5), bulla::PutOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Revoked);
        assert!(matches!(world.store.key_state(), KeyState::Revoked { .. }));
        world.provider.allow("k");
        // Re-probed every 15 s at the latest.
        pass(16 * SECOND).await;
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_lease_is_invisible() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    traffic(&world, &put.digest, 29).await;
    world.provider.set_down(true);
    let during = traffic(&world, &put.digest, 28).await;
    world.provider.set_down(false);
    let after = traffic(&world, &put.digest, 120).await;
    assert!(during.iter().chain(&after).all(Option::is_none), "{during:?} {after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_longer_outage_is_unavailable_not_revoked_and_heals() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.set_down(true);
    let during = traffic(&world, &put.digest, 70).await;
    assert_eq!(during[50], None);
    assert_eq!(during[61], Some(ErrorKind::Unavailable), "{during:?}");
    world.provider.set_down(false);
    pass(16 * SECOND).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
}

// FORMAT-P11
#[tokio::test(start_paused = true)]
async fn the_lease_counts_from_before_the_unwrap_was_sent() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.set_latency(20 * SECOND);
    traffic(&world, &put.digest, 55).await;
    let sent = world.provider.last_unwrap_sent().unwrap();
    world.provider.set_down(true);
    let mut last_success = sent;
    for _ in 0..200 {
        pass(SECOND / 2).await;
        if get(&world.store, &put.digest).await.is_ok() {
            last_success = bulla::kek::Runtime::now(&world.runtime);
        }
    }
    assert!(last_success.boot - sent.boot < R, "{:?}", last_success.boot - sent.boot);
}

#[tokio::test(start_paused = true)]
async fn an_idle_store_makes_no_calls() {
    let world = World::new().await;
    pass(R).await;
    let calls = world.provider.calls();
    world.script.take_requests();
    pass(100 * R).await;
    assert_eq!(world.provider.calls(), calls);
    assert_eq!(world.script.take_requests(), []);
}

#[tokio::test(start_paused = true)]
async fn any_traffic_costs_one_unwrap_and_one_describe_per_half_bound_and_a_put_none() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let before = world.provider.calls();
    for i in 0..600 {
        pass(SECOND).await;
        let reads = (0..20).map(|_| get(&world.store, &put.digest));
        assert!(futures::future::join_all(reads).await.iter().all(Result::is_ok));
        world.put(&i.to_string().into_bytes()).await;
    }
    let after = world.provider.calls();
    assert!(after.unwrap - before.unwrap <= 20, "{before:?} {after:?}");
    assert!(after.describe - before.describe <= 20);
    assert_eq!(after.wrap, before.wrap);
}

// FORMAT-P11
#[tokio::test(start_paused = true)]
async fn a_suspended_machine_wakes_without_a_lease() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.deny("k", DenyReason::Forbidden);
    world.runtime.suspend(R);
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::Revoked);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_ends_the_lease() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.deny("k", DenyReason::Forbidden);
    assert!(get(&world.store, &put.digest).await.is_ok());
    world.runtime.set_wall_back(10 * SECOND);
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::Revoked);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_forward_ends_the_lease() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.deny("k", DenyReason::Forbidden);
    world.runtime.set_wall_forward(R);
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::Revoked);
}

/// Running streams check per batch, after opening and before release.
#[tokio::test(start_paused = true)]
async fn streams_in_flight_stop() {
    let world = World::new().await;
    let put = world.put(&data(40 << 20)).await;
    let mut stream = world.store.get(&put.digest).await.unwrap().into_stream();
    stream.try_next().await.unwrap().unwrap();
    world.provider.deny("k", DenyReason::Forbidden);
    pass(R).await;
    assert_eq!(stream.try_next().await.unwrap_err().kind(), ErrorKind::Revoked);
}

/// Before "denied" counts, the log is read again: another node may have rotated, and the old key be disabled.
#[tokio::test(start_paused = true)]
async fn a_denial_of_a_key_that_another_node_rotated_away_does_not_count() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let (other, ..) = world.node(2).await;
    world.provider.new_version("new");
    // The rotation happens while the unwrap that will be denied is under way.
    let (provider, raw_other) = (world.provider.clone(), other.clone());
    pass(29 * SECOND).await;
    get(&world.store, &put.digest).await.unwrap();
    let options =
        bulla::RotateOptions { key: Some(bulla_testkit::provider::key_id("new")), ..Default::default() };
    world.provider.set_latency(2 * SECOND);
    let rotating = async {
        raw_other.rotate(options).await.unwrap();
        provider.deny("k", DenyReason::Disabled);
    };
    let reading = traffic(&world, &put.digest, 90);
    let (outcomes, ()) = tokio::join!(reading, rotating);
    assert!(outcomes.iter().all(Option::is_none), "{outcomes:?}");
}

/// The wipe at the lease's end does not wait for an answer, and neither do requests.
#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_is_unavailable_and_the_lease_ends_on_time() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.set_latency(3600 * SECOND);
    let outcomes = traffic(&world, &put.digest, 59).await;
    assert!(outcomes[..55].iter().all(Option::is_none), "{outcomes:?}");
    pass(10 * SECOND).await;
    let asked = tokio::time::Instant::now();
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(asked.elapsed() <= R);
    assert!(!matches!(world.store.key_state(), KeyState::Live { .. }));
    world.provider.set_latency(Duration::ZERO);
    pass(R).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
}

#[tokio::test(start_paused = true)]
async fn a_crowd_against_a_denied_key_asks_once() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.provider.deny("k", DenyReason::Forbidden);
    pass(2 * R).await;
    let before = world.provider.calls();
    let reads = (0..100).map(|_| get(&world.store, &put.digest));
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Revoked);
    }
    assert!(world.provider.calls().unwrap - before.unwrap <= 1);
}

#[tokio::test(start_paused = true)]
async fn an_expired_key_still_opens_and_status_warns() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let key = bulla_testkit::provider::key_id("k");
    let now = bulla::kek::Runtime::now(&world.runtime).wall;
    world.provider.set_expires(&key, Some(now));
    pass(2 * R).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
    let warnings = world.store.status().await.unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("expired")), "{warnings:?}");
}

#[tokio::test(start_paused = true)]
async fn an_expired_key_stops_new_writes() {
    let world = World::new().await;
    let now = bulla::kek::Runtime::now(&world.runtime).wall;
    world.provider.set_expires(&bulla_testkit::provider::key_id("k"), Some(now));
    pass(2 * R).await;
    let error = world.store.put_bytes(data(5), bulla::PutOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_closed_store_answers_nothing_and_asks_nobody() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.store.close().await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::Invalid);
    let calls = world.provider.calls();
    pass(10 * R).await;
    assert_eq!(world.provider.calls(), calls);
}

/// A renewal for nobody is not the reason for the next.
#[tokio::test(start_paused = true)]
async fn a_store_that_was_used_goes_idle_again() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    traffic(&world, &put.digest, 100).await;
    let used = world.provider.calls();
    pass(100 * R).await;
    let after = world.provider.calls();
    // One more for what was used since the last renewal.
    assert!(after.unwrap - used.unwrap <= 1 && after.describe - used.describe <= 1, "{used:?} {after:?}");
    assert_eq!(world.store.key_state(), KeyState::Expired);
}

/// Clients in a hurry hang up before the provider answers, again and again.
#[tokio::test(start_paused = true)]
async fn requests_that_are_given_up_ask_once_and_the_answer_counts() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    pass(2 * R).await;
    world.provider.set_latency(5 * SECOND);
    let before = world.provider.calls();
    let started = tokio::time::Instant::now();
    loop {
        match tokio::time::timeout(SECOND, get(&world.store, &put.digest)).await {
            Ok(read) => {
                read.unwrap();
                break;
            }
            Err(_) => assert!(started.elapsed() < 10 * SECOND, "no client ever hears an answer"),
        }
    }
    assert_eq!(world.provider.calls().unwrap - before.unwrap, 1);
}

/// The wipe at the lease's end waits neither for bucket nor provider, and a hanging bucket does not keep a live key's lease
/// from being renewed.
#[tokio::test(start_paused = true)]
async fn a_bucket_that_hangs_neither_ends_a_lease_nor_lengthens_it() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.script.set_hanging(Some("store/"));
    let outcomes = traffic(&world, &put.digest, 300).await;
    assert!(outcomes.iter().all(Option::is_none), "{outcomes:?}");

    world.provider.set_down(true);
    let mut watch = world.store.watch_key_state();
    let last = world.provider.last_unwrap_sent().unwrap();
    while !matches!(watch.changed().await.unwrap(), KeyState::Unavailable { .. }) {}
    let now = bulla::kek::Runtime::now(&world.runtime);
    assert_eq!(now.boot - last.boot, R, "told, and wiped, when it ended");
    world.provider.set_down(false);
    world.script.set_hanging(None);
    pass(16 * SECOND).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(10));
}

/// A refresh of the log that hangs holds up neither the renewals nor the wipe.
#[tokio::test(start_paused = true)]
async fn status_of_a_bucket_that_hangs_does_not_end_the_lease() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    world.script.set_hanging(Some("store/"));
    for _ in 0..20 {
        let (status, read) = tokio::join!(world.store.status(), get(&world.store, &put.digest));
        assert_eq!(status.unwrap_err().kind(), ErrorKind::Unavailable);
        read.unwrap();
    }
}

/// Whichever of the two calls says no, and whatever becomes of the other.
#[tokio::test(start_paused = true)]
async fn a_denial_beside_a_call_that_hangs_is_heard() {
    for (call, trouble) in [
        (Call::Unwrap, Trouble::Hangs),
        (Call::Unwrap, Trouble::Fails),
        (Call::Describe, Trouble::Hangs),
        (Call::Describe, Trouble::Fails),
    ] {
        let world = World::new().await;
        let put = world.put(&data(10)).await;
        world.provider.set_trouble(Some((call, trouble)));
        world.provider.deny("k", DenyReason::Forbidden);
        let outcomes = traffic(&world, &put.digest, 32).await;
        assert_eq!(outcomes[31], Some(ErrorKind::Revoked), "{call:?} {trouble:?} {outcomes:?}");
    }
}

/// What was said of a key holds until something else is said.
#[tokio::test(start_paused = true)]
async fn an_expired_key_that_can_not_be_described_now_still_takes_nothing_new() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let now = bulla::kek::Runtime::now(&world.runtime).wall;
    world.provider.set_expires(&bulla_testkit::provider::key_id("k"), Some(now));
    traffic(&world, &put.digest, 60).await;
    world.provider.set_trouble(Some((Call::Describe, Trouble::Fails)));
    let outcomes = traffic(&world, &put.digest, 300).await;
    assert!(outcomes.iter().all(Option::is_none), "only the unwrap counts for the lease: {outcomes:?}");
    let error = world.store.put_bytes(data(5), bulla::PutOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

/// Status, rotations and envelopes that do not open want a fresh view of the log: one read is fresh for all who wait.
#[tokio::test(start_paused = true)]
async fn a_crowd_that_wants_a_fresh_log_reads_it_once() {
    let world = World::new().await;
    world.script.set_latency(SECOND / 10);
    world.script.take_requests();
    let before = world.provider.calls();
    let all = (0..64).map(|_| world.store.status());
    assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
    // One that was sent when they called, and one after.
    assert!(world.count(Op::Get, "store/") <= 2);
    assert_eq!(world.provider.calls(), before);
}

/// A damaged log is read again and again, but its wraps are not shown to the provider by every request.
#[tokio::test(start_paused = true)]
async fn a_damaged_log_costs_no_more_calls_than_an_outage() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let (key, mut record) = next_record(&world, |_, _| {}).await;
    let last = record.len() - 1;
    record[last] ^= 1;
    world.write(&key, record).await;
    let before = world.provider.calls();
    for _ in 0..25 {
        pass(SECOND).await;
        let all = (0..20).map(|_| world.store.status());
        for status in futures::future::join_all(all).await {
            assert_eq!(status.unwrap_err().kind(), ErrorKind::Corrupt);
        }
        get(&world.store, &put.digest).await.unwrap();
    }
    let unwraps = world.provider.calls().unwrap - before.unwrap;
    assert!(unwraps <= 6, "{unwraps} unwraps in 25 s");
}

/// The log names two keys that are denied, one after the other; what the node knew before names one that is given back
/// meanwhile. Found by `promise`.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_given_back_between_two_questions_of_one_renewal_counts() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let (other, ..) = world.node(2).await;
    get(&other, &put.digest).await.unwrap();
    world.provider.new_version("new");
    fail_the_second_record(&world);
    assert!(world.rotate_to("new").await.is_err());
    world.provider.deny("k", DenyReason::Forbidden);
    world.provider.deny("new", DenyReason::Forbidden);
    world.provider.set_latency(SECOND);
    // Both of the log are asked from R/2 on, for a second each, and then the one that was known.
    pass(R / 2 + 5 * SECOND / 2).await;
    world.provider.allow("k");
    pass(SECOND).await;
    let report = other.key_report();
    assert!(matches!(report.state, KeyState::Live { outage_since: None, .. }), "{report:?}");
    assert_eq!(get(&other, &put.digest).await.unwrap(), data(10));
}
