//! Buckets that misbehave, and what is said of them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bulla_tests::part;
use bulla_tests::servers::Server;

use super::{Found, mode};
use crate::world::{IDENTITY, World};

/// A bucket that misbehaves: moto, started by a script that changes it.
struct Bucket {
    server: Server,
    world: World,
    _script: tempfile::TempDir,
}

impl Bucket {
    fn new(change: &str) -> Option<Self> {
        let moto = part("BULLA_MOTO_SERVER", "moto_server")?;
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("moto");
        write_script(&moto, change, &script);
        let server = Server::moto(&script).unwrap();
        server.make_bucket("registry").unwrap();
        let mut world = World::with_vault();
        world.environment = server.environment();
        Some(Self { server, world, _script: folder })
    }

    fn doctor(&self, store: &str) -> Found {
        let kek = self.world.kek();
        let arguments = ["doctor", store, "--kek", &kek, "--identity", IDENTITY, "--json"];
        Found::of(&self.world.run(&arguments))
    }
}

/// Starts moto as its own script does, after `change`.
fn write_script(moto: &Path, change: &str, script: &Path) {
    let original = fs::read_to_string(moto).unwrap();
    let interpreter = original.lines().next().unwrap();
    let start = "import sys\nfrom moto.server import main\nsys.exit(main())\n";
    fs::write(script, format!("{interpreter}\n{change}\n{start}")).unwrap();
    mode(script, 0o700);
}

/// What each request goes through, in Python.
const MIDDLEWARE: &str = "
import moto.server
made = moto.server.create_backend_app
def wrapped(service):
    app = made(service)
    inner = app.wsgi_app
    def outer(environ, start):
        CHANGE
        return inner(environ, start)
    app.wsgi_app = outer
    return app
moto.server.create_backend_app = wrapped
";

#[test]
fn a_bucket_in_order_and_one_that_is_not_there() {
    let Some(bucket) = Bucket::new("") else { return };
    let found = bucket.doctor("s3://registry/prefix");
    assert_eq!((found.code, found.wrong()), (0, Vec::<String>::new()), "{found:#?}");
    for check in ["bucket", "conditions", "clock"] {
        found.one(check, "ok");
    }
    let told = bucket.doctor("s3://absent/prefix").problem("bucket");
    assert!(told.contains("aws s3 mb"), "{told}");
    drop(bucket.server);
}

#[test]
fn a_bucket_of_google() {
    let Some(program) = part("BULLA_FAKE_GCS_SERVER", "fake-gcs-server") else { return };
    let server = Server::gcs(&program, Duration::ZERO).unwrap();
    server.make_gcs_bucket("registry").unwrap();
    let mut world = World::with_vault();
    world.environment = server.environment();
    let kek = world.kek();
    let doctor =
        |store| Found::of(&world.run(&["doctor", store, "--kek", &kek, "--identity", IDENTITY, "--json"]));
    let found = doctor("gs://registry/prefix");
    assert_eq!((found.code, found.wrong()), (0, Vec::<String>::new()), "{found:#?}");
    for check in ["bucket", "conditions", "clock"] {
        found.one(check, "ok");
    }
    let told = doctor("gs://absent/prefix").problem("bucket");
    assert!(told.contains("gcloud storage buckets create"), "{told}");
}

#[test]
fn a_bucket_that_ignores_conditions() {
    let change = "environ.pop('HTTP_IF_NONE_MATCH', None); environ.pop('HTTP_IF_MATCH', None)";
    let Some(bucket) = Bucket::new(&MIDDLEWARE.replace("CHANGE", change)) else { return };
    let found = bucket.doctor("s3://registry/prefix");
    assert_eq!(found.code, 2);
    let told = found.problem("conditions");
    assert!(
        told.contains("put-if-absent") && told.contains("use a store that has conditional writes"),
        "{told}"
    );
}

#[test]
fn a_bucket_whose_clock_is_wrong() {
    let clock = |hours: &str| {
        format!(
            "import datetime, moto.s3.models as m\nnow = m.utcnow\nm.utcnow = lambda: now() + datetime.timedelta({hours})"
        )
    };
    let Some(bucket) = Bucket::new(&clock("hours=1")) else { return };
    let told = bucket.doctor("s3://registry/prefix").problem("clock");
    assert!(told.contains("behind the bucket's") && told.contains("timedatectl"), "{told}");
    let Some(bucket) = Bucket::new(&clock("seconds=-90")) else { return };
    let told = bucket.doctor("s3://registry/prefix").warning("clock");
    assert!(told.contains("1m 2") && told.contains("ahead of the bucket's"), "{told}");
}

#[test]
fn rights_that_are_missing_in_a_bucket() {
    let put = "if environ['REQUEST_METHOD'] == 'PUT' and 'probe' in environ['PATH_INFO']:
            start('403 Forbidden', []); return [b'<Error><Code>AccessDenied</Code></Error>']";
    // As S3 answers it: of each object by itself, and 200 as a whole.
    let delete = "if environ['QUERY_STRING'].startswith('delete'):
            body = environ['wsgi.input'].read(int(environ['CONTENT_LENGTH']))
            key = body.split(b'<Key>')[1].split(b'</Key>')[0]
            start('200 OK', [('Content-Type', 'application/xml')])
            return [b'<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Error><Key>' + key
                + b'</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error></DeleteResult>']";
    for (change, right, action) in [(put, "write", "s3:PutObject"), (delete, "delete", "s3:DeleteObject")] {
        let Some(bucket) = Bucket::new(&MIDDLEWARE.replace("CHANGE", change)) else { return };
        let found = bucket.doctor("s3://registry/prefix");
        let told = found.told("bucket", "problem");
        let named = |told: &String| told.contains(&format!("can't {right} objects")) && told.contains(action);
        assert!(told.iter().any(named), "{found:#?}");
        assert_eq!(found.code, 2);
    }
}
