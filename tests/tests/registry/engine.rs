//! Docker's engine and containerd, as programs of each test's own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bulla_tests::part;
use tempfile::TempDir;

use crate::world::{Ran, ran};

/// containerd and, where it can work, the engine; ended on drop.
pub(crate) struct Engine {
    /// Where their programs are.
    path: String,
    /// The engine first.
    running: Vec<Child>,
    dir: TempDir,
}

impl Engine {
    /// `None`: it is not here or can't work here, and the test is skipped.
    pub(crate) fn start() -> Option<Self> {
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
        if engine.run(command, "docker.sock") {
            return Some(engine);
        }
        bulla_tests::forbidden(&format!("Docker's engine can't work here: {}", engine.said("docker.sock")));
        None
    }

    /// containerd alone, which moves images without unpacking them.
    pub(crate) fn containerd() -> Option<Self> {
        part("BULLA_DOCKER", "docker").map(|docker| Self::containerd_beside(&docker))
    }

    fn containerd_beside(program: &Path) -> Self {
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
        assert!(engine.run(command, "containerd.sock"), "{}", engine.said("containerd.sock"));
        engine
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
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

    /// Starts a server and waits until it listens there. `false`: it ended.
    fn run(&mut self, mut command: Command, socket: &str) -> bool {
        let log = fs::File::create(self.log(socket)).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.running.insert(0, command.spawn().unwrap());
        let begun = Instant::now();
        while UnixStream::connect(self.dir.path().join(socket)).is_err() {
            if self.running[0].try_wait().unwrap().is_some() {
                return false;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not start: {}", self.said(socket));
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    fn log(&self, socket: &str) -> String {
        self.path(&format!("{socket}.log"))
    }

    /// What a server said last.
    fn said(&self, socket: &str) -> String {
        fs::read_to_string(self.log(socket)).unwrap().lines().last().unwrap_or_default().to_owned()
    }

    pub(crate) fn try_docker(&self, arguments: &[&str]) -> Ran {
        ran(self.command("docker").args(arguments).output().unwrap())
    }

    /// Runs the command, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let ran = self.try_docker(arguments);
        assert_eq!(ran.code, 0, "docker {}: {}", arguments.join(" "), ran.stderr);
        ran.text().trim().to_owned()
    }

    pub(crate) fn try_ctr(&self, arguments: &[&str]) -> Ran {
        let socket = self.path("containerd.sock");
        ran(self.command("ctr").args(["--address", &socket]).args(arguments).output().unwrap())
    }

    /// Runs containerd's command, which must succeed.
    #[track_caller]
    pub(crate) fn ctr(&self, arguments: &[&str]) {
        let ran = self.try_ctr(arguments);
        assert_eq!(ran.code, 0, "ctr {}: {}", arguments.join(" "), ran.stderr);
    }

    /// Builds an image: a file `/name` upon the image `from`.
    pub(crate) fn build(&self, from: &str, name: &str, content: &[u8], image: &str) {
        let context = format!("context-{name}");
        self.write(&format!("{context}/Dockerfile"), &format!("FROM {from}\nCOPY {name} /{name}\n"));
        fs::write(self.dir.path().join(&context).join(name), content).unwrap();
        self.docker(&["build", "-q", "-t", image, &context]);
    }

    /// Pulls an image anew; a file of it.
    pub(crate) fn pulled(&self, image: &str, name: &str) -> Vec<u8> {
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
