//! The lease: what each event does, then any interleaving of them against a model that only knows the promise.

use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

const R: Duration = Duration::from_secs(60);

struct Fixed(u8);

impl RandomSource for Fixed {
    fn fill(&self, dest: &mut [u8]) {
        dest.fill(self.0);
    }
}

const LATEST: Fixed = Fixed(255);

fn at(seconds: u64) -> Now {
    let since = Duration::from_secs(seconds);
    Now { boot: since, wall: UNIX_EPOCH + Duration::from_secs(1_700_000_000) + since }
}

fn boot_at(boot: u64, wall: u64) -> Now {
    Now { boot: at(boot).boot, wall: at(wall).wall }
}

fn lease() -> Lease {
    Lease::new(LeaseOptions::default())
}

fn with_grace(seconds: u64) -> Lease {
    Lease::new(LeaseOptions { outage_grace: Duration::from_secs(seconds), ..LeaseOptions::default() })
}

/// An unwrap that is sent and answered at once.
fn renew(lease: &mut Lease, now: Now) {
    let probe = lease.start_probe(now);
    assert!(lease.granted(probe, now));
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn nothing_is_usable_before_the_first_grant() {
    let mut lease = lease();
    assert_eq!(lease.usable(at(0)), Err(LeaseEnd::Expired));
    assert_eq!(lease.state(at(0)), LeaseState::Expired);
    assert_eq!(lease.next(at(0)), Next::Idle);
}

#[test]
fn counts_from_before_the_request_was_sent() {
    let mut lease = lease();
    let probe = lease.start_probe(at(100));
    assert!(lease.granted(probe, at(150)));
    assert_eq!(lease.remaining(at(150)), Some(secs(10)));
    assert_eq!(lease.usable(at(159)), Ok(()));
    assert_eq!(lease.usable(at(160)), Err(LeaseEnd::Expired));
    assert_eq!(lease.usable(at(160)), Err(LeaseEnd::Expired), "an end is an end");
}

#[test]
fn an_answer_that_took_longer_than_r_grants_nothing() {
    let mut lease = lease();
    let probe = lease.start_probe(at(0));
    assert!(!lease.granted(probe, at(60)));
    assert_eq!(lease.usable(at(60)), Err(LeaseEnd::Expired));
}

#[test]
fn either_clock_ends_it() {
    // Suspended: the boot clock stood still, the wall clock did not, and the other way round.
    for now in [boot_at(1, 60), boot_at(60, 1)] {
        let mut lease = lease();
        renew(&mut lease, at(0));
        assert_eq!(lease.usable(now), Err(LeaseEnd::Expired), "{now:?}");
    }
}

#[test]
fn a_jump_back_of_either_clock_ends_it() {
    for back in [boot_at(31, 29), boot_at(29, 31)] {
        let mut lease = lease();
        renew(&mut lease, at(0));
        assert_eq!(lease.usable(at(30)), Ok(()));
        assert_eq!(lease.usable(back), Err(LeaseEnd::Expired), "{back:?}");
        assert_eq!(lease.usable(at(32)), Err(LeaseEnd::Expired), "and it stays ended");
    }
}

#[test]
fn a_request_sent_before_a_jump_back_grants_nothing() {
    let mut lease = lease();
    let probe = lease.start_probe(at(100));
    assert!(!lease.granted(probe, boot_at(101, 99)));
    let probe = lease.start_probe(boot_at(102, 100));
    assert!(lease.granted(probe, boot_at(102, 100)));
}

#[test]
fn renewal_is_due_at_half_while_in_use() {
    let mut lease = lease();
    renew(&mut lease, at(0));
    assert_eq!(lease.next(at(0)), Next::Wait(secs(60)), "unused: only its end is waited for");
    assert!(lease.note_use(at(10)), "the first use wakes the driver");
    assert!(!lease.note_use(at(11)));
    assert_eq!(lease.next(at(11)), Next::Wait(secs(19)));
    assert_eq!(lease.next(at(30)), Next::Probe);

    let probe = lease.start_probe(at(30));
    lease.note_use(at(31));
    assert!(lease.granted(probe, at(32)));
    assert_eq!(lease.next(at(59)), Next::Wait(secs(1)), "used while the request was under way");
    renew(&mut lease, at(60));
    assert_eq!(lease.next(at(90)), Next::Wait(secs(30)), "idle since: no request");
    assert!(lease.note_use(at(100)));
    assert_eq!(lease.next(at(100)), Next::Probe, "used again past the half");
}

#[test]
fn a_wall_clock_ahead_brings_the_renewal_forward() {
    let mut lease = lease();
    renew(&mut lease, at(0));
    lease.note_use(at(1));
    assert_eq!(lease.next(boot_at(2, 31)), Next::Probe);
}

#[test]
fn denial_acts_at_once_and_heals() {
    let mut lease = lease();
    renew(&mut lease, at(0));
    lease.denied(DenyReason::Disabled, at(10), &LATEST);
    assert_eq!(lease.usable(at(10)), Err(LeaseEnd::Revoked(DenyReason::Disabled)));
    assert_eq!(lease.next(at(10)), Next::Wait(secs(15)));
    assert_eq!(lease.next(at(25)), Next::Probe);
    lease.denied(DenyReason::Deleted, at(25), &LATEST);
    assert_eq!(
        lease.state(at(25)),
        LeaseState::Revoked { reason: DenyReason::Deleted, since: at(10).wall },
        "since the first refusal, for the last reason"
    );
    let probe = lease.start_probe(at(40));
    lease.unavailable(probe, None, at(41), &LATEST);
    assert_eq!(lease.usable(at(41)), Err(LeaseEnd::Revoked(DenyReason::Deleted)), "still what it said");
    renew(&mut lease, at(56));
    assert_eq!(lease.usable(at(56)), Ok(()));
}

#[test]
fn a_request_sent_before_a_denial_was_heard_does_not_resurrect() {
    let mut lease = lease();
    let early = lease.start_probe(at(0));
    let later = lease.start_probe(at(5));
    lease.denied(DenyReason::Forbidden, at(6), &LATEST);
    assert!(!lease.granted(early, at(7)));
    assert!(!lease.granted(later, at(7)));
    lease.unavailable(later, None, at(7), &LATEST);
    assert_eq!(lease.usable(at(7)), Err(LeaseEnd::Revoked(DenyReason::Forbidden)));
    renew(&mut lease, at(7));
    assert_eq!(lease.usable(at(7)), Ok(()), "sent after the denial, be it at the same instant");
}

#[test]
fn probes_of_a_revoked_key_have_jitter_and_a_ceiling() {
    for (bound, least, most) in [(60, 11_250, 15_000), (600, 11_250, 15_000), (4, 1_500, 2_000)] {
        let options = LeaseOptions { revocation_bound: secs(bound), ..LeaseOptions::default() };
        for (random, wait) in [(Fixed(0), least), (Fixed(255), most)] {
            let mut lease = Lease::new(options);
            lease.denied(DenyReason::Forbidden, at(0), &random);
            assert_eq!(lease.next(at(0)), Next::Wait(Duration::from_millis(wait)));
        }
    }
}

#[test]
fn an_outage_is_endured_until_the_lease_ends() {
    let mut lease = lease();
    renew(&mut lease, at(0));
    lease.note_use(at(1));
    let probe = lease.start_probe(at(30));
    lease.unavailable(probe, None, at(31), &LATEST);
    assert_eq!(lease.next(at(31)), Next::Wait(Duration::from_millis(7_250)), "a few more attempts");
    assert_eq!(lease.usable(at(56)), Ok(()));
    let probe = lease.start_probe(at(56));
    lease.unavailable(probe, None, at(56), &LATEST);
    assert_eq!(lease.next(at(56)), Next::Wait(secs(1)), "more often towards the end");
    let LeaseState::Live { outage_since, .. } = lease.state(at(59)) else { panic!("live") };
    assert_eq!(outage_since, Some(at(31).wall));
    assert_eq!(lease.usable(at(60)), Err(LeaseEnd::Unavailable));
    assert_eq!(lease.state(at(60)), LeaseState::Unavailable { since: at(31).wall });
    assert_eq!(lease.next(at(60)), Next::Probe, "and asked again by itself");
    renew(&mut lease, at(61));
    assert_eq!(lease.usable(at(61)), Ok(()));
}

#[test]
fn an_older_requests_failure_is_no_outage() {
    let mut lease = with_grace(100);
    let older = lease.start_probe(at(0));
    renew(&mut lease, at(1));
    lease.unavailable(older, None, at(2), &LATEST);
    assert_eq!(lease.usable(at(61)), Err(LeaseEnd::Expired), "no grace without an outage");
}

#[test]
fn the_providers_wish_is_heard_within_reason() {
    for (wish, wait) in [(1, 7_250), (20, 20_000), (3600, 29_000)] {
        let mut lease = lease();
        renew(&mut lease, at(0));
        let probe = lease.start_probe(at(30));
        lease.unavailable(probe, Some(secs(wish)), at(31), &LATEST);
        assert_eq!(lease.next(at(31)), Next::Wait(Duration::from_millis(wait)), "or the lease's end");
    }
}

#[test]
fn grace_is_for_outages_only() {
    let mut lease = with_grace(30);
    renew(&mut lease, at(0));
    assert_eq!(lease.usable(at(60)), Err(LeaseEnd::Expired), "idle: none");

    renew(&mut lease, at(100));
    let probe = lease.start_probe(at(130));
    lease.unavailable(probe, None, at(131), &LATEST);
    assert_eq!(lease.usable(at(189)), Ok(()));
    assert_eq!(lease.usable(at(190)), Err(LeaseEnd::Unavailable));

    renew(&mut lease, at(200));
    let probe = lease.start_probe(at(230));
    lease.unavailable(probe, None, at(231), &LATEST);
    lease.denied(DenyReason::Forbidden, at(265), &LATEST);
    assert_eq!(lease.usable(at(265)), Err(LeaseEnd::Revoked(DenyReason::Forbidden)), "denied: none");
}

#[test]
fn grace_is_not_for_what_is_not_the_providers() {
    let mut lease = with_grace(30);
    renew(&mut lease, at(0));
    let probe = lease.start_probe(at(30));
    lease.blocked(probe, at(31), &LATEST);
    assert_eq!(lease.next(at(31)), Next::Wait(Duration::from_millis(7_250)), "tried again all the same");
    lease.unavailable(probe, None, at(40), &LATEST);
    assert_eq!(lease.usable(at(59)), Ok(()));
    assert_eq!(lease.usable(at(60)), Err(LeaseEnd::Unavailable), "a later outage does not bring grace back");
    renew(&mut lease, at(61));
    let probe = lease.start_probe(at(91));
    lease.unavailable(probe, None, at(91), &LATEST);
    assert_eq!(lease.usable(at(122)), Ok(()), "a success does");
}

#[test]
fn says_when_it_asks_next() {
    let mut lease = lease();
    assert_eq!(lease.next_probe(at(0)), None, "when somebody needs the key");
    renew(&mut lease, at(0));
    assert_eq!(lease.next_probe(at(1)), None, "unused");
    lease.note_use(at(1));
    assert_eq!(lease.next_probe(at(1)), Some(at(30).wall));
    let probe = lease.start_probe(at(30));
    lease.unavailable(probe, Some(secs(50)), at(31), &LATEST);
    assert_eq!(lease.next_probe(at(31)), Some(at(81).wall), "after the lease's end");
    lease.denied(DenyReason::Forbidden, at(40), &LATEST);
    assert_eq!(lease.next_probe(at(41)), Some(at(55).wall));
    assert_eq!(lease.next_probe(at(56)), Some(at(56).wall), "now");
}

#[test]
fn grace_does_not_bring_back_what_ended() {
    let mut lease = with_grace(1000);
    renew(&mut lease, at(0));
    let probe = lease.start_probe(at(30));
    lease.unavailable(probe, None, at(61), &LATEST);
    assert_eq!(lease.usable(at(61)), Err(LeaseEnd::Unavailable), "the failure came after the end");
}

#[test]
fn a_shorter_bound_acts_at_once() {
    let mut lease = lease();
    renew(&mut lease, at(0));
    lease.set_options(LeaseOptions { revocation_bound: secs(5), ..LeaseOptions::default() });
    assert_eq!(lease.usable(at(5)), Err(LeaseEnd::Expired));
}

#[derive(Debug, Clone)]
enum Event {
    /// Both clocks go on, by milliseconds; the wall clock may do something else.
    Pass {
        boot: i64,
        wall: i64,
    },
    Send,
    /// The answer to one of the requests under way.
    Grant(prop::sample::Index),
    Fail(prop::sample::Index),
    Block(prop::sample::Index),
    Deny,
    Use,
    Look,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..40_000i64).prop_map(|ms| Event::Pass { boot: ms, wall: ms }),
        // A suspend that the boot clock did not see, a clock that was set.
        1 => (0..100i64, -90_000..200_000i64).prop_map(|(boot, wall)| Event::Pass { boot, wall }),
        // A machine that was moved or put back to a snapshot.
        1 => (-90_000..200_000i64, 0..100i64).prop_map(|(boot, wall)| Event::Pass { boot, wall }),
        4 => Just(Event::Send),
        5 => any::<prop::sample::Index>().prop_map(Event::Grant),
        2 => any::<prop::sample::Index>().prop_map(Event::Fail),
        1 => any::<prop::sample::Index>().prop_map(Event::Block),
        1 => Just(Event::Deny),
        2 => Just(Event::Use),
        3 => Just(Event::Look),
    ]
}

/// Knows the promise, not the machine: successes, when each was sent, and what makes them worthless.
#[derive(Default)]
struct Model {
    /// Sent, and the number of refusals and jumps before.
    under_way: Vec<(Probe, Now, usize)>,
    successes: Vec<(Now, usize)>,
    breaks: usize,
    last: Option<Now>,
    denied: bool,
}

impl Model {
    /// Whether some success still covers `now` for `bound`.
    fn covers(&self, now: Now, bound: Duration) -> bool {
        !self.denied
            && self.successes.iter().any(|(sent, breaks)| {
                *breaks == self.breaks
                    && now.boot - sent.boot < bound
                    && now.wall.duration_since(sent.wall).is_ok_and(|age| age < bound)
            })
    }

    fn tick(&mut self, now: Now) {
        if self.last.is_some_and(|last| now.wall < last.wall || now.boot < last.boot) {
            self.breaks += 1;
        }
        self.last = Some(now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_promise_holds_in_any_order(
        events in prop::collection::vec(any_event(), 1..80), grace in prop_oneof![Just(0u64), 1..100u64],
    ) {
        let mut lease = with_grace(grace);
        let mut model = Model::default();
        let mut now = at(10_000);
        for event in events {
            model.tick(now);
            match event {
                Event::Pass { boot, wall } => {
                    let by = Duration::from_millis(boot.unsigned_abs());
                    now.boot = if boot < 0 { now.boot - by } else { now.boot + by };
                    let by = Duration::from_millis(wall.unsigned_abs());
                    now.wall = if wall < 0 { now.wall - by } else { now.wall + by };
                    model.tick(now);
                }
                Event::Send => {
                    let probe = lease.start_probe(now);
                    prop_assert_eq!(probe.sent_at(), now);
                    model.under_way.push((probe, now, model.breaks));
                }
                Event::Grant(which) if !model.under_way.is_empty() => {
                    let (probe, sent, breaks) =
                        model.under_way.swap_remove(which.index(model.under_way.len()));
                    let counted = lease.granted(probe, now);
                    if breaks == model.breaks {
                        model.successes.push((sent, breaks));
                        let healed = now.boot - sent.boot < R
                            && now.wall.duration_since(sent.wall).is_ok_and(|age| age < R);
                        model.denied &= !healed;
                        prop_assert_eq!(counted, healed);
                    } else {
                        prop_assert!(!counted, "sent before a refusal or a jump");
                    }
                }
                Event::Fail(which) if !model.under_way.is_empty() => {
                    let (probe, ..) = model.under_way.swap_remove(which.index(model.under_way.len()));
                    lease.unavailable(probe, None, now, &LATEST);
                }
                Event::Block(which) if !model.under_way.is_empty() => {
                    let (probe, ..) = model.under_way.swap_remove(which.index(model.under_way.len()));
                    lease.blocked(probe, now, &LATEST);
                }
                Event::Deny => {
                    lease.denied(DenyReason::Forbidden, now, &LATEST);
                    model.denied = true;
                    model.breaks += 1;
                    prop_assert_eq!(lease.usable(now), Err(LeaseEnd::Revoked(DenyReason::Forbidden)));
                }
                Event::Use => drop(lease.note_use(now)),
                Event::Look | Event::Grant(_) | Event::Fail(_) | Event::Block(_) => {}
            }
            let usable = lease.usable(now).is_ok();
            let bound = R + Duration::from_secs(grace);
            prop_assert!(!usable || model.covers(now, bound), "used later than promised");
            // And it is no stricter than it says: what a success covers is usable.
            prop_assert!(usable || !model.covers(now, R), "ended too early");
            prop_assert_eq!(usable, matches!(lease.state(now), LeaseState::Live { .. }));
            prop_assert_eq!(usable, lease.remaining(now).is_some());
            match lease.next(now) {
                Next::Idle => prop_assert_eq!(lease.usable(now), Err(LeaseEnd::Expired)),
                Next::Wait(wait) => prop_assert!(wait > Duration::ZERO && wait <= bound),
                Next::Probe => {}
            }
        }
    }
}
