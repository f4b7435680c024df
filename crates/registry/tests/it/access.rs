//! Users with passwords.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use bulla_registry::access::{Access, Action, Htpasswd, Needs, Open, Refused};
use bulla_registry::server::ServerOptions;
use futures::future::join_all;
use reqwest::Method;
use tempfile::TempDir;

use crate::served::{Served, World, client, guarded, until};

/// A line of an htpasswd file.
fn line(name: &str, password: &str, cost: u32) -> String {
    format!("{name}:{}\n", bcrypt::hash(password, cost).unwrap().replacen("$2b$", "$2y$", 1))
}

fn users(lines: &[String]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, lines.concat()).unwrap();
    (folder, file)
}

fn basic(name: &str, password: &str) -> HeaderMap {
    let both = data_encoding::BASE64.encode(format!("{name}:{password}").as_bytes());
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Basic {both}").parse().unwrap());
    headers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn users_come_with_their_password_and_readers_only_read() {
    let (_folder, file) = users(&[line("alice", "päss:word", 4), line("node", "n", 4)]);
    let access = Arc::new(Htpasswd::load(file.clone(), BTreeSet::from(["node".to_owned()])).await.unwrap());
    let world = World::new().await;
    let served = Served::start(&*access, ServerOptions::default()).await;
    served.service.open(world.store.clone(), guarded(access));
    let client = client();
    let ask = async |method: Method, path: &str, user: Option<(&str, &str)>| {
        let mut request = client.request(method, format!("{}/v2/{path}", served.url));
        if let Some((name, password)) = user {
            request = request.basic_auth(name, Some(password));
        }
        request.send().await.unwrap().status().as_u16()
    };
    let (alice, node) = (Some(("alice", "päss:word")), Some(("node", "n")));
    for (method, path, as_alice, as_node) in [
        (Method::GET, "", 200, 200),
        (Method::GET, "_catalog", 200, 200),
        (Method::GET, "a/manifests/x", 200, 200),
        (Method::PUT, "a/manifests/x", 200, 403),
        (Method::DELETE, "a/manifests/x", 200, 403),
    ] {
        assert_eq!(ask(method.clone(), path, alice).await, as_alice, "{method} {path}");
        assert_eq!(ask(method.clone(), path, node).await, as_node, "{method} {path}");
        assert_eq!(ask(method.clone(), path, None).await, 401, "{method} {path}");
        for (name, password) in [
            ("alice", "n"),
            ("alice", ""),
            ("node", "päss:word"),
            ("nobody", "n"),
            ("", ""),
            ("alice", "päss:word "),
        ] {
            assert_eq!(ask(method.clone(), path, Some((name, password))).await, 401, "{name} {password}");
        }
    }
    let response = client.get(format!("{}/v2/", served.url)).send().await.unwrap();
    assert_eq!(response.headers()["www-authenticate"], r#"Basic realm="bulla", charset="UTF-8""#);

    // Who leaves is out, and who comes is in, without a restart; a file with a mistake changes nothing.
    fs::write(&file, line("alice", "new", 4) + &line("node", "n", 4)).unwrap();
    until(async || ask(Method::GET, "", alice).await == 401).await;
    assert_eq!(ask(Method::GET, "", Some(("alice", "new"))).await, 200);
    fs::write(&file, "alice:new\n").unwrap();
    assert_eq!(ask(Method::GET, "", Some(("alice", "new"))).await, 200);
}

/// Passwords are slow to check, on purpose.
#[tokio::test]
async fn a_flood_of_guesses_is_bounded_and_does_not_keep_out_who_is_known() {
    let (_folder, file) = users(&[line("alice", "secret", 10)]);
    let access = Htpasswd::load(file, BTreeSet::new()).await.unwrap();
    let (alice, pull) = (basic("alice", "secret"), Needs::Repository { name: "a", action: Action::Pull });
    access.check(&alice, pull).await.unwrap();
    let guesses: Vec<HeaderMap> = (0..200).map(|guess| basic("alice", &guess.to_string())).collect();
    let mut flood = Box::pin(join_all(guesses.iter().map(|guess| access.check(guess, pull))));
    // All guesses are under way, and none is answered yet.
    let waiting =
        std::future::poll_fn(|context| std::task::Poll::Ready(flood.as_mut().poll(context).is_pending()));
    assert!(waiting.await);
    access.check(&alice, pull).await.unwrap();
    let answers = flood.await;
    let refused = answers.iter().filter(|answer| matches!(answer, Err(Refused::Unauthorized { .. }))).count();
    let too_many = answers.iter().filter(|answer| matches!(answer, Err(Refused::TooMany { .. }))).count();
    assert_eq!(refused + too_many, 200);
    assert_eq!(refused, 64, "so many may wait");
}

#[tokio::test]
async fn files_that_can_t_be_used_say_what_to_do() {
    let (folder, file) = users(&["alice:secret\n".to_owned()]);
    let error = Htpasswd::load(file.clone(), BTreeSet::new()).await.unwrap_err().to_string();
    assert!(error.contains("htpasswd -B") && !error.contains("secret"), "{error}");
    let error = Htpasswd::load(folder.path().join("none"), BTreeSet::new()).await.unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
    fs::write(&file, line("alice", "secret", 4)).unwrap();
    let error = Htpasswd::load(file, BTreeSet::from(["bob".to_owned()])).await.unwrap_err().to_string();
    assert!(error.contains("bob"), "{error}");
}

#[tokio::test]
async fn on_this_machine_everybody_may_do_everything() {
    for needs in [Needs::Login, Needs::Catalog, Needs::Repository { name: "a", action: Action::Delete }] {
        assert!(Open.check(&HeaderMap::new(), needs).await.is_ok());
    }
}
