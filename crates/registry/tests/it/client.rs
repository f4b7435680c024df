//! A client of a few lines, which also says what no well-behaved one would.

use std::net::SocketAddr;

use bulla::{Algorithm, Digest};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What the specification lets a 4xx say.
const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body was as long as announced.
    pub(crate) complete: bool,
}

impl Answer {
    /// What was read from a connection.
    fn parse(bytes: &[u8], is_head: bool) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let body = bytes[end + 4..].to_vec();
        let len =
            headers.iter().find(|(name, _)| name == "content-length").map(|(_, len)| len.parse().unwrap());
        assert!(!is_head || body.is_empty(), "HEAD with a body");
        let complete = is_head || len.is_none_or(|len: usize| len == body.len());
        Self { status, headers, body, complete }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn location(&self) -> &str {
        self.header("location").expect("a location")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status is this, and the body the specification's with this code.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        assert_eq!(body["errors"][0]["code"], code, "{body}");
        assert!(status >= 500 || CODES.contains(&code), "no code of the specification: {code}");
        assert!(body["errors"][0]["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    }

    #[track_caller]
    pub(crate) fn assert_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

/// A connection per request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client(pub(crate) SocketAddr);

impl Client {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[], b"").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"").await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let chunked = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
        let announced = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if !chunked && !announced && !matches!(method, "GET" | "HEAD") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        if chunked {
            for piece in body.chunks(10_000) {
                request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                request.extend_from_slice(piece);
                request.extend_from_slice(b"\r\n");
            }
            request.extend_from_slice(b"0\r\n\r\n");
        } else {
            request.extend_from_slice(body);
        }
        self.raw(&request, method == "HEAD").await
    }

    /// Sends these bytes and reads to the end.
    pub(crate) async fn raw(&self, request: &[u8], is_head: bool) -> Answer {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        // An answer may come, and the connection end, before everything is sent.
        let (mut read, mut write) = stream.split();
        let mut answer = Vec::new();
        let _ = tokio::join!(write.write_all(request), read.read_to_end(&mut answer));
        Answer::parse(&answer, is_head)
    }

    /// Sends a request of `len` bytes, and goes away after `body`, which is less.
    pub(crate) async fn break_off(&self, method: &str, path: &str, len: usize, body: &[u8]) {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: registry\r\nContent-Length: {len}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        stream.shutdown().await.unwrap();
        // What the server says to that is nobody's business.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }

    /// Begins an upload; where it is.
    pub(crate) async fn begin(&self, name: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"").await;
        answer.assert_status(202).location().to_owned()
    }

    /// Pushes a blob in two requests, as most clients do.
    pub(crate) async fn push_blob(&self, name: &str, data: &[u8]) -> Digest {
        let digest = sha256(data);
        let location = self.begin(name).await;
        let answer = self.send("PUT", &ending(&location, &digest), &[], data).await;
        answer.assert_status(201);
        digest
    }

    /// Pushes an image with one layer; its manifest's digest.
    pub(crate) async fn push_image(&self, name: &str, reference: &str, layer: &[u8]) -> Digest {
        let manifest = self.image(name, layer).await;
        self.push_manifest(name, reference, OCI_MANIFEST, &manifest).await;
        sha256(&manifest)
    }

    /// Pushes what an image needs; its manifest.
    pub(crate) async fn image(&self, name: &str, layer: &[u8]) -> Vec<u8> {
        let config = br#"{"architecture":"amd64","os":"linux"}"#;
        let (config_digest, layer_digest) =
            (self.push_blob(name, config).await, self.push_blob(name, layer).await);
        serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest.to_string(), "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": layer_digest.to_string(), "size": layer.len(),
            }],
        }))
        .unwrap()
    }

    pub(crate) async fn push_manifest(
        &self,
        name: &str,
        reference: &str,
        kind: &str,
        manifest: &[u8],
    ) -> Answer {
        let path = format!("/v2/{name}/manifests/{reference}");
        self.send("PUT", &path, &[("Content-Type", kind)], manifest).await.assert_status(201)
    }
}

/// Where an upload ends.
pub(crate) fn ending(location: &str, digest: impl std::fmt::Display) -> String {
    format!("{location}?digest={digest}")
}

pub(crate) fn sha256(data: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, data)
}

pub(crate) fn sha512(data: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha512, data)
}

/// Bytes that repeat late.
pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 7 + i / 251 + i / 65_537) % 256).unwrap()).collect()
}
