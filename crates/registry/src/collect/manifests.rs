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
            let children = manifest.needs.iter().map(|need| match need {
                Need::Blob(child) | Need::Manifest(child) => child,
            });
            let children = children.filter(|child| is_there(child));
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

    /// Those that do not stay, each before what follows it: one that turns out to be in use keeps what it needs.
    pub(super) fn in_order_of_removal(&self) -> Vec<Digest> {
        let going = || self.known.keys().filter(|digest| !self.stays(digest));
        let mut before: HashMap<&Digest, usize> = going().map(|digest| (digest, 0)).collect();
        for digest in going() {
            for after in self.follow.get(digest).into_iter().flatten() {
                before.entry(after).and_modify(|count| *count += 1);
            }
        }
        let mut order: Vec<Digest> = Vec::with_capacity(before.len());
        let mut ready: Vec<&Digest> = going().filter(|digest| before[digest] == 0).collect();
        let mut placed: HashSet<&Digest> = ready.iter().copied().collect();
        while let Some(digest) = ready.pop() {
            order.push(digest.clone());
            for after in self.follow.get(digest).into_iter().flatten() {
                let Some(count) = before.get_mut(after) else { continue };
                *count -= 1;
                if *count == 0 && placed.insert(after) {
                    ready.push(after);
                }
            }
        }
        // An index may have one of its children as its subject: neither is before the other.
        order.extend(going().filter(|digest| !placed.contains(digest)).cloned());
        order
    }

    /// The digests that what stays needs, blobs and manifests alike.
    pub(super) fn needed(&self) -> HashSet<&Digest> {
        let needs = self.stay.iter().flat_map(|digest| &self.known[digest].needs);
        needs
            .map(|need| match need {
                Need::Blob(digest) | Need::Manifest(digest) => digest,
            })
            .collect()
    }
}
