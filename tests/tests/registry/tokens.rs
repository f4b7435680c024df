//! A token server, as Docker's token flow has it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::node::Node;
use crate::world::World;

const ISSUER: &str = "auth.example";
const SERVICE: &str = "registry.example";

/// Whoever is `alice` gets what she asks for, whoever comes without a name may pull, and nobody else gets anything.
pub(crate) struct TokenServer {
    realm: String,
    public_key: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TokenServer {
    pub(crate) fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let server = Self { realm, public_key: key.public_key_pem(), asked: Arc::clone(&asked) };
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines: Vec<String> = BufReader::new(&stream)
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                // A connection that a client opened and did not need.
                let Some(request) = lines.first() else { continue };
                let (status, body) = answer(request, &lines, &key, &asked);
                let len = body.len();
                write!(stream, "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}").unwrap();
            }
        });
        server
    }

    /// A registry that takes its tokens.
    pub(crate) fn registry(&self, world: &World, more: &[&str]) -> Node {
        let key = world.write("auth.pub", self.public_key.as_bytes());
        let tokens = ["--token-key", &key, "--token-issuer", ISSUER, "--token-service", SERVICE];
        let realm = ["--token-realm", &self.realm];
        Node::of(world, &world.store(), &[&tokens[..], &realm, more].concat())
    }

    /// The scopes that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(
    request: &str,
    lines: &[String],
    key: &KeyPair,
    asked: &Mutex<Vec<String>>,
) -> (&'static str, String) {
    let basic = |who: &[u8]| format!("basic {}", data_encoding::BASE64.encode(who)).to_lowercase();
    let comes =
        lines.iter().find_map(|line| line.to_lowercase().strip_prefix("authorization: ").map(str::to_owned));
    let is_alice = comes == Some(basic(b"alice:wonderland"));
    if comes.is_some() && !is_alice {
        return ("401 Unauthorized", json!({ "details": "who is that?" }).to_string());
    }
    let url = reqwest::Url::parse(&format!("http://x{}", request.split(' ').nth(1).unwrap())).unwrap();
    // As many as the client needs at once: to mount, of two repositories; to log in, none.
    let mut access: Vec<Value> = Vec::new();
    for (_, scope) in url.query_pairs().filter(|(name, _)| name == "scope") {
        let [_, name, actions] = scope.splitn(3, ':').collect::<Vec<_>>().try_into().unwrap();
        let actions: Vec<&str> = actions.split(',').filter(|action| is_alice || *action == "pull").collect();
        access.push(json!({ "type": "repository", "name": name, "actions": actions }));
        asked.lock().unwrap().push(scope.into_owned());
    }
    let service = url.query_pairs().find(|(name, _)| name == "service").unwrap().1.into_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": ISSUER, "aud": service, "sub": "alice", "iat": now, "nbf": now, "exp": now + 300, "access": access,
    });
    let header = Header::new(jsonwebtoken::Algorithm::ES256);
    let token = encode(&header, &claims, &EncodingKey::from_ec_der(&key.serialize_der())).unwrap();
    ("200 OK", json!({ "token": token, "expires_in": 300 }).to_string())
}
