//! The job of a rewrap: begun once, gone on with, shared, and never believed where the count says otherwise.

use super::*;

/// The job of the rewrap that is under way: its key, its name, and what seals it.
struct JobPlace {
    key: String,
    name: String,
    header: EnvelopeHeader,
    root: Root,
}

impl JobPlace {
    async fn of(world: &World) -> Self {
        let root = root(world).await;
        let newest = world.keys("store").await.pop().unwrap();
        let record = UnverifiedRecord::decode(&world.read(&newest).await).unwrap().hint().clone();
        let key = record.store_keys.iter().find(|key| key.state == StoreKeyState::Active).unwrap();
        let name = format!("sweep:{}:store-key:{}", key.since, key.id);
        let header = EnvelopeHeader { store: record.store, root: record.roots[0].id };
        Self { key: root.name_key(JOB_KIND).job_key(&name), name, header, root }
    }

    fn seal(&self, sweep: Sweep) -> Vec<u8> {
        let crypto = bulla::CryptoProvider::best();
        let job = Job::Sweep(Box::new(sweep));
        job.seal(crypto, &self.root.meta_key(), self.header, &self.name, [9; 24]).unwrap()
    }

    fn open(&self, object: &[u8]) -> Sweep {
        let crypto = bulla::CryptoProvider::best();
        match Job::open(crypto, &self.root.meta_key(), self.header, &self.name, object).unwrap() {
            Job::Sweep(sweep) => *sweep,
            other => panic!("{other:?}"),
        }
    }
}

fn all_done() -> Sweep {
    let mut sweep = Sweep { waited: true, ..Sweep::new() };
    sweep.rows = [Row { next: 16, ..Row::default() }; 16];
    sweep
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_rewrap_is_gone_on_with_and_not_begun_anew() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    begin(&world).await;
    let key = active(&world.store).await;
    let (other, ..) = world.node(2).await;
    assert_eq!(get(&other, &put.digest).await.unwrap(), data(10));
    let done = rewrap(&other).await.unwrap();
    assert!(done.resumed);
    assert_eq!(done.to, format!("store-key:{key}"));
    assert_eq!(world.keys("store").await.len(), 3);
    // The next one is new.
    assert!(!rewrap(&other).await.unwrap().resumed);
}

#[tokio::test(start_paused = true)]
async fn what_was_waited_and_swept_before_is_not_done_again() {
    let world = World::new().await;
    for i in 0..50_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    // Dies on its way from the sweep to the record: the count is not kept.
    for attempt in 0..5 {
        let skip = usize::from(attempt == 0);
        world.script.before_nth(Op::Create, "store/", skip, || Some(broken_connection()));
    }
    assert_eq!(rewrap(&world.store).await.unwrap_err().kind(), ErrorKind::Unavailable);
    world.script.take_requests();
    let started = tokio::time::Instant::now();
    let done = rewrap(&world.store).await.unwrap();
    assert!(started.elapsed() < R / 2, "it waited again");
    assert_eq!(done.rewrapped, 0);
    // Read once more, to be counted; written no more.
    let requests = world.script.take_requests();
    assert_eq!((count(&requests, Op::Get, "blobs/"), count(&requests, Op::Update, "blobs/")), (50, 0));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_begin_at_once_one_begins_and_both_finish() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let (other, ..) = world.node(2).await;
    let (a, b) = tokio::join!(rewrap(&world.store), rewrap(&other));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((&a.to, a.rewrapped + b.rewrapped), (&b.to, 1));
    assert_eq!(world.keys("store").await.len(), 3);
    assert_eq!(get(&other, &put.digest).await.unwrap(), data(10));
}

#[tokio::test(start_paused = true)]
async fn several_nodes_share_a_sweep() {
    let world = World::new().await;
    for i in 0..200_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    begin(&world).await;
    let (b, ..) = world.node(2).await;
    let (c, ..) = world.node(3).await;
    // So slow that each has its part in it.
    let options = SweepOptions { rate: NonZeroU32::new(20), ..SweepOptions::default() };
    let run = async |store: &Store| store.rewrap(options, |_| {}).await.unwrap().rewrapped;
    let parts = tokio::join!(run(&world.store), run(&b), run(&c));
    assert_eq!(parts.0 + parts.1 + parts.2, 200, "{parts:?}");
    assert!([parts.0, parts.1, parts.2].iter().all(|part| *part > 20), "{parts:?}");
}

#[tokio::test(start_paused = true)]
async fn the_claim_of_a_node_that_died_is_taken_over() {
    let world = World::new().await;
    for i in 0..100_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    begin(&world).await;
    let place = JobPlace::of(&world).await;
    let now = bulla::kek::Runtime::now(&world.runtime).unix_ms();
    let mut sweep = Sweep { waited: true, ..Sweep::new() };
    sweep.rows = [Row { claim: Some(Claim { node: [1; 16], until: now + 15_000 }), ..Row::default() }; 16];
    world.write(&place.key, place.seal(sweep)).await;
    let started = tokio::time::Instant::now();
    assert_eq!(rewrap(&world.store).await.unwrap().rewrapped, 100);
    assert!((Duration::from_secs(14)..R).contains(&started.elapsed()), "{:?}", started.elapsed());
}

/// A node whose clock is a year ahead does not block the others for a year.
#[tokio::test(start_paused = true)]
async fn a_claim_made_under_a_wrong_clock_is_not_waited_for() {
    let world = World::new().await;
    world.put(&data(10)).await;
    begin(&world).await;
    let place = JobPlace::of(&world).await;
    let mut sweep = Sweep { waited: true, ..Sweep::new() };
    sweep.rows[3].claim = Some(Claim { node: [1; 16], until: 253_402_300_799_999 });
    world.write(&place.key, place.seal(sweep)).await;
    let done = tokio::time::timeout(R, rewrap(&world.store)).await;
    assert!(done.unwrap().is_ok());
}

/// A job object may be an old one that somebody put back, or lie: the count decides.
// FORMAT-P14
#[tokio::test(start_paused = true)]
async fn a_job_that_says_done_retires_nothing() {
    let world = World::new().await;
    world.put(&data(10)).await;
    begin(&world).await;
    let place = JobPlace::of(&world).await;
    world.write(&place.key, place.seal(all_done())).await;
    let (done, events) = watched(&world.store).await;
    let done = done.unwrap();
    assert_eq!((done.rewrapped, done.count.under(&done.from[0])), (1, 0));
    let counts: Vec<&Count> = events
        .iter()
        .filter_map(|event| if let SweepEvent::Counted(count) = event { Some(count) } else { None })
        .collect();
    assert_eq!(counts.len(), 2);
    assert!(!counts[0].is_safe_to_retire(&done.from[0]));
    assert!(counts[1].is_safe_to_retire(&done.from[0]));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cant_be_read_is_begun_anew() {
    for junk in [b"junk".to_vec(), Vec::new(), vec![0; 10_000]] {
        let world = World::new().await;
        world.put(&data(10)).await;
        begin(&world).await;
        let place = JobPlace::of(&world).await;
        world.write(&place.key, junk).await;
        assert_eq!(rewrap(&world.store).await.unwrap().rewrapped, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_later_version_is_left_alone() {
    let world = World::new().await;
    begin(&world).await;
    let place = JobPlace::of(&world).await;
    world.write(&place.key, vec![0x83, 0x02, 0x40, 0x40]).await;
    let error = rewrap(&world.store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn checkpoints_say_how_far_it_is() {
    let world = World::new().await;
    for i in 0..100_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    begin(&world).await;
    let options = SweepOptions { rate: NonZeroU32::new(5), ..SweepOptions::default() };
    // R passes, then half of the sweep.
    let cut = tokio::time::timeout(R + Duration::from_secs(10), world.store.rewrap(options, |_| {})).await;
    assert!(cut.is_err());
    let place = JobPlace::of(&world).await;
    let sweep = place.open(&world.read(&place.key).await);
    assert!(sweep.waited);
    let done: u64 = sweep.rows.iter().map(|row| row.rewrapped).sum();
    assert!((30..=55).contains(&done), "{done}");
    let rest = rewrap(&world.store).await.unwrap();
    assert!(rest.rewrapped <= 100 - done, "{} after {done}", rest.rewrapped);
}

// FORMAT-P4
#[tokio::test(start_paused = true)]
async fn after_any_failed_write_of_a_job_it_is_read_again() {
    for answer in [precondition as fn() -> object_store::Error, already_exists, broken_connection] {
        for applied in [true, false] {
            let world = World::new().await;
            world.put(&data(10)).await;
            for op in [Op::Create, Op::Update, Op::Update, Op::Update] {
                match applied {
                    true => world.script.after(op, "jobs/", move || Some(answer())),
                    false => world.script.before(op, "jobs/", move || Some(answer())),
                }
            }
            assert_eq!(rewrap(&world.store).await.unwrap().rewrapped, 1);
            assert!(world.script.is_done());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_by_sweep_and_count_alike() {
    let world = World::new().await;
    for i in 0..100_u32 {
        world.put(&i.to_be_bytes()).await;
    }
    begin(&world).await;
    pass(R).await;
    let place = JobPlace::of(&world).await;
    world.write(&place.key, place.seal(Sweep { waited: true, ..Sweep::new() })).await;
    let started = tokio::time::Instant::now();
    let options = SweepOptions { rate: NonZeroU32::new(10), concurrency: NonZeroUsize::new(64) };
    world.store.rewrap(options, |_| {}).await.unwrap();
    let took = started.elapsed();
    assert!((Duration::from_secs(18)..Duration::from_secs(30)).contains(&took), "{took:?}");
}
