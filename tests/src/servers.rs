//! Object store servers on loopback: started for one test, stopped with it.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpRequest, HttpRequestBody};

use crate::gcs::Gateway;

/// A running server, killed on drop.
#[derive(Debug)]
pub struct Server {
    process: Child,
    port: u16,
    kind: Kind,
    /// Stands before it.
    gateway: Option<Gateway>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Moto,
    Azurite,
    Google,
}

/// The account that every Azure emulator has, and its public key.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

impl Server {
    /// moto, which speaks S3.
    ///
    /// # Errors
    /// If it does not start.
    pub fn moto(program: &Path) -> io::Result<Self> {
        Self::start(Kind::Moto, |port| {
            let mut command = Command::new(program);
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        })
    }

    /// Azurite, which speaks Azure Blob Storage and keeps its files in `folder`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn azurite(program: &Path, folder: &Path) -> io::Result<Self> {
        Self::start(Kind::Azurite, |port| {
            let mut command = Command::new(program);
            command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
            command.args(["--disableTelemetry", "--silent", "--skipApiVersionCheck", "--location"]);
            command.arg(folder);
            command
        })
    }

    /// fake-gcs-server, which keeps what Google Cloud Storage would. As there, an object that was just changed can't be changed
    /// again for `pause`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn gcs(program: &Path, pause: Duration) -> io::Result<Self> {
        let mut server = Self::start(Kind::Google, |port| {
            let mut command = Command::new(program);
            command.args(["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1"]);
            command.args(["-port", &port.to_string(), "-public-host", &format!("127.0.0.1:{port}")]);
            command
        })?;
        server.gateway = Some(Gateway::start(server.url(), pause)?);
        Ok(server)
    }

    fn start(kind: Kind, command: impl Fn(u16) -> Command) -> io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process =
            command(port).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { process, port, kind, gateway: None };
        // Slow machines start Node or Python in many seconds.
        let give_up = Instant::now() + Duration::from_secs(90);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.process.try_wait()? {
                return Err(io::Error::other(format!("the server ended: {status}")));
            }
            if Instant::now() > give_up {
                return Err(io::Error::other("the server does not listen"));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.gateway {
            Some(gateway) => gateway.url.clone(),
            None => format!("http://127.0.0.1:{}", self.port),
        }
    }

    /// The variables by which users tell object_store of it.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let url = self.url().into();
        match self.kind {
            Kind::Moto => vec![
                ("AWS_ENDPOINT", url),
                ("AWS_ALLOW_HTTP", "true".into()),
                ("AWS_REGION", "us-east-1".into()),
                ("AWS_ACCESS_KEY_ID", "key".into()),
                ("AWS_SECRET_ACCESS_KEY", "secret".into()),
            ],
            Kind::Azurite => {
                vec![("AZURE_STORAGE_USE_EMULATOR", "true".into()), ("AZURITE_BLOB_STORAGE_URL", url)]
            }
            // A service account without a key to sign in with, and Google is here.
            Kind::Google => {
                let url = self.url();
                let account = format!(
                    r#"{{"gcs_base_url":"{url}","disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}}"#
                );
                vec![("GOOGLE_SERVICE_ACCOUNT_KEY", account.into())]
            }
        }
    }

    /// Makes an S3 bucket.
    ///
    /// # Errors
    /// If the server does not answer 200.
    pub fn make_bucket(&self, name: &str) -> io::Result<()> {
        self.send("PUT", &format!("/{name}"), "", "")
    }

    /// Makes a bucket of Google Cloud Storage.
    ///
    /// # Errors
    /// If the server does not answer 200.
    pub fn make_gcs_bucket(&self, name: &str) -> io::Result<()> {
        self.send(
            "POST",
            "/storage/v1/b",
            "content-type: application/json\r\n",
            &format!(r#"{{"name":"{name}"}}"#),
        )
    }

    /// Makes a container in the emulator's account.
    ///
    /// # Errors
    /// If the server does not answer 201.
    pub fn make_container(&self, name: &str) -> io::Result<()> {
        let path = format!("/{ACCOUNT}/{name}?restype=container");
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = "PUT".parse().map_err(io::Error::other)?;
        *request.uri_mut() = format!("{}{path}", self.url()).parse().map_err(io::Error::other)?;
        let key = AzureCredential::AccessKey(AzureAccessKey::try_new(ACCOUNT_KEY).map_err(io::Error::other)?);
        AzureAuthorizer::new(&key, ACCOUNT).try_authorize(&mut request)?;
        let mut headers = String::new();
        for (name, value) in request.headers() {
            headers.push_str(&format!("{name}: {}\r\n", value.to_str().map_err(io::Error::other)?));
        }
        self.send("PUT", &path, &headers, "")
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let host = format!("127.0.0.1:{}", self.port);
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 20") || answer.starts_with("HTTP/1.0 20") {
            return Ok(());
        }
        Err(io::Error::other(answer))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
