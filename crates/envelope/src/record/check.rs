//! The rules a record obeys, FORMAT-L5 to L13: checked when it is signed and when it is decoded.

use super::{
    KekState, LogRecord, MAX_GROUP_MEMBERS, MAX_GROUPS, MAX_KEKS, MAX_OTHER_PARTIES, MAX_RECORD_NUMBER,
    MAX_ROOTS, MAX_STORE_KEYS, Managed, Mode, RootEntry, RootState, StoreKeyState,
};
use crate::cbor::{InvalidRecord, require};
use crate::envelope::{MAX_KID_LEN, MAX_TIME, all_different, check_alg, check_kek_kid, check_text};

/// 366 days: R has to stay a number that a deadline can be computed with.
const MAX_REVOCATION_BOUND_MS: u64 = 366 * 24 * 3_600_000;

impl LogRecord {
    pub(super) fn check(&self) -> Result<(), InvalidRecord> {
        require((1..=MAX_RECORD_NUMBER).contains(&self.number), "a record's number is 1 to 99999999")?;
        require(
            u64::try_from(self.history.len()).is_ok_and(|len| len == self.number - 1),
            "the history names every earlier record",
        )?;
        require(
            (1..=MAX_REVOCATION_BOUND_MS).contains(&self.revocation_bound_ms),
            "the revocation bound is 1 ms to 366 days",
        )?;
        check_party(&self.identity, &self.key_id)?;
        self.check_other_parties()?;
        self.check_keks()?;
        self.check_roots()?;
        self.check_store_keys()?;
        let times = [Some(self.created), self.rotated, Some(self.written)];
        check_times(times.into_iter().flatten())
    }

    fn check_other_parties(&self) -> Result<(), InvalidRecord> {
        require(self.other_parties.len() <= MAX_OTHER_PARTIES, "a record has at most 8 parties")?;
        for party in &self.other_parties {
            check_party(&party.identity, &party.key_id)?;
        }
        require(
            self.other_parties.is_empty()
                || (self.mode == Mode::Hierarchical && self.managed == Managed::Customer),
            "only a store in hierarchical mode under its customer's KEK has several parties",
        )
    }

    fn check_keks(&self) -> Result<(), InvalidRecord> {
        require((1..=MAX_KEKS).contains(&self.keks.len()), "a record has 1 to 128 KEKs")?;
        for kek in &self.keks {
            check_kek_kid(&kek.kid)?;
            check_alg(&kek.alg)?;
        }
        require(
            all_different(self.keks.iter().map(|kek| (&kek.kid, &kek.alg))),
            "no KEK is listed twice with the same alg",
        )?;
        require(self.keks.iter().any(|kek| kek.state == KekState::Active), "at least one KEK is active")?;
        check_times(self.keks.iter().map(|kek| kek.since))
    }

    fn check_roots(&self) -> Result<(), InvalidRecord> {
        require((1..=MAX_ROOTS).contains(&self.roots.len()), "a record has 1 to 16 roots")?;
        require(all_different(self.roots.iter().map(|root| root.id)), "root ids are different")?;
        require(self.count_roots(RootState::Active) == 1, "exactly one root is active")?;
        require(self.count_roots(RootState::Pending) <= 1, "at most one root is pending")?;
        self.roots.iter().try_for_each(|root| self.check_root(root))
    }

    fn check_root(&self, root: &RootEntry) -> Result<(), InvalidRecord> {
        if root.state == RootState::Retiring {
            return require(
                root.groups.is_empty() && root.parent.is_some(),
                "a retiring root is wrapped under the active one and by no KEK",
            );
        }
        require(root.parent.is_none(), "only a retiring root is wrapped under another")?;
        require((1..=MAX_GROUPS).contains(&root.groups.len()), "a root has 1 to 16 groups of wraps")?;
        for group in &root.groups {
            require((1..=MAX_GROUP_MEMBERS).contains(&group.len()), "a group has 1 to 8 members")?;
            require(
                group.len() == 1 || group.len() == 1 + self.other_parties.len(),
                "a group has one member, or one for each party",
            )?;
            require(
                all_different(group.iter().map(|wrap| &wrap.kid)),
                "the members of a group are under different KEKs",
            )?;
            for wrap in group {
                wrap.check()?;
                require(
                    self.keks.iter().any(|kek| kek.kid == wrap.kid && kek.alg == wrap.alg),
                    "a root is wrapped by listed KEKs only",
                )?;
            }
        }
        Ok(())
    }

    fn check_store_keys(&self) -> Result<(), InvalidRecord> {
        require((1..=MAX_STORE_KEYS).contains(&self.store_keys.len()), "a record has 1 to 128 store keys")?;
        require(all_different(self.store_keys.iter().map(|key| key.id)), "store key ids are different")?;
        let active = self.store_keys.iter().filter(|key| key.state == StoreKeyState::Active);
        require(active.count() == 1, "exactly one store key is active")?;
        require(
            self.store_keys.iter().all(|key| self.roots.iter().any(|root| root.id == key.root)),
            "a store key is wrapped under a listed root",
        )?;
        check_times(self.store_keys.iter().map(|key| key.since))
    }

    /// Whether the first record of a new root, which both roots sign.
    pub(super) fn is_pending(&self) -> bool {
        self.count_roots(RootState::Pending) > 0
    }

    fn count_roots(&self, state: RootState) -> usize {
        self.roots.iter().filter(|root| root.state == state).count()
    }
}

fn check_party(identity: &str, key_id: &str) -> Result<(), InvalidRecord> {
    require(
        (1..=MAX_KID_LEN).contains(&identity.len()) && !identity.contains(char::is_control),
        "an identity is 1 to 512 bytes without control characters",
    )?;
    check_text(key_id, MAX_KID_LEN, "a key id is 1 to 512 printable ASCII characters")
}

fn check_times(mut times: impl Iterator<Item = u64>) -> Result<(), InvalidRecord> {
    require(times.all(|time| time <= MAX_TIME), "a time is before the year 10000")
}
