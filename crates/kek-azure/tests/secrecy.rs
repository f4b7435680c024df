//! No token, secret or wrapped key in an error or a log.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bulla_kek::{KekError, KekProvider};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{RSA, Reply, TOKEN, World, user, wrapped};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn whole(error: &KekError) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn neither_errors_nor_logs_have_secrets_in_them() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let world = World::with(|options| options.attempts = 1).await;
    let (secret, value) = wrapped();
    let encoded = BASE64URL_NOPAD.encode(secret.expose());
    let wrapped = BASE64URL_NOPAD.encode(&value);
    let mut texts = Vec::new();
    let unwrap = async || world.provider.unwrap_key(&world.versioned(), &user(), RSA, &value).await;
    unwrap().await.unwrap();
    // A vault that says back what it was told, and answers in ways that a parser quotes in its errors.
    for reply in [
        Reply::error(403, &["Forbidden"], &format!("Bearer {TOKEN} may not unwrap {wrapped}")),
        Reply::error(400, &["BadParameter"], &format!("'{wrapped}'")),
        Reply::error(500, &[TOKEN], TOKEN),
        Reply::json(200, format!("\"{encoded}\"")),
        Reply::json(200, format!(r#"{{"kid":"{}","value":["{encoded}"]}}"#, world.versioned())),
        Reply::json(200, format!(r#"{{"kid":{{"{encoded}":1}},"value":"{encoded}"}}"#)),
        Reply::json(200, format!(r#"{{"kid":"https://other.example/keys/k/v","value":"{encoded}"}}"#)),
        Reply::json(401, format!("\"{TOKEN}\"")),
        Reply::Drop,
    ] {
        world.vault.script([reply.clone(), reply]);
        texts.push(whole(&unwrap().await.unwrap_err()));
        // Whatever was not used up.
        while unwrap().await.is_err() {}
    }
    texts.push(format!("{:?} {:?}", world.provider, world.options.credentials));
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("localhost"), "the log has something in it");
    texts.push(log);
    let hex = HEXLOWER.encode(secret.expose());
    for text in texts {
        for secret in [TOKEN, "c2lnbmF0dXJl", &encoded, &hex, &wrapped] {
            let at = text.find(secret);
            assert_eq!(at, None, "a secret is in: {}", at.map_or("", |at| &text[at.saturating_sub(300)..at]));
        }
    }
}
