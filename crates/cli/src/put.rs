//! `bulla put`: a file or standard input becomes a blob.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::Duration;

use bulla::{Digest, PutOptions, PutResult, Upload};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::open;
use crate::progress::Progress;

/// How much of the file is read at once; at most three such pieces are on their way.
const PIECE: u64 = 1 << 20;

/// Put a blob and print its digest
///
/// The blob is visible once it is complete and durable, never half. Putting what is there already is cheap on storage and
/// prints the same digest.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "bulla put [OPTIONS] [STORE] <FILE|->",
    after_help = "\
Examples:
  bulla put ./store layer.tar
  tar -c folder | bulla put ./store -
  bulla put ./store layer.tar --digest sha256:…   # refused if the bytes have another digest
  BULLA_STORE=./store bulla put layer.tar --ttl 24h"
)]
pub(crate) struct Args {
    /// The store (or BULLA_STORE), and a file, or - for standard input
    #[arg(value_names = ["STORE", "FILE"], num_args = 0..=2)]
    place: Vec<OsString>,
    /// The digest that the bytes must have; also chooses sha256 or sha512
    #[arg(long, value_name = "D")]
    digest: Option<Digest>,
    /// Keep the blob for at least this long, and not after it
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let (store, [file]) = ctx.store_and("put", "FILE", &args.place)?;
    // The file first: no key is asked for one that is not there.
    let source = Source::open(file)?;
    let opened = tokio::select! {
        interrupted = ctx.interrupt.wait() => return Err(interrupted),
        opened = open::open(ctx, &store) => opened?,
    };
    let options = PutOptions { digest: args.digest, size: source.size, ttl: args.ttl };
    let upload = opened.store.upload(options).await.map_err(|error| opened.explain(error))?;
    let done = put(ctx, upload, source).await.map_err(|error| match error {
        Stopped::Engine(error) => opened.explain(error),
        Stopped::Here(failure) => failure,
    });
    opened.close(ctx).await;
    let PutResult { digest, size, created } = done?;
    if ctx.json {
        ctx.out.json(&json!({ "digest": digest.to_string(), "size": size, "created": created }))?;
    } else {
        ctx.out.line(digest)?;
    }
    Ok(())
}

/// What ended a put early.
enum Stopped {
    Engine(bulla::Error),
    Here(Failure),
}

impl From<bulla::Error> for Stopped {
    fn from(error: bulla::Error) -> Self {
        Self::Engine(error)
    }
}

async fn put(ctx: &Context, mut upload: Upload, source: Source) -> Result<PutResult, Stopped> {
    let mut progress = Progress::new(source.size, ctx.quiet);
    let mut pieces = source.pieces();
    let fed = tokio::select! {
        biased;
        interrupted = ctx.interrupt.wait() => Err(Stopped::Here(interrupted)),
        fed = feed(&mut upload, &mut pieces, &mut progress) => fed,
    };
    match fed {
        // Not interrupted any more: what is half done here is done or not a moment later.
        Ok(()) => Ok(upload.commit().await?),
        Err(stopped) => {
            upload.abort().await;
            Err(stopped)
        }
    }
}

async fn feed(
    upload: &mut Upload,
    pieces: &mut mpsc::Receiver<Result<Bytes>>,
    progress: &mut Progress,
) -> Result<(), Stopped> {
    while let Some(piece) = pieces.recv().await {
        let piece = piece.map_err(Stopped::Here)?;
        let len = piece.len();
        upload.write(piece).await?;
        progress.add(len);
    }
    Ok(())
}

/// Where the bytes come from.
struct Source {
    name: OsString,
    reader: Box<dyn Read + Send>,
    /// Where it is known beforehand; then exactly so many bytes must come.
    size: Option<u64>,
}

impl Source {
    fn open(name: &OsStr) -> Result<Self> {
        if name == "-" {
            return Ok(Self { name: name.to_owned(), reader: Box::new(io::stdin()), size: None });
        }
        let path = Path::new(name);
        let failed = |error| Failure::file("read", path, error);
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if meta.is_dir() {
            return Err(Failure::invalid(format!(
                "{} is a folder; put an archive of it: `tar -c {0} | bulla put STORE -`",
                path.display()
            )));
        }
        // Files that the system makes up say that they are empty.
        let size = (meta.is_file() && meta.len() > 0).then_some(meta.len());
        Ok(Self { name: name.to_owned(), reader: Box::new(file), size })
    }

    /// Reads on a thread of its own, while earlier pieces are hashed and sealed.
    fn pieces(mut self) -> mpsc::Receiver<Result<Bytes>> {
        let (send, receive) = mpsc::channel(2);
        thread::spawn(move || {
            loop {
                let mut piece = Vec::with_capacity(1 << 20);
                let read = self.reader.by_ref().take(PIECE).read_to_end(&mut piece);
                let (piece, last) = match read {
                    Ok(0) => return,
                    Ok(_) => (Ok(Bytes::from(piece)), false),
                    Err(error) => (Err(Failure::file("read", Path::new(&self.name), error)), true),
                };
                // Nobody receives any more: the put failed or was interrupted.
                if send.blocking_send(piece).is_err() || last {
                    return;
                }
            }
        });
        receive
    }
}
