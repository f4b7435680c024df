//! Verify: finds what is damaged, says which blob and which object, goes on, and changes nothing.

use bulla::{Damage, ErrorKind, PutOptions, Store, VerifyEvent, VerifyOptions, VerifyReport};
use bulla_envelope::record::stub;
use bulla_testkit::scripted::Op;

use crate::support::*;

async fn verify(store: &Store, read: f64) -> (bulla::Result<VerifyReport>, Vec<Damage>) {
    let mut damages = Vec::new();
    let report = store
        .verify(VerifyOptions { read }, |event| {
            if let VerifyEvent::Damaged(damage) = event {
                damages.push(damage);
            }
        })
        .await;
    (report, damages)
}

/// What is found where something is damaged.
async fn found(store: &Store, read: f64) -> Vec<Damage> {
    let (report, damages) = verify(store, read).await;
    assert_eq!(report.unwrap().damaged, damages.len() as u64);
    damages
}

#[tokio::test(start_paused = true)]
async fn a_sound_store_checks_out_and_nothing_is_changed() {
    let (world, objects) = clocked_world().await;
    for size in [0, 10, 65_536, 65_537, (4 << 20) + 1] {
        world.put(&data(size)).await;
    }
    let gone = world.put(&data(100_000)).await;
    world.store.delete(&gone.digest).await.unwrap();
    world.rotate_to("k").await.unwrap();
    let before = objects.objects();
    world.script.take_requests();
    for (read, blobs, bytes) in [(0.0, 0, 0), (1.0, 5, 10 + 65_536 + 65_537 + (4 << 20) + 1)] {
        let (report, damages) = verify(&world.store, read).await;
        let report = report.unwrap();
        assert_eq!((report.blobs, report.damaged, damages), (5, 0, vec![]));
        assert_eq!((report.read.objects, report.read.bytes), (blobs, bytes));
        assert_eq!((report.data.objects, report.unnamed.objects), (4, 1), "what was deleted waits for gc");
    }
    let requests = world.script.take_requests();
    assert!(requests.iter().all(|(op, _)| matches!(op, Op::Get | Op::Head | Op::List)), "{requests:?}");
    assert_eq!(objects.objects(), before);
}

#[tokio::test(start_paused = true)]
async fn without_reading_every_envelope_and_every_length_is_checked() {
    let (world, objects) = clocked_world().await;
    let a = world.put(&data(100_000)).await;
    let a_data = object_keys(&objects, "data/").pop().unwrap();
    let a_key = object_keys(&objects, "blobs/").pop().unwrap();
    world.put(&data(10)).await;
    let sound = stored(&objects, &a_data);
    for (damage, what) in [
        (None, "is missing"),
        (Some(sound.slice(..99)), "has 99 bytes instead of"),
        (Some([&sound[..], b"x"].concat().into()), "instead of"),
    ] {
        objects.tamper(&a_data, damage);
        let damages = found(&world.store, 0.0).await;
        assert_eq!((damages.len(), damages[0].digest.as_ref()), (1, Some(&a.digest)));
        assert_eq!(damages[0].object, a_data);
        assert!(damages[0].what.contains(what), "{damages:?}");
    }
    objects.tamper(&a_data, Some(sound));
    assert_eq!(found(&world.store, 0.0).await, []);
    let envelope = stored(&objects, &a_key);
    for damage in [b"damage".to_vec(), vec![7; (1 << 20) + 1]] {
        objects.tamper(&a_key, Some(damage.into()));
        let damages = found(&world.store, 0.0).await;
        assert_eq!((damages.len(), damages[0].digest.as_ref()), (1, Some(&a.digest)));
        assert_eq!(damages[0].object, a_key);
    }
    objects.tamper(&a_key, Some(envelope));
    objects.tamper("blobs/notes.txt", Some(b"remember the milk!!!".as_slice().into()));
    let damages = found(&world.store, 0.0).await;
    assert_eq!((damages.len(), damages[0].object.as_str()), (1, "blobs/notes.txt"));
}

#[tokio::test(start_paused = true)]
async fn reading_finds_a_changed_bit_and_names_blob_and_object() {
    let (world, objects) = clocked_world().await;
    let put = world.put(&large()).await;
    world.put(&data(200_000)).await;
    let names = object_keys(&objects, "data/");
    let mut of_put = Vec::new();
    for key in names {
        let sound = stored(&objects, &key);
        let mut bytes = sound.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        objects.tamper(&key, Some(bytes.into()));
        assert_eq!(found(&world.store, 0.0).await, []);
        let damages = found(&world.store, 1.0).await;
        assert_eq!((damages.len(), damages[0].object.as_str()), (1, key.as_str()));
        of_put.extend((damages[0].digest.as_ref() == Some(&put.digest)).then_some(()));
        objects.tamper(&key, Some(sound));
    }
    assert_eq!(of_put.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_after_damage_and_lists_each_blob() {
    let (world, objects) = clocked_world().await;
    let mut digests = Vec::new();
    for size in 0..20 {
        digests.push(world.put(&data(100_000 + size)).await.digest);
    }
    for key in object_keys(&objects, "data/") {
        objects.tamper(&key, None);
    }
    for read in [0.0, 1.0] {
        let mut damaged: Vec<_> =
            found(&world.store, read).await.into_iter().map(|damage| damage.digest.unwrap()).collect();
        damaged.sort();
        digests.sort();
        assert_eq!(damaged, digests);
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_is_about_that_share() {
    let (world, _objects) = clocked_world().await;
    for size in 0..200 {
        world.put(&data(1_000 + size)).await;
    }
    let report = verify(&world.store, 0.5).await.0.unwrap();
    assert!((60..140).contains(&report.read.objects), "{report:?}");
    for share in [-0.1, 1.1, f64::NAN] {
        assert_eq!(verify(&world.store, share).await.0.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

/// Deleted and collected between the look at the envelope and the look at the data.
#[tokio::test(start_paused = true)]
async fn a_blob_that_is_deleted_meanwhile_is_not_damaged() {
    let (world, objects) = clocked_world().await;
    world.put(&large()).await;
    let (key, all) = (object_keys(&objects, "blobs/").pop().unwrap(), objects.clone());
    world.script.after(Op::Get, "blobs/", move || {
        all.tamper(&key, None);
        for data in object_keys(&all, "data/") {
            all.tamper(&data, None);
        }
        None
    });
    assert_eq!(found(&world.store, 1.0).await, []);
    assert!(world.script.is_done());
}

/// … or replaced: the new data was not there yet when the data was listed.
#[tokio::test(start_paused = true)]
async fn a_blob_that_is_replaced_meanwhile_is_not_damaged() {
    let (world, objects) = clocked_world().await;
    world.put(&large()).await;
    let (before, key) = (object_keys(&objects, "data/"), object_keys(&objects, "blobs/").pop().unwrap());
    let envelope = stored(&objects, &key);
    let old: Vec<_> = before.iter().map(|key| (key.clone(), stored(&objects, key))).collect();
    for key in &before {
        objects.tamper(key, None);
    }
    assert!(world.put(&large()).await.created);
    let new: Vec<_> =
        object_keys(&objects, "data/").into_iter().map(|key| (key.clone(), stored(&objects, &key))).collect();
    let replaced = stored(&objects, &key);
    // Back to the first, and to the second again as soon as it was read.
    objects.tamper(&key, Some(envelope));
    for (key, _) in &new {
        objects.tamper(key, None);
    }
    for (key, bytes) in &old {
        objects.tamper(key, Some(bytes.clone()));
    }
    let all = objects.clone();
    world.script.after(Op::Get, "blobs/", move || {
        all.tamper(&key, Some(replaced));
        for (key, _) in &old {
            all.tamper(key, None);
        }
        for (key, bytes) in &new {
            all.tamper(key, Some(bytes.clone()));
        }
        None
    });
    assert_eq!(found(&world.store, 1.0).await, []);
    assert!(world.script.is_done());
}

#[tokio::test(start_paused = true)]
async fn the_log_is_checked_and_stubs_are_no_damage() {
    let (world, objects) = clocked_world().await;
    for key in ["k2", "k3"] {
        world.provider.new_version(key);
        world.rotate_to(key).await.unwrap();
    }
    let records = object_keys(&objects, "store/");
    assert_eq!(records.len(), 5);
    objects.tamper(&records[0], Some(stub().into()));
    let (report, damages) = verify(&world.store, 0.0).await;
    let report = report.unwrap();
    assert_eq!((report.log_records, report.log_stubs, damages), (5, 1, vec![]));
    objects.tamper(&records[1], None);
    objects.tamper(&records[2], Some(stored(&objects, &records[3])));
    objects.tamper("store/notes.txt", Some(b"x".as_slice().into()));
    let mut damages = found(&world.store, 0.0).await;
    damages.sort_by_key(|damage| damage.object.clone());
    let objects: Vec<&str> = damages.iter().map(|damage| damage.object.as_str()).collect();
    assert_eq!(objects, [records[1].as_str(), records[2].as_str(), "store/notes.txt"]);
    assert!(damages.iter().all(|damage| damage.digest.is_none()));
}

#[tokio::test(start_paused = true)]
async fn data_that_nobody_names_and_foreign_objects_are_told_as_information() {
    let (world, objects) = clocked_world().await;
    let mut upload = world.store.upload(PutOptions::default()).await.unwrap();
    upload.write(data(5 << 20).into()).await.unwrap();
    objects.tamper("data/readme", Some(b"123".as_slice().into()));
    pass(std::time::Duration::from_secs(1)).await;
    let (report, damages) = verify(&world.store, 1.0).await;
    let report = report.unwrap();
    assert_eq!((report.unnamed.objects, report.foreign.objects, damages), (1, 1, vec![]));
    assert_eq!(report.foreign_names, ["data/readme"]);
    upload.abort().await;
}

#[tokio::test(start_paused = true)]
async fn under_a_revoked_key_it_stops_with_revoked() {
    let (world, _objects) = clocked_world().await;
    for size in 0..50 {
        world.put(&data(100_000 + size)).await;
    }
    let (runtime, provider) = (world.runtime.clone(), world.provider.clone());
    world.script.after(Op::Get, "data/", move || {
        runtime.suspend(2 * R);
        provider.deny("k", bulla::kek::DenyReason::Forbidden);
        None
    });
    let (report, damages) = verify(&world.store, 1.0).await;
    assert_eq!((report.unwrap_err().kind(), damages), (ErrorKind::Revoked, vec![]));
}
