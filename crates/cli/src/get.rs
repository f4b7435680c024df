//! `bulla get`: a blob, or a range of it, to a file or standard output.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulla::{Blob, Digest};
use bulla_registry::{Reference, Registry, RegistryOptions, RepositoryName};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt, future};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::durable::Part;
use crate::exit::{Failure, Kind, Result};
use crate::open::{self, Opened};
use crate::output::Output;
use crate::progress::Progress;
use crate::range::ByteRange;

/// So many repositories are asked whether what is no blob is a manifest of theirs, and how many at once.
const MAX_REPOSITORIES: usize = 100;
const AT_ONCE: usize = 16;

/// Read a blob, or a range of it
///
/// Bytes are written only after they authenticated. A file appears under its name once it is complete.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "bulla get [OPTIONS] [STORE] <DIGEST>",
    after_help = "\
Examples:
  bulla get ./store sha256:… -o layer.tar
  bulla get ./store sha256:… | tar -t
  bulla get ./store sha256:… --range 0-511        # the first 512 bytes, as HTTP counts
  bulla get ./store sha256:… --range -512         # the last 512
  bulla get ./store sha256:… --verify -o layer.tar"
)]
pub(crate) struct Args {
    /// The store (or BULLA_STORE), and the blob's digest
    #[arg(value_names = ["STORE", "DIGEST"], num_args = 0..=2)]
    place: Vec<OsString>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only these bytes: FIRST-LAST (both included), FIRST- or -SUFFIX
    #[arg(long, value_name = "FIRST-LAST", allow_hyphen_values = true)]
    range: Option<ByteRange>,
    /// Hash the bytes again on the way; everything is authenticated without it
    #[arg(long, conflicts_with = "range")]
    verify: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let (store, digest) = digest(ctx, "get", &args.place)?;
    let target = Target::of(args.output.as_deref())?;
    let opened = open::open(ctx, &store).await?;
    let blob = match opened.store.get(&digest).await {
        Ok(blob) => blob,
        Err(error) => return Err(explained(&opened, error, &digest).await),
    };
    let (size, stream) = bytes(blob, &args).map_err(|error| match error {
        Ok(failure) => failure,
        Err(error) => opened.explain(error),
    })?;
    let mut progress = Progress::new(Some(size), ctx.quiet);
    let mut writer = Writer::start(&target, &ctx.out)?;
    let copied = copy(stream, &mut writer, &mut progress).await;
    let written = writer.finish().await;
    // A reader that went away or a full disk, before the stream that it stopped.
    let result = match (written, copied) {
        (Err(failure), _) => Err(failure),
        (_, Err(error)) => Err(opened.explain(error)),
        _ => Ok(()),
    };
    opened.close(ctx).await;
    result?;
    drop(progress);
    if let (Some(path), true) = (target.place()?, ctx.json) {
        let name = path.display().to_string();
        ctx.out.json(&json!({ "digest": digest.to_string(), "size": size, "file": name }))?;
    }
    Ok(())
}

/// The store and the digest of commands that take both.
pub(crate) fn digest(ctx: &Context, command: &str, place: &[OsString]) -> Result<(String, Digest)> {
    let (store, [text]) = ctx.store_and(command, "DIGEST", place)?;
    let parsed = text.to_str().map(str::parse::<Digest>);
    match parsed {
        Some(Ok(digest)) => Ok((store, digest)),
        Some(Err(error)) if store.parse::<Digest>().is_ok() => {
            Err(Failure::invalid(format!("the store comes first: `bulla {command} STORE DIGEST`"))
                .with_source(error))
        }
        Some(Err(error)) => {
            Err(Failure::invalid(format!("{} is not a digest: {error}", text.display())).with_source(error))
        }
        None => Err(Failure::invalid("a digest is sha256: or sha512: and hexadecimal digits")),
    }
}

/// Says which blob is not there; and if it is a manifest, whose.
pub(crate) async fn explained(opened: &Opened, error: bulla::Error, digest: &Digest) -> Failure {
    let mut failure = opened.explain(error);
    if failure.kind == Kind::NotFound {
        failure.message = match repository_with(opened, digest).await {
            Some(name) => format!(
                "{digest} is no blob but a manifest, of the repository {name}: `bulla export {} {name}@{digest} LAYOUT` \
                 writes it with all that it needs, and `bulla serve` gives it to clients",
                opened.url
            ),
            None => format!("there is no blob {digest} in this store; `bulla ls` lists what there is"),
        };
    }
    failure
}

/// A repository that has this manifest, if it is easily found: it is about a better sentence.
async fn repository_with(opened: &Opened, digest: &Digest) -> Option<RepositoryName> {
    let registry = Registry::new(opened.store.clone(), RegistryOptions::default());
    let reference = &Reference::Digest(digest.clone());
    let names = registry.repositories(None, MAX_REPOSITORIES).await.ok()?.items;
    let having = stream::iter(names).map(|name| {
        let repository = registry.repository(name.clone());
        // Read, not stat: that would keep it from gc, for nobody.
        async move { repository.manifest(reference).await.ok().flatten().map(|_| name) }
    });
    having.buffer_unordered(AT_ONCE).filter_map(future::ready).boxed().next().await
}

type ByteStream = BoxStream<'static, bulla::Result<Bytes>>;

fn bytes(blob: Blob, args: &Args) -> Result<(u64, ByteStream), Result<Failure, bulla::Error>> {
    let size = blob.size();
    match args.range {
        Some(range) => {
            let range = range.of(size).map_err(Ok)?;
            Ok((range.end - range.start, blob.range(range).map_err(Err)?))
        }
        None if args.verify => Ok((size, blob.into_verified_stream())),
        None => Ok((size, blob.into_stream())),
    }
}

async fn copy(mut stream: ByteStream, writer: &mut Writer, progress: &mut Progress) -> bulla::Result<()> {
    while let Some(bytes) = stream.try_next().await? {
        let len = bytes.len();
        if writer.pieces.send(bytes).await.is_err() {
            // The writer says why when it is asked to finish.
            return Ok(());
        }
        progress.add(len);
    }
    Ok(())
}

/// Where the bytes go.
enum Target {
    Stdout,
    /// A pipe or device: nothing that could be replaced by a file.
    Special(PathBuf),
    /// Written beside, then renamed.
    File {
        path: PathBuf,
        part: std::sync::Mutex<Option<Part>>,
    },
}

impl Target {
    fn of(output: Option<&Path>) -> Result<Self> {
        let Some(path) = output.filter(|path| *path != Path::new("-")) else { return Ok(Self::Stdout) };
        // A link stays a link; what it points to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                return Err(Failure::invalid(format!("{} is a folder; name a file in it", path.display())));
            }
            Ok(meta) if !meta.is_file() => return Ok(Self::Special(path)),
            _ => {}
        }
        let part = Part::beside(&path, false).map_err(|error| Failure::file("write", &path, error))?;
        if let (Ok(meta), Ok(file)) = (fs::metadata(&path), part.file()) {
            // Who could read the old file can read the new one, and nobody else.
            let _ = file.set_permissions(meta.permissions());
        }
        Ok(Self::File { path, part: std::sync::Mutex::new(Some(part)) })
    }

    /// Puts a finished file in its place; the path, if there is one.
    fn place(self) -> Result<Option<PathBuf>> {
        match self {
            Self::Stdout => Ok(None),
            Self::Special(path) => Ok(Some(path)),
            Self::File { path, part } => {
                if let Some(part) = part.into_inner().unwrap_or_default() {
                    part.rename_to(&path).map_err(|error| Failure::file("write", &path, error))?;
                }
                Ok(Some(path))
            }
        }
    }
}

/// Writes on a thread of its own, while the next bytes are read and opened.
struct Writer {
    pieces: mpsc::Sender<Bytes>,
    thread: JoinHandle<Result<()>>,
}

impl Writer {
    fn start(target: &Target, out: &Arc<Output>) -> Result<Self> {
        let (pieces, receive) = mpsc::channel(2);
        let (path, file) = match target {
            Target::Stdout => {
                let out = Arc::clone(out);
                let thread = tokio::task::spawn_blocking(move || {
                    drain(receive, |piece| out.bytes(piece)).and_then(|()| out.flush()).map_err(Failure::from)
                });
                return Ok(Self { pieces, thread });
            }
            Target::Special(path) => (path, fs::OpenOptions::new().write(true).open(path)),
            Target::File { path, part } => {
                let part = part.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                (path, part.as_ref().map_or_else(|| File::create(path), Part::file))
            }
        };
        let path = path.clone();
        let mut file = file.map_err(|error| Failure::file("write", &path, error))?;
        let thread = tokio::task::spawn_blocking(move || {
            drain(receive, |piece| file.write_all(piece))
                .map_err(|error| Failure::file("write", &path, error))
        });
        Ok(Self { pieces, thread })
    }

    async fn finish(self) -> Result<()> {
        drop(self.pieces);
        self.thread
            .await
            .unwrap_or_else(|error| Err(Failure::new(Kind::Internal, "the writer failed").with_source(error)))
    }
}

fn drain(
    mut pieces: mpsc::Receiver<Bytes>,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while let Some(piece) = pieces.blocking_recv() {
        write(&piece)?;
    }
    Ok(())
}
