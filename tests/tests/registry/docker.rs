//! Docker: its engine, its command and containerd, on an engine of each test's own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bulla_tests::part;
use serde_json::Value;
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::images::{OCI_MANIFEST, Tools, noise};
use crate::node::Node;
use crate::tokens::TokenServer;
use crate::world::{Ran, World, ran};

/// containerd and, where it can work, the engine; ended on drop.
struct Engine {
    /// Where their programs are.
    path: String,
    /// The engine first.
    running: Vec<Child>,
    dir: TempDir,
}

impl Engine {
    /// `None`: it is not here or can't work here, and the test is skipped.
    fn start() -> Option<Self> {
        let mut engine = Self::containerd().filter(|_| bulla_tests::lets_engines_work())?;
        engine.write("daemon.json", "{}");
        // Nothing runs in containers, so there is no need of networks.
        let flags = "--bridge=none --iptables=false --ip-masq=false --ip-forward=false --storage-driver=vfs";
        let mut places = Vec::new();
        for (flag, name) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "docker"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
            ("--containerd", "containerd.sock"),
        ] {
            places.extend([flag.to_owned(), engine.path(name)]);
        }
        let host = format!("unix://{}", engine.path("docker.sock"));
        let mut command = engine.command("dockerd");
        command.args(flags.split(' ')).args(places).args(["--host", &host]);
        engine.run(command, "docker.sock");
        Some(engine)
    }

    /// containerd alone, which moves images without unpacking them.
    fn containerd() -> Option<Self> {
        let program = part("BULLA_DOCKER", "docker")?;
        let bin = program.parent().unwrap();
        let path = [bin.to_owned(), bin.join("../sbin")].map(|path| path.display().to_string()).join(":");
        let path = format!("{path}:{}", std::env::var("PATH").unwrap());
        let mut engine = Self { path, running: Vec::new(), dir: TempDir::new().unwrap() };
        let (root, state, opt) = (engine.path("root"), engine.path("state"), engine.path("opt"));
        let socket = engine.path("containerd.sock");
        engine.write(
            "containerd.toml",
            &format!(
                "version = 2\nroot = \"{root}\"\nstate = \"{state}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                 [grpc]\naddress = \"{socket}\"\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{opt}\"\n"
            ),
        );
        let mut command = engine.command("containerd");
        command.args(["--config", &engine.path("containerd.toml")]);
        engine.run(command, "containerd.sock");
        Some(engine)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn command(&self, program: &str) -> Command {
        let found =
            self.path.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.is_file());
        let mut command = Command::new(found.unwrap_or_else(|| PathBuf::from(program)));
        command
            .current_dir(self.dir.path())
            .env("PATH", &self.path)
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.dir.path())
            .env("DOCKER_HOST", format!("unix://{}", self.path("docker.sock")))
            // The builder that is in the engine.
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CLI_EXPERIMENTAL", "enabled")
            .stdin(Stdio::null());
        command
    }

    /// Starts a server, which listens there.
    fn run(&mut self, mut command: Command, socket: &str) {
        let log = self.path(&format!("{socket}.log"));
        let output = fs::File::create(&log).unwrap();
        command.stdout(output.try_clone().unwrap()).stderr(output);
        self.running.insert(0, command.spawn().unwrap());
        let begun = Instant::now();
        while UnixStream::connect(self.dir.path().join(socket)).is_err() {
            let log = || fs::read_to_string(&log).unwrap();
            assert_eq!(self.running[0].try_wait().unwrap(), None, "it ended: {}", log());
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not start: {}", log());
            std::thread::yield_now();
        }
    }

    fn try_docker(&self, arguments: &[&str]) -> Ran {
        ran(self.command("docker").args(arguments).output().unwrap())
    }

    /// Runs the command, which must succeed; what it printed.
    #[track_caller]
    fn docker(&self, arguments: &[&str]) -> String {
        let ran = self.try_docker(arguments);
        assert_eq!(ran.code, 0, "docker {}: {}", arguments.join(" "), ran.stderr);
        ran.text().trim().to_owned()
    }

    fn try_ctr(&self, arguments: &[&str]) -> Ran {
        let socket = self.path("containerd.sock");
        ran(self.command("ctr").args(["--address", &socket]).args(arguments).output().unwrap())
    }

    /// Runs containerd's command, which must succeed.
    #[track_caller]
    fn ctr(&self, arguments: &[&str]) {
        let ran = self.try_ctr(arguments);
        assert_eq!(ran.code, 0, "ctr {}: {}", arguments.join(" "), ran.stderr);
    }

    /// Builds an image: a file `/name` upon the image `from`.
    fn build(&self, from: &str, name: &str, content: &[u8], image: &str) {
        let context = format!("context-{name}");
        self.write(&format!("{context}/Dockerfile"), &format!("FROM {from}\nCOPY {name} /{name}\n"));
        fs::write(self.dir.path().join(&context).join(name), content).unwrap();
        self.docker(&["build", "-q", "-t", image, &context]);
    }

    /// Pulls an image anew; a file of it.
    fn pulled(&self, image: &str, name: &str) -> Vec<u8> {
        for id in self.docker(&["ps", "-aq"]).lines() {
            self.docker(&["rm", id]);
        }
        self.docker(&["image", "prune", "--all", "--force"]);
        self.docker(&["pull", "-q", image]);
        let container = self.docker(&["create", image, "none"]);
        self.docker(&["cp", &format!("{container}:/{name}"), "got"]);
        fs::read(self.dir.path().join("got")).unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The engine has mounts that only it takes away.
        for server in &mut self.running {
            let _ = Command::new("kill").arg(server.id().to_string()).status();
            let _ = server.wait();
        }
    }
}

#[test]
fn the_engine_builds_pushes_mounts_and_pulls() {
    let Some(engine) = Engine::start() else { return };
    let world = World::with_store();
    let node = Node::start(&world);
    let name = |name: &str| format!("{}/{name}", node.address());
    let (one, two) = (noise(700_000, 1), noise(100_000, 2));
    engine.build("scratch", "one", &one, &name("base:v1"));
    engine.docker(&["push", "-q", &name("base:v1")]);
    engine.build(&name("base:v1"), "two", &two, &name("team/app:v1"));
    let pushed = engine.docker(&["push", &name("team/app:v1")]);
    assert!(pushed.contains("Mounted from base"), "{pushed}");
    assert_eq!(node.manifest("team/app:v1")["layers"].as_array().unwrap().len(), 2);
    assert!(engine.pulled(&name("team/app:v1"), "one") == one);
    assert!(engine.pulled(&name("team/app:v1"), "two") == two);
    let digests =
        engine.docker(&["image", "inspect", "--format", "{{json .RepoDigests}}", &name("team/app:v1")]);
    let digests: Value = serde_json::from_str(&digests).unwrap();
    assert!(pushed.contains(digests[0].as_str().unwrap().rsplit_once('@').unwrap().1), "{pushed} {digests}");
    assert!(engine.pulled(digests[0].as_str().unwrap(), "two") == two);

    // The command itself makes and pushes lists.
    let list = name("multi:v1");
    engine.docker(&["manifest", "create", "--insecure", &list, &name("base:v1"), &name("team/app:v1")]);
    engine.docker(&["manifest", "annotate", "--arch", "s390x", &list, &name("base:v1")]);
    engine.docker(&["manifest", "push", "--insecure", &list]);
    let manifests = node.manifest("multi:v1")["manifests"].clone();
    assert_eq!(manifests.as_array().unwrap().len(), 2);
    engine.docker(&["manifest", "inspect", "--insecure", &list]);
    let absent = engine.try_docker(&["pull", &name("team/app:v2")]);
    assert!(absent.code != 0 && absent.stderr.contains("manifest unknown"), "{}", absent.stderr);
}

#[test]
fn the_engine_pulls_what_others_pushed() {
    let (Some(engine), Some(tools)) = (Engine::start(), Tools::find()) else { return };
    let world = World::with_store();
    let node = Node::start(&world);
    for (seed, tag) in [(3, "one"), (4, "two")] {
        tools.make("made", tag, 2, 100_000, seed);
    }
    tools.index("made", "all", &["one", "two"]);
    tools.copy(&["--all"], "oci:made:all", &node.image("multi:oci"));
    let image = format!("{}/multi:oci", node.address());
    for (platform, seed) in [("linux/amd64", 3), ("linux/arm64", 4)] {
        engine.docker(&["pull", "-q", "--platform", platform, &image]);
        let container = engine.docker(&["create", "--platform", platform, &image, "none"]);
        engine.docker(&["cp", &format!("{container}:/data/{seed}-1"), "got"]);
        assert!(fs::read(engine.path("got")).unwrap() == noise(100_000, seed * 1000 + 1), "{platform}");
    }
}

#[test]
fn the_engine_logs_in() {
    let Some(engine) = Engine::start() else { return };
    let world = World::with_store();
    let node = Authority::new().node_with_users(&world);
    let name = format!("{}/app:v1", node.address());
    let content = noise(60_000, 5);
    engine.build("scratch", "content", &content, &name);
    assert_ne!(engine.try_docker(&["push", "-q", &name]).code, 0);
    let login = |password: &str| engine.try_docker(&["login", "-u", "alice", "-p", password, node.address()]);
    assert_ne!(login("guess").code, 0);
    assert_eq!(login("wonderland").code, 0);
    engine.docker(&["push", "-q", &name]);
    assert!(engine.pulled(&name, "content") == content);
    engine.docker(&["logout", node.address()]);
    assert_ne!(engine.try_docker(&["pull", &name]).code, 0);
}

#[test]
fn the_engine_gets_tokens() {
    let Some(engine) = Engine::start() else { return };
    let world = World::with_store();
    let tokens = TokenServer::start();
    let node = tokens.registry(&world, &[]);
    let name = |name: &str| format!("{}/{name}", node.address());
    let content = noise(60_000, 6);
    engine.build("scratch", "content", &content, &name("team/app:v1"));
    let refused = engine.try_docker(&["push", &name("team/app:v1")]);
    assert!(refused.code != 0 && refused.stderr.contains("denied"), "{}", refused.stderr);
    let login = |password: &str| engine.try_docker(&["login", "-u", "alice", "-p", password, node.address()]);
    assert_ne!(login("guess").code, 0);
    assert_eq!(login("wonderland").code, 0);
    engine.docker(&["push", "-q", &name("team/app:v1")]);
    // With one token for two repositories.
    engine.docker(&["tag", &name("team/app:v1"), &name("other:v1")]);
    let pushed = engine.docker(&["push", &name("other:v1")]);
    assert!(pushed.contains("Mounted from team/app"), "{pushed}");
    engine.docker(&["logout", node.address()]);
    // Anybody may pull.
    assert!(engine.pulled(&name("other:v1"), "content") == content);
    assert!(engine.try_docker(&["push", &name("other:v1")]).stderr.contains("denied"));
}

#[test]
fn containerd_fetches_and_pushes_as_kubernetes_nodes_do() {
    let (Some(engine), Some(tools)) = (Engine::containerd(), Tools::find()) else { return };
    let world = World::with_store();
    let authority = Authority::new();
    let node = authority.node_with_users(&world);
    let open = Node::start(&world);
    for (seed, tag) in [(7, "one"), (8, "two")] {
        tools.make("made", tag, 2, 100_000, seed);
    }
    tools.index("made", "all", &["one", "two"]);
    tools.copy(&["--all"], "oci:made:all", &open.image("library/app:v1"));
    // What a node's `/etc/containerd/certs.d` has.
    let address = node.address();
    engine.write("ca.crt", &authority.pem());
    let ca = engine.path("ca.crt");
    for folder in [address.to_owned(), format!("{}_", address.replace(':', "_"))] {
        let hosts = format!("server = \"https://{address}\"\n[host.\"https://{address}\"]\nca = \"{ca}\"\n");
        engine.write(&format!("hosts/{folder}/hosts.toml"), &hosts);
    }
    let mirror = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", open.address());
    engine.write("hosts/docker.io/hosts.toml", &mirror);
    let hosts = engine.path("hosts");
    let image = format!("{address}/library/app:v1");
    let fetch = |more: &[&str], image: &str| {
        engine.try_ctr(
            &[&["content", "fetch", "--all-platforms", "--hosts-dir", &hosts], more, &[image]].concat(),
        )
    };
    for more in [&[][..], &["--user", "alice:guess"]] {
        let refused = fetch(more, &image);
        assert!(refused.code != 0 && refused.stderr.contains("401 Unauthorized"), "{}", refused.stderr);
    }
    let fetched = fetch(&["--user", "alice:wonderland"], &image);
    assert_eq!(fetched.code, 0, "{}", fetched.stderr);
    // By the name that it has elsewhere: the mirror is asked with `?ns=docker.io`.
    let fetched = fetch(&[], "docker.io/library/app:v1");
    assert_eq!(fetched.code, 0, "{}", fetched.stderr);
    let to = format!("{address}/other:v1");
    engine.ctr(&["images", "tag", "docker.io/library/app:v1", &to]);
    engine.ctr(&["images", "push", "--hosts-dir", &hosts, "--user", "alice:wonderland", &to]);
    tools.copy(&["--all"], &open.image("other:v1"), "oci:got:all");
    assert_eq!(tools.digest("got", "all"), tools.digest("made", "all"));
    let (got, made) = (tools.blobs("got"), tools.blobs("made"));
    assert!(got.len() >= 9 && got.iter().all(|blob| made.contains(blob)), "{got:?}");
    assert_eq!(open.manifest("other:v1")["manifests"][0]["mediaType"], OCI_MANIFEST);
}
