//! Which manifests of a repository stay, and in which order the others go.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use bulla::{Digest, MetaVersion};

use crate::manifest::Need;

/// A manifest as gc read it.
pub(super) struct Known {
    pub(super) modified: SystemTime,
    /// `None`: it came while gc was at work, and stays.
    pub(super) version: Option<MetaVersion>,
    pub(super) needs: Vec<Need>,
    pub(super) subject: Option<Digest>,
    /// It is being put, or who put it was killed.
    pub(super) pending: bool,
}

/// The manifests of a repository, and those that stay.
pub(super) struct Manifests {
    known: HashMap<Digest, Known>,
    /// What stays with a manifest, and must not go before it: its children, and what refers to it.
    follow: HashMap<Digest, Vec<Digest>>,
    stay: HashSet<Digest>,
}

impl Manifests {
    pub(super) fn new(known: HashMap<Digest, Known>) -> Self {
        let mut follow: HashMap<Digest, Vec<Digest>> = HashMap::new();
        // A pending one keeps others, and is kept by none.
        let is_there = |digest: &Digest| known.get(digest).is_some_and(|manifest| !manifest.pending);
        for (digest, manifest) in &known {
            let children = manifest.needs.iter().map(Need::digest).filter(|child| is_there(child));
            follow.entry(digest.clone()).or_default().extend(children.cloned());
            if let Some(subject) = manifest.subject.as_ref().filter(|_| !manifest.pending) {
                follow.entry(subject.clone()).or_default().push(digest.clone());
            }
        }
        Self { known, follow, stay: HashSet::new() }
    }

    pub(super) fn get(&self, digest: &Digest) -> &Known {
        &self.known[digest]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Digest, &Known)> {
        self.known.iter()
    }

    /// The manifest stays, and so does all that follows it.
    pub(super) fn keep(&mut self, digest: &Digest) {
        let mut next = vec![digest.clone()];
        while let Some(digest) = next.pop() {
            if self.known.contains_key(&digest) && self.stay.insert(digest.clone()) {
                next.extend(self.follow.get(&digest).into_iter().flatten().cloned());
            }
        }
    }

    pub(super) fn stays(&self, digest: &Digest) -> bool {
        self.stay.contains(digest)
    }

    /// Those that do not stay, each before what it needs, and before what refers to it where that is possible: one that turns
    /// out to be in use keeps both.
    pub(super) fn in_order_of_removal(&self) -> Vec<Digest> {
        let going = || self.known.keys().filter(|digest| !self.stays(digest));
        let follow = |digest: &Digest| self.follow.get(digest).into_iter().flatten();
        let needs = |digest: &Digest| self.known[digest].needs.iter().map(Need::digest);
        let mut waits_for: HashMap<&Digest, usize> = going().map(|digest| (digest, 0)).collect();
        let mut is_needed_by = waits_for.clone();
        for digest in going() {
            follow(digest).for_each(|after| increment(&mut waits_for, after));
            needs(digest).for_each(|after| increment(&mut is_needed_by, after));
        }
        let mut order: Vec<Digest> = Vec::with_capacity(waits_for.len());
        let mut ready: Vec<&Digest> = going().filter(|digest| waits_for[digest] == 0).collect();
        // An index may have one of its children as its subject. Nothing needs itself: digests are hashes.
        let mut unneeded: Vec<&Digest> = going().filter(|digest| is_needed_by[digest] == 0).collect();
        while let Some(digest) = ready.pop().or_else(|| unneeded.pop()) {
            if waits_for.remove(digest).is_some() {
                order.push(digest.clone());
                ready.extend(follow(digest).filter(|after| decrement(&mut waits_for, after)));
                unneeded.extend(needs(digest).filter(|after| decrement(&mut is_needed_by, after)));
            }
        }
        order
    }

    /// The digests that what stays needs, blobs and manifests alike.
    pub(super) fn needed(&self) -> HashSet<&Digest> {
        let needs = self.stay.iter().flat_map(|digest| &self.known[digest].needs);
        needs.map(Need::digest).collect()
    }
}

fn increment<'a>(counts: &mut HashMap<&'a Digest, usize>, digest: &'a Digest) {
    counts.entry(digest).and_modify(|count| *count += 1);
}

/// Whether it is nothing then, of what is counted.
fn decrement(counts: &mut HashMap<&Digest, usize>, digest: &Digest) -> bool {
    counts.get_mut(digest).is_some_and(|count| {
        *count -= 1;
        *count == 0
    })
}

#[cfg(test)]
mod tests {
    use bulla::Algorithm;

    use super::*;

    fn digest(of: u32) -> Digest {
        Digest::of(Algorithm::Sha256, &of.to_be_bytes())
    }

    fn known(needs: &[u32], subject: Option<u32>) -> Known {
        let needs = needs.iter().map(|need| Need::Manifest(digest(*need))).collect();
        Known {
            modified: SystemTime::UNIX_EPOCH,
            version: None,
            needs,
            subject: subject.map(digest),
            pending: false,
        }
    }

    fn order(of: impl IntoIterator<Item = (u32, Known)>) -> Vec<Digest> {
        let known = of.into_iter().map(|(name, manifest)| (digest(name), manifest)).collect();
        Manifests::new(known).in_order_of_removal()
    }

    #[test]
    fn what_is_needed_and_what_refers_to_it_goes_later() {
        let order = order([
            (1, known(&[2, 3], None)),
            (2, known(&[], None)),
            (3, known(&[], None)),
            (4, known(&[], Some(1))),
        ]);
        assert_eq!(order.len(), 4);
        assert_eq!(order[0], digest(1));
    }

    /// An index whose subject is one of its children, many times over: there is no order that suits both.
    #[test]
    fn what_is_needed_goes_later_whatever_refers_to_what() {
        let pairs = (0..100)
            .flat_map(|i| [(2 * i, known(&[2 * i + 1], Some(2 * i + 1))), (2 * i + 1, known(&[], None))]);
        let order = order(pairs);
        assert_eq!(order.len(), 200);
        let at = |name| order.iter().position(|other| *other == digest(name)).unwrap();
        for i in 0..100 {
            assert!(at(2 * i) < at(2 * i + 1));
        }
    }
}
