//! Jobs: what nodes tell each other about long work, so that it can be shared and resumed.
//!
//! ```text
//! key     = jobs/<sealed name>                              kind `job`, parent `jobs`
//! content = [0, waited: 0 or 1, rows: [row × 16]]           a sweep over all envelopes
//!         | [1, before: time]                                the gc horizon
//! row     = [next: 0 to 16, claim: [node, until] or null, rewrapped, failed]
//! ```
//!
//! A sweep holds nothing that can't be found out again, and is never trusted with more than work saved. The horizon only
//! ever rises. FORMAT.md §10.

#![deny(clippy::indexing_slicing)]

use crate::cbor::{DecodeError, InvalidRecord, Reader, Writer, require, require_canonical};
use crate::crypto::CryptoProvider;
use crate::envelope::{EnvelopeHeader, MAX_TIME};
use crate::object::{OpenObjectError, SealedObject};
use crate::secret::{MetaKey, NameKey};

/// The kind of jobs, and of their names: see [`crate::secret::Root::name_key`].
pub const JOB_KIND: &str = "job";
/// Where jobs are.
pub const JOBS: &str = "jobs";
/// Rows of a sweep.
pub const ROWS: u8 = 16;
/// Prefixes of a row: `blobs/<root id>/ab` for each `b`, the row being `a`.
pub const PREFIXES_PER_ROW: u8 = 16;

/// What a job object says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Job {
    /// Every envelope is looked at, and wrapped again where it has to be.
    Sweep(Box<Sweep>),
    /// Which data gc may remove while writers still work on it.
    Horizon(Horizon),
}

/// How far a sweep is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// Whether every node has seen the new key: none wraps under an old one any more.
    pub waited: bool,
    /// One for each first hexadecimal digit of a prefix.
    pub rows: [Row; ROWS as usize],
}

/// A sixteenth of a sweep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// The first prefix that is not done: 0 to 16, and 16 when the row is.
    pub next: u8,
    /// Who is at it. A row that is done has no claim.
    pub claim: Option<Claim>,
    /// Envelopes that were wrapped again.
    pub rewrapped: u64,
    /// Envelopes that could not be.
    pub failed: u64,
}

/// Who is at a row. It saves work and protects nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// A random name of that process.
    pub node: [u8; 16],
    /// Afterwards anyone may take the row over: ms since 1970-01-01 UTC.
    pub until: u64,
}

/// The gc horizon: data objects written before it, by the bucket's clock, are removed unless an envelope named them when
/// gc looked. So nobody may begin to name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Ms since 1970-01-01 UTC, by the bucket's clock.
    pub before: u64,
}

impl NameKey {
    /// `jobs/<sealed name>`: where a job is. The name key is that of [`JOB_KIND`].
    #[must_use]
    pub fn job_key(&self, name: &str) -> String {
        format!("{JOBS}/{}", self.seal_name(JOB_KIND, JOBS, name.as_bytes()))
    }
}

impl Sweep {
    /// A sweep that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self { waited: false, rows: [Row::default(); ROWS as usize] }
    }
}

impl Default for Sweep {
    fn default() -> Self {
        Self::new()
    }
}

impl Row {
    /// Whether nothing is left to do in it.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.next == PREFIXES_PER_ROW
    }
}

impl Job {
    /// The object's bytes for the job `name`. `salt` must be fresh random bytes on every call.
    ///
    /// # Errors
    ///
    /// [`InvalidRecord`] if the job breaks a rule of FORMAT-J3.
    pub fn seal(
        &self,
        crypto: &'static CryptoProvider,
        key: &MetaKey,
        header: EnvelopeHeader,
        name: &str,
        salt: [u8; 24],
    ) -> Result<Vec<u8>, InvalidRecord> {
        self.check()?;
        let content = self.encode();
        let object = SealedObject::seal(crypto, key, header, JOB_KIND, name.as_bytes(), &content, salt)?;
        Ok(object.encode())
    }

    /// Reads and opens an object as the job `name` of the store and root in `header`.
    ///
    /// # Errors
    ///
    /// [`OpenJobError`]. Whatever it is, a sweep can be begun anew; without its horizon no writer may go on.
    pub fn open(
        crypto: &'static CryptoProvider,
        key: &MetaKey,
        header: EnvelopeHeader,
        name: &str,
        object: &[u8],
    ) -> Result<Self, OpenJobError> {
        let object = SealedObject::decode(object)?;
        if object.header != header {
            return Err(OpenJobError::Foreign);
        }
        let content = object.open(crypto, key, JOB_KIND, name.as_bytes())?;
        Ok(Self::decode(&content)?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(1024);
        match self {
            Self::Sweep(sweep) => {
                out.array(3).uint(0).uint(u64::from(sweep.waited)).array(sweep.rows.len());
                for row in &sweep.rows {
                    out.array(4).uint(u64::from(row.next));
                    match &row.claim {
                        Some(claim) => out.array(2).bytes(&claim.node).uint(claim.until),
                        None => out.null(),
                    };
                    out.uint(row.rewrapped).uint(row.failed);
                }
            }
            Self::Horizon(horizon) => {
                out.array(2).uint(1).uint(horizon.before);
            }
        }
        out.finish()
    }

    /// Reads a content. It authenticated, but its writer may still be wrong: nothing is taken on trust.
    fn decode(content: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(content)?;
        let len = input.array("the job's array")?;
        let job = match (input.uint("the job's kind")?, len) {
            (0, 3) => Self::Sweep(Box::new(read_sweep(&mut input)?)),
            (1, 2) => Self::Horizon(Horizon { before: input.uint("the horizon")? }),
            _ => return Err(DecodeError::Malformed("the job's kind")),
        };
        input.finish()?;
        job.check()?;
        require_canonical(content, &job.encode())?;
        Ok(job)
    }

    /// FORMAT-J3.
    fn check(&self) -> Result<(), InvalidRecord> {
        let in_time = |time: u64| require(time <= MAX_TIME, "a time is before the year 10000");
        match self {
            Self::Sweep(sweep) => sweep.rows.iter().try_for_each(|row| {
                require(row.next <= PREFIXES_PER_ROW, "a row has 16 prefixes")?;
                require(!(row.is_done() && row.claim.is_some()), "nobody claims a row that is done")?;
                row.claim.map_or(Ok(()), |claim| in_time(claim.until))
            }),
            Self::Horizon(horizon) => in_time(horizon.before),
        }
    }
}

fn read_sweep(input: &mut Reader<'_>) -> Result<Sweep, DecodeError> {
    let waited = match input.uint("whether it was waited")? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Malformed("whether it was waited")),
    };
    let rows = input.list(MIN_ENCODED_ROW, usize::from(ROWS), "the rows", read_row)?;
    let rows = rows.try_into().map_err(|_| DecodeError::Malformed("the rows"))?;
    Ok(Sweep { waited, rows })
}

/// Array, next, null, two counts.
const MIN_ENCODED_ROW: usize = 5;

fn read_row(input: &mut Reader<'_>) -> Result<Row, DecodeError> {
    input.exact_array(4, "a row")?;
    let next = input.uint("a row's next prefix")?;
    Ok(Row {
        next: u8::try_from(next).map_err(|_| DecodeError::Malformed("a row's next prefix"))?,
        claim: input.nullable(|input| {
            input.exact_array(2, "a claim")?;
            Ok(Claim { node: input.fixed("a claim's node")?, until: input.uint("a claim's end")? })
        })?,
        rewrapped: input.uint("a row's count")?,
        failed: input.uint("a row's failures")?,
    })
}

/// Why an object is not the job that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenJobError {
    /// Not an object of this format and version, or its content is not a job's.
    #[error("object can't be decoded")]
    Decode(#[from] DecodeError),
    /// Of another store or root.
    #[error("object belongs to another store or root")]
    Foreign,
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenObjectError),
}
