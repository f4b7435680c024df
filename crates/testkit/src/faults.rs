//! What goes wrong between a node and the bucket, and how often.

use std::time::Duration;

use crate::runtime::SeededRandom;

/// How often each thing goes wrong, in thousandths of the requests it can happen to, and how long requests take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "tests write their own")]
pub struct Faults {
    /// One way takes up to this long; requests overtake each other.
    pub latency: Duration,
    /// In one request of twenty, one way takes up to this long.
    pub slow: Duration,
    /// The request never arrives; an error comes back.
    pub lost_request: u64,
    /// It is applied; an error comes back.
    pub lost_answer: u64,
    /// A write is applied, its answer lost, and it is sent again inside: the second answer comes back, which for a
    /// conditional write says that the condition does not hold.
    pub retried: u64,
    /// A conditional write is not applied, and the answer is S3's 409, a "conflict", even if nothing is there.
    pub conflict: u64,
    /// A put is given up with an error, and applied later all the same.
    pub late: u64,
    /// How much later, at most.
    pub late_by: Duration,
    /// A read breaks off in the middle.
    pub broken_read: u64,
}

impl Faults {
    /// Nothing goes wrong, and every answer is there at once.
    pub const NONE: Self = Self {
        latency: Duration::ZERO,
        slow: Duration::ZERO,
        lost_request: 0,
        lost_answer: 0,
        retried: 0,
        conflict: 0,
        late: 0,
        late_by: Duration::ZERO,
        broken_read: 0,
    };

    /// Nothing goes wrong, but requests take their time and overtake each other.
    pub const SLOW: Self =
        Self { latency: Duration::from_millis(20), slow: Duration::from_millis(500), ..Self::NONE };

    /// A different mixture for every seed: each kind is left out, rare or frequent. Mixtures find more than one
    /// average of everything, in which frequent faults hide what happens only without them.
    pub fn mixed(random: &SeededRandom) -> Self {
        let rate = || *random.pick(&[0, 0, 5, 30, 150]);
        let millis = |choices: [u64; 3]| Duration::from_millis(*random.pick(&choices));
        Self {
            latency: millis([1, 20, 200]),
            slow: millis([20, 500, 5_000]),
            lost_request: rate(),
            lost_answer: rate(),
            retried: rate(),
            conflict: rate(),
            late: rate(),
            late_by: millis([50, 2_000, 40_000]),
            broken_read: rate(),
        }
    }
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Fine,
    LostRequest,
    LostAnswer,
    Retried,
    Conflict,
    Late(Duration),
    BrokenRead,
}

/// The kinds of requests that differ in what can happen to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Put,
    ConditionalPut,
    Other,
}

impl Faults {
    /// Draws one request's way there, fate, and way back. Always the same number of draws, so that one fault more
    /// or less does not change all that follows.
    pub(crate) fn draw(&self, kind: Kind, random: &SeededRandom) -> (Duration, Fate, Duration) {
        let (there, back) = (self.way(random), self.way(random));
        let (dice, late) = (random.below(1000), random.duration(self.late_by));
        let is_put = matches!(kind, Kind::Put | Kind::ConditionalPut);
        let when = |possible: bool, rate: u64| if possible { rate } else { 0 };
        let table = [
            (self.lost_request, Fate::LostRequest),
            (self.lost_answer, Fate::LostAnswer),
            (when(is_put, self.retried), Fate::Retried),
            (when(kind == Kind::ConditionalPut, self.conflict), Fate::Conflict),
            (when(is_put, self.late), Fate::Late(late)),
            (when(kind == Kind::Read, self.broken_read), Fate::BrokenRead),
        ];
        let mut below = 0;
        for (rate, fate) in table {
            below += rate;
            if dice < below {
                return (there, fate, back);
            }
        }
        (there, Fate::Fine, back)
    }

    fn way(&self, random: &SeededRandom) -> Duration {
        let (slow, short, long) =
            (random.below(20) == 0, random.duration(self.latency), random.duration(self.slow));
        if slow { long } else { short }
    }
}
