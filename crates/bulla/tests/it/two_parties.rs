//! A store under the keys of two parties: both are needed, either one closes it, each rotates alone.

use std::time::Duration;

use bulla::kek::{DenyReason, Identity, KekProvider, Runtime};
use bulla::{ErrorKind, Managed, Mode, Party, RotateOptions};
use bulla_envelope::record::{LogRecord, PartyEntry, UnverifiedRecord};
use bulla_envelope::secret::Root;
use bulla_testkit::provider::{Call, key_id};
use bulla_testkit::scripted::Op;

use crate::support::{R, World, create_options, data, engine, fail_the_second_record, get, pass, second};

async fn newest(world: &World) -> LogRecord {
    let newest = world.keys("store").await.pop().unwrap();
    UnverifiedRecord::decode(&world.read(&newest).await).unwrap().hint().clone()
}

fn rotation(party: Party, name: &str) -> RotateOptions {
    RotateOptions { party, key: Some(key_id(name)), ..RotateOptions::default() }
}

/// FORMAT-K3: neither share says anything of the root.
#[tokio::test(start_paused = true)]
async fn both_keys_are_needed() {
    let world = World::of_two_parties().await;
    let put = world.put(&data(100)).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(100));
    world.reopen(world.pinned()).await.unwrap();

    let record = newest(&world).await;
    let [group] = &*record.roots[0].groups else { panic!("{record:?}") };
    let names: Vec<String> =
        group.iter().map(|wrap| wrap.kid.parse::<bulla::kek::KeyId>().unwrap().name().to_owned()).collect();
    assert_eq!(names, ["k", "c"]);
    let mut shares = Vec::new();
    for wrap in group {
        let (key, alg) = (wrap.kid.parse().unwrap(), wrap.alg.parse().unwrap());
        let share = world.provider.unwrap_key(&key, &Identity::System, alg, &wrap.value).await.unwrap();
        let alone = Root::join(std::slice::from_ref(&share)).unwrap();
        assert!(!alone.anchor().ct_eq(&world.store.anchor()));
        shares.push(share);
    }
    assert!(Root::join(&shares).unwrap().anchor().ct_eq(&world.store.anchor()));
}

#[tokio::test(start_paused = true)]
async fn either_party_closes_the_store_and_opens_it_again() {
    let world = World::of_two_parties().await;
    let put = world.put(&data(100)).await;
    for (name, party) in [("k", "first"), ("c", "second")] {
        world.provider.deny(name, DenyReason::Disabled);
        // The next renewal hears it, and does not wait for the lease's end.
        get(&world.store, &put.digest).await.unwrap();
        pass(R / 2 + Duration::from_secs(1)).await;
        let error = get(&world.store, &put.digest).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Revoked);
        assert_eq!(error.denied(), Some(DenyReason::Disabled));
        assert!(error.to_string().contains(&format!("of the {party} party")), "{error}");
        let error = world.reopen(world.pinned()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Revoked, "{error}");
        world.provider.allow(name);
        pass(R).await;
        assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(100));
    }
}

/// One party's outage hides no other party's word.
#[tokio::test(start_paused = true)]
async fn a_denial_counts_while_the_other_party_is_out_of_reach() {
    let world = World::of_two_parties().await;
    let put = world.put(&data(100)).await;
    world.provider.deny("c", DenyReason::Forbidden);
    world.provider.set_hanging("k", true);
    get(&world.store, &put.digest).await.unwrap();
    pass(R / 2 + Duration::from_secs(1)).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::Revoked);
}

/// Nothing is used longer than R after the *earlier* of the two unwraps that opened the root.
#[tokio::test(start_paused = true)]
async fn one_party_out_of_reach_ends_the_lease() {
    let world = World::of_two_parties().await;
    let put = world.put(&data(100)).await;
    get(&world.store, &put.digest).await.unwrap();
    world.provider.set_hanging("c", true);
    let sent = |name: &str| {
        let exchanges = world.provider.exchanges();
        let mut unwraps = exchanges.iter().filter(|it| it.call == Call::Unwrap && it.ok && it.key == name);
        unwraps.next_back().unwrap().sent.boot
    };
    let (mut read, before) = (0, sent("c"));
    for _ in 0..200 {
        pass(Duration::from_secs(1)).await;
        if get(&world.store, &put.digest).await.is_ok() {
            read += 1;
            assert!(world.runtime.now().boot - before < R);
        }
    }
    assert!(read > 20);
    assert!(sent("k") > before, "the other party was asked again, and answered");
    world.provider.set_hanging("c", false);
    pass(R).await;
    get(&world.store, &put.digest).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_asks_both_once() {
    let world = World::of_two_parties().await;
    let put = world.put(&data(100)).await;
    pass(2 * R).await;
    let before = world.provider.calls().unwrap;
    get(&world.store, &put.digest).await.unwrap();
    assert_eq!(world.provider.calls().unwrap - before, 2);
}

/// The other party's share is drawn anew with each group, under the key that it has.
#[tokio::test(start_paused = true)]
async fn each_party_rotates_alone() {
    let world = World::of_two_parties().await;
    let put = world.put(&data(100)).await;
    for name in ["k2", "c2"] {
        world.provider.new_version(name);
    }
    for (party, to, others) in [(Party::First, "k2", ["k2", "c"]), (Party::Second, "c2", ["k2", "c2"])] {
        let before = newest(&world).await;
        let rotated = world.store.rotate(rotation(party, to)).await.unwrap();
        assert!(rotated.changed);
        assert_eq!((rotated.party, rotated.to.name(), rotated.from.len()), (party, to, 1));
        let after = newest(&world).await;
        let [group] = &*after.roots[0].groups else { panic!("{after:?}") };
        for (wrap, name) in group.iter().zip(others) {
            assert_eq!(wrap.kid.parse::<bulla::kek::KeyId>().unwrap().name(), name);
            assert!(before.roots[0].groups[0].iter().all(|old| old.value != wrap.value), "a share was kept");
        }
        assert_eq!(after.keks.len(), 2);
        assert!(!world.store.rotate(rotation(party, to)).await.unwrap().changed, "it is there already");
    }
    for name in ["k", "c"] {
        world.provider.deny(name, DenyReason::Deleted);
    }
    pass(2 * R).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(100));
    let status = world.store.status().await.unwrap();
    let second = status.second.unwrap();
    assert!(status.key.contains("k2") && second.key.contains("c2"), "{} {}", status.key, second.key);
    assert!(second.follows_versions && second.kek.is_some());
}

#[tokio::test(start_paused = true)]
async fn identities_are_each_partys_own() {
    let world = World::of_two_parties().await;
    let put = world.put(&data(100)).await;
    let options = RotateOptions {
        party: Party::Second,
        identity: Some(Identity::User("escrow".to_owned())),
        ..RotateOptions::default()
    };
    assert!(world.store.rotate(options).await.unwrap().changed);
    world.provider.forbid("c", "system");
    pass(2 * R).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(100));
    let status = world.store.status().await.unwrap();
    assert_eq!(
        (status.identity, status.second.unwrap().identity),
        ("system".to_owned(), "escrow".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_rotation_leaves_both_ways_and_is_finished() {
    let world = World::of_two_parties().await;
    let put = world.put(&data(100)).await;
    world.provider.new_version("c2");
    fail_the_second_record(&world);
    world.store.rotate(rotation(Party::Second, "c2")).await.unwrap_err();
    assert_eq!(newest(&world).await.roots[0].groups.len(), 2);
    for closed in ["c", "c2"] {
        world.provider.deny(closed, DenyReason::Disabled);
        let other = world.reopen(world.pinned()).await.unwrap();
        assert_eq!(get(&other, &put.digest).await.unwrap(), data(100));
        world.provider.allow(closed);
    }
    world.provider.deny("k", DenyReason::Disabled);
    assert_eq!(world.reopen(world.pinned()).await.unwrap_err().kind(), ErrorKind::Revoked);
    world.provider.allow("k");
    pass(R).await;
    assert!(world.store.rotate(rotation(Party::Second, "c2")).await.unwrap().changed);
    let record = newest(&world).await;
    assert_eq!((record.roots[0].groups.len(), record.keks.len()), (1, 2));
}

/// The other party rotates from what opens, and the interrupted rotation still shows, and can still be finished.
#[tokio::test(start_paused = true)]
async fn an_interrupted_rotation_shows_when_the_other_party_has_rotated() {
    let world = World::of_two_parties().await;
    let put = world.put(&data(100)).await;
    for name in ["k2", "c2"] {
        world.provider.new_version(name);
    }
    fail_the_second_record(&world);
    world.store.rotate(rotation(Party::First, "k2")).await.unwrap_err();
    let error = world.store.rotate(rotation(Party::Second, "K2")).await.unwrap_err();
    assert!(error.to_string().contains("owner alone"), "{error}");
    // A node that is new goes by the new key, which opens as well.
    let (node, ..) = world.node(2).await;
    assert!(node.rotate(rotation(Party::Second, "c2")).await.unwrap().changed);
    let interrupted = |status: bulla::Status| status.warnings.iter().any(|it| it.contains("interrupted"));
    assert!(interrupted(world.store.status().await.unwrap()));
    assert!(world.store.rotate(rotation(Party::First, "k2")).await.unwrap().changed);
    let status = world.store.status().await.unwrap();
    assert!(status.key.contains("k2") && status.second.as_ref().unwrap().key.contains("c2"));
    assert!(!interrupted(status));
    world.provider.deny("k", DenyReason::Deleted);
    world.provider.deny("c", DenyReason::Deleted);
    pass(2 * R).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(100));
}

#[tokio::test(start_paused = true)]
async fn a_second_party_is_brought_in_and_needed_from_then_on() {
    let world = World::new().await;
    let put = world.put(&data(100)).await;
    let join = || RotateOptions { second: Some(second("c")), ..RotateOptions::default() };
    // Interrupted, the first alone still opens it; again, and it is done.
    fail_the_second_record(&world);
    world.store.rotate(join()).await.unwrap_err();
    world.provider.deny("c", DenyReason::Disabled);
    get(&world.reopen(world.pinned()).await.unwrap(), &put.digest).await.unwrap();
    world.provider.allow("c");
    let joined = world.store.rotate(join()).await.unwrap();
    assert!(joined.changed);
    assert_eq!((joined.party, joined.to.name()), (Party::Second, "c"));
    let record = newest(&world).await;
    let [group] = &*record.roots[0].groups else { panic!("{record:?}") };
    assert_eq!(group.len(), 2);
    assert!(!world.store.rotate(join()).await.unwrap().changed, "it is there already");
    world.provider.deny("c", DenyReason::Disabled);
    pass(2 * R).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::Revoked);
}

#[tokio::test(start_paused = true)]
async fn what_two_parties_can_not_be_is_refused() {
    let world = World::new().await;
    let create = async |change: &dyn Fn(&mut bulla::CreateOptions)| {
        let mut options = bulla::CreateOptions { second: Some(second("c")), ..create_options() };
        change(&mut options);
        let error = engine(&world.runtime, &world.provider).check(&options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    assert!(create(&|options| options.mode = Mode::Direct).await.contains("hierarchical"));
    assert!(create(&|options| options.managed = Managed::Service).await.contains("service-managed"));
    assert!(create(&|options| options.second = Some(second("k"))).await.contains("same key"));
    // Key vaults take names in any case.
    world.provider.new_version("K");
    assert!(create(&|options| options.second = Some(second("K"))).await.contains("same key"));

    let refused = async |options: RotateOptions| {
        let error = world.store.rotate(options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        error.to_string()
    };
    assert!(refused(rotation(Party::Second, "c")).await.contains("bring a second one in"));
    for same in ["k", "K"] {
        let same = RotateOptions { second: Some(second(same)), ..RotateOptions::default() };
        assert!(refused(same).await.contains("give the second one its own"));
    }
    let join = RotateOptions { second: Some(second("c")), ..RotateOptions::default() };
    world.store.rotate(join).await.unwrap();
    assert!(refused(rotation(Party::First, "c")).await.contains("owner alone"));
    assert!(refused(rotation(Party::Second, "k")).await.contains("owner alone"));
    assert!(refused(rotation(Party::Second, "K")).await.contains("owner alone"));
    world.provider.new_version("c2");
    let third = RotateOptions { second: Some(second("c2")), ..RotateOptions::default() };
    assert!(refused(third).await.contains("two parties already"));
}

#[tokio::test(start_paused = true)]
async fn an_expired_key_of_either_takes_nothing_new() {
    let world = World::of_two_parties().await;
    let put = world.put(&data(100)).await;
    let key = world.provider.describe(&key_id("c"), &Identity::System).await.unwrap().key;
    world.provider.set_expires(&key, Some(world.runtime.now().wall));
    pass(R).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), data(100));
    let error = world.store.put_bytes(data(10), bulla::PutOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("--party second"), "{error}");
    let status = world.store.status().await.unwrap();
    assert!(status.warnings.iter().any(|warning| warning.contains("second party has expired")));
}

/// Each party's new versions are followed.
#[tokio::test(start_paused = true)]
async fn new_versions_of_either_key_are_followed() {
    let world = World::of_two_parties().await;
    let (store, ..) = world.node(2).await;
    for name in ["c", "k"] {
        let version = world.provider.new_version(name);
        let begun = newest(&world).await.number;
        for _ in 0..70 {
            // In use.
            store.contains(&bulla::Digest::of(bulla::Algorithm::Sha256, b"x")).await.unwrap();
            pass(R).await;
        }
        let record = newest(&world).await;
        assert!(record.number > begun);
        assert!(record.keks.iter().any(|kek| kek.kid == version.to_string()), "{:?}", record.keks);
        assert_eq!(record.keks.len(), 2);
    }
}

/// FORMAT-L13: the format carries more parties than this version serves.
#[tokio::test(start_paused = true)]
async fn three_parties_are_refused_by_name() {
    let world = World::new().await;
    let (key, object) = crate::support::next_record(&world, |record, _| {
        let party =
            |name: &str| PartyEntry { identity: "system".to_owned(), key_id: key_id(name).to_string() };
        record.other_parties = vec![party("b"), party("c")];
    })
    .await;
    world.write(&key, object).await;
    let error = world.reopen(world.pinned()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("more than two parties"), "{error}");
    assert_eq!(world.count(Op::Create, "store/"), 0);
}
