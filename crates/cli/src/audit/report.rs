//! What a verified export proves, in the order in which auditors ask.

use std::collections::{BTreeMap, BTreeSet};

use bulla::audit_format::{Entry, Verified};
use bulla::{Action, Outcome};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Failure, Kind, Result};
use crate::output::{self, Output};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Which log, and whose key vouches for it.
    log: String,
    entries: u64,
    /// How many of them the earlier checkpoint had.
    #[serde(skip_serializing_if = "Option::is_none")]
    continues: Option<u64>,
    /// The newest record of the store's own log at the checkpoint.
    log_record: u64,
    keys: Vec<KeyUse>,
    opened: Vec<Happening>,
    denials: Vec<Denial>,
    rotations: Vec<Happening>,
    sweeps: Vec<Sweep>,
    retired: Vec<Happening>,
    shredded: Vec<Happening>,
    refused: Vec<Happening>,
    /// Entries that nodes could not keep while nothing could be written.
    lost: u64,
}

/// A key version that opened the store.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyUse {
    key: String,
    first: String,
    last: String,
    unwraps: u64,
    nodes: usize,
}

/// A time without access, on one node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Denial {
    node: String,
    reason: Option<String>,
    denied: String,
    restored: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sweep {
    at: String,
    node: String,
    under: Vec<String>,
    seen: u64,
    left: u64,
    failed: u64,
}

/// Something that happened once.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Happening {
    at: String,
    node: String,
    keys: Vec<String>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_record: Option<u64>,
}

pub(super) fn of(verified: &Verified) -> Report {
    let entries = &verified.entries;
    let some = |wanted: fn(&Entry) -> bool| -> Vec<Happening> {
        entries.iter().filter(|entry| wanted(entry)).map(happening).collect()
    };
    Report {
        log: verified.checkpoint.origin.clone(),
        entries: verified.checkpoint.size,
        continues: verified.earlier,
        log_record: verified.checkpoint.log.number,
        keys: keys(entries),
        opened: some(|entry| {
            matches!(entry.action, Action::Open | Action::Create) && entry.outcome == Outcome::Done
        }),
        denials: denials(entries),
        rotations: some(|entry| entry.action == Action::RotateEnd),
        sweeps: sweeps(entries),
        retired: some(|entry| entry.action == Action::Retire),
        shredded: some(|entry| entry.action == Action::Shred),
        refused: some(|entry| {
            matches!(entry.action, Action::Open | Action::Create) && entry.outcome != Outcome::Done
        }),
        lost: entries.iter().filter(|entry| entry.action == Action::AuditLost).map(|entry| entry.count).sum(),
    }
}

fn happening(entry: &Entry) -> Happening {
    Happening {
        at: output::time_of_millis(entry.first),
        node: entry.node.clone(),
        keys: subject(entry),
        outcome: entry.outcome.as_str(),
        reason: entry.reason.clone(),
        log_record: entry.log.map(|log| log.number),
    }
}

/// What an entry is about: KEKs, and a store key where there is one.
fn subject(entry: &Entry) -> Vec<String> {
    let store_key = entry.store_key.map(|id| format!("store-key:{id}"));
    store_key.into_iter().chain(entry.keys.iter().cloned()).collect()
}

fn keys(entries: &[Entry]) -> Vec<KeyUse> {
    let mut uses: BTreeMap<&str, (u64, u64, u64, BTreeSet<&str>)> = BTreeMap::new();
    let unwraps = |entry: &&Entry| entry.action == Action::Unwrap && entry.outcome == Outcome::Done;
    for entry in entries.iter().filter(unwraps) {
        for key in &entry.keys {
            let (first, last, count, nodes) =
                uses.entry(key).or_insert((entry.first, entry.last, 0, BTreeSet::new()));
            *first = entry.first.min(*first);
            *last = entry.last.max(*last);
            *count = count.saturating_add(entry.count);
            nodes.insert(&entry.node);
        }
    }
    let shown = |(key, (first, last, unwraps, nodes)): (&str, (u64, u64, u64, BTreeSet<&str>))| KeyUse {
        key: key.to_owned(),
        first: output::time_of_millis(first),
        last: output::time_of_millis(last),
        unwraps,
        nodes: nodes.len(),
    };
    uses.into_iter().map(shown).collect()
}

/// Each node's denials, with what ended them.
fn denials(entries: &[Entry]) -> Vec<Denial> {
    let mut denials: Vec<Denial> = Vec::new();
    for entry in entries {
        let open =
            denials.iter_mut().rev().find(|denial| denial.node == entry.node && denial.restored.is_none());
        let at = output::time_of_millis(entry.first);
        match (entry.action, open) {
            (Action::Restore, Some(open)) => open.restored = Some(at),
            // Denied for another reason meanwhile: the same time without access.
            (Action::Deny, Some(open)) => open.reason.clone_from(&entry.reason),
            (Action::Deny, None) => denials.push(Denial {
                node: entry.node.clone(),
                reason: entry.reason.clone(),
                denied: at,
                restored: None,
            }),
            _ => {}
        }
    }
    denials
}

fn sweeps(entries: &[Entry]) -> Vec<Sweep> {
    let sweep = |entry: &Entry| {
        let count = entry.swept?;
        Some(Sweep {
            at: output::time_of_millis(entry.first),
            node: entry.node.clone(),
            under: subject(entry),
            seen: count.seen,
            left: count.left,
            failed: count.failed,
        })
    };
    entries.iter().filter(|entry| entry.action == Action::SweepEnd).filter_map(sweep).collect()
}

impl Report {
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::to_value(self)
            .map_err(|error| Failure::new(Kind::Internal, "this can't be JSON").with_source(error))
    }

    pub(super) fn print(&self, out: &Output) -> Result<()> {
        let continues = match self.continues {
            Some(size) => format!(", continuing the {size} of the earlier checkpoint"),
            None => String::new(),
        };
        out.line(format!("complete and unaltered: {} entries of {}{continues}", self.entries, self.log))?;
        for used in &self.keys {
            out.line(format!(
                "unwrapped  {} to {}  {} times on {} nodes by {}",
                used.first, used.last, used.unwraps, used.nodes, used.key
            ))?;
        }
        lines(out, "opened", &self.opened)?;
        for denial in &self.denials {
            let reason = denial.reason.as_deref().unwrap_or("no reason");
            let restored = denial.restored.as_deref().unwrap_or("not in this log");
            out.line(format!(
                "denied     {} ({reason}), restored {restored}, on {}",
                denial.denied, denial.node
            ))?;
        }
        lines(out, "rotated", &self.rotations)?;
        for sweep in &self.sweeps {
            let (at, left, seen) = (&sweep.at, sweep.left, sweep.seen);
            let (failed, under, node) = (sweep.failed, sweep.under.join(" "), &sweep.node);
            out.line(format!(
                "swept      {at}  {left} of {seen} under {under}, {failed} unreadable, on {node}"
            ))?;
        }
        lines(out, "retired", &self.retired)?;
        lines(out, "shredded", &self.shredded)?;
        lines(out, "refused", &self.refused)?;
        if self.lost > 0 {
            out.line(format!("lost       {} entries that nodes could not keep", self.lost))?;
        }
        Ok(())
    }
}

fn lines(out: &Output, what: &str, happenings: &[Happening]) -> Result<()> {
    for happening in happenings {
        let mut line = format!("{what:<10} {}  {}", happening.at, happening.keys.join(" "));
        if let Some(record) = happening.log_record {
            line.push_str(&format!(" (log record {record})"));
        }
        if happening.outcome != Outcome::Done.as_str() {
            line.push_str(&format!(": {}", happening.outcome));
        }
        line.push_str(&format!(", on {}", happening.node));
        out.line(line)?;
    }
    Ok(())
}
