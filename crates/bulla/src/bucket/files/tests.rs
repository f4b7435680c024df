use std::collections::BTreeSet;
use std::env;
use std::process::Command;
use std::thread;

use object_store::ObjectStoreExt;
use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, FileStore) {
    let temp = tempfile::tempdir().unwrap();
    let store = FileStore::create(temp.path().join("store")).unwrap();
    (temp, store)
}

fn key(text: &str) -> Path {
    Path::from(text)
}

async fn put(store: &FileStore, location: &str, text: &str, mode: PutMode) -> Result<UpdateVersion> {
    let payload = PutPayload::from(text.to_owned());
    store.put_opts(&key(location), payload, PutOptions::from(mode)).await.map(UpdateVersion::from)
}

async fn read(store: &FileStore, location: &str) -> (String, UpdateVersion) {
    let result = store.get(&key(location)).await.unwrap();
    let version = UpdateVersion { e_tag: result.meta.e_tag.clone(), version: result.meta.version.clone() };
    (String::from_utf8(result.bytes().await.unwrap().to_vec()).unwrap(), version)
}

async fn names(store: &FileStore) -> Vec<String> {
    let mut names: Vec<_> =
        store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
    names.sort();
    names
}

#[tokio::test]
async fn etags_are_those_of_the_local_file_system() {
    let (_temp, store) = store();
    for mode in [PutMode::Create, PutMode::Overwrite] {
        let written = put(&store, "a/b", "text", mode).await.unwrap();
        assert_eq!(written.e_tag, store.inner.head(&key("a/b")).await.unwrap().e_tag);
    }
}

/// A file that was written an hour before it was put in its place, by a process that hung in between.
#[tokio::test]
async fn a_file_is_placed_when_it_is_linked_or_renamed_not_when_it_was_written() {
    let (_temp, store) = store();
    let hour = Duration::from_secs(60 * 60);
    for name in ["linked", "renamed"] {
        let began = SystemTime::now();
        let staged = store.root().join(format!("{name}#1"));
        let file = fs::File::create(&staged).unwrap();
        file.set_modified(began - hour).unwrap();
        if name == "linked" {
            fs::hard_link(&staged, store.root().join(name)).unwrap();
        } else {
            fs::rename(&staged, store.root().join(name)).unwrap();
        }
        let written: SystemTime = store.head(&key(name)).await.unwrap().last_modified.into();
        assert!(written <= began - hour);
        let placed = store.placed(&key(name)).await.unwrap();
        assert!(placed >= began - Duration::from_secs(1), "{placed:?} {began:?}");
    }
    assert!(matches!(store.placed(&key("nothing")).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn updates_only_the_version_that_was_read() {
    let (_temp, store) = store();
    let first = put(&store, "a", "1", PutMode::Create).await.unwrap();
    assert!(matches!(put(&store, "a", "x", PutMode::Create).await, Err(Error::AlreadyExists { .. })));
    let second = put(&store, "a", "2", PutMode::Update(first.clone())).await.unwrap();
    assert!(matches!(put(&store, "a", "x", PutMode::Update(first)).await, Err(Error::Precondition { .. })));
    assert_eq!(read(&store, "a").await, ("2".into(), second.clone()));
    assert!(matches!(put(&store, "b", "x", PutMode::Update(second)).await, Err(Error::Precondition { .. })));
    let no_version = UpdateVersion { e_tag: None, version: None };
    assert!(matches!(put(&store, "a", "x", PutMode::Update(no_version)).await, Err(Error::Generic { .. })));
    assert_eq!(names(&store).await, ["a"]);
    let on_disk = fs::read_dir(store.root()).unwrap().flatten();
    let staged = on_disk.filter(|entry| entry.file_name().to_string_lossy().contains('#'));
    assert_eq!(staged.count(), 0, "no staging file stays behind");
}

#[tokio::test]
async fn deletes_only_the_version_that_was_read() {
    let (_temp, store) = store();
    let first = put(&store, "a", "1", PutMode::Create).await.unwrap();
    let second = put(&store, "a", "2", PutMode::Update(first.clone())).await.unwrap();
    assert!(matches!(store.delete_if(&key("a"), first).await, Err(Error::Precondition { .. })));
    store.delete_if(&key("a"), second.clone()).await.unwrap();
    assert!(matches!(store.delete_if(&key("a"), second).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.head(&key("a")).await, Err(Error::NotFound { .. })));
    put(&store, "a", "3", PutMode::Create).await.unwrap();
}

/// Inodes are used again at once and file times tick slowly; see the argument at the top of the module.
#[tokio::test]
async fn no_two_contents_of_one_name_have_the_same_etag() {
    let (_temp, store) = store();
    let mut seen = BTreeSet::new();
    let mut version = put(&store, "a", "00", PutMode::Create).await.unwrap();
    for round in 0..100 {
        assert!(seen.insert(version.e_tag.clone()), "round {round}");
        version = match round % 4 {
            0 | 1 => put(&store, "a", "xx", PutMode::Update(version)).await.unwrap(),
            2 => put(&store, "a", "xx", PutMode::Overwrite).await.unwrap(),
            _ => {
                if round % 8 == 3 {
                    store.delete_if(&key("a"), version).await.unwrap();
                } else {
                    store.delete(&key("a")).await.unwrap();
                }
                put(&store, "a", "xx", PutMode::Create).await.unwrap()
            }
        };
    }
}

/// Adds one to a number in a file, `times` times, against whoever else does.
async fn count_up(store: &FileStore, times: usize) {
    for _ in 0..times {
        loop {
            let (text, version) = read(store, "count").await;
            let next = (text.parse::<u64>().unwrap() + 1).to_string();
            match put(store, "count", &next, PutMode::Update(version)).await {
                Ok(_) => break,
                Err(Error::Precondition { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn threads_that_race_lose_no_update() {
    let (_temp, store) = store();
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime().block_on(put(&store, "count", "0", PutMode::Create)).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            // One store of their own each, as several opens in one program have.
            let store = FileStore::open(store.root()).unwrap();
            scope.spawn(move || runtime().block_on(count_up(&store, 15)));
        }
    });
    assert_eq!(runtime().block_on(read(&store, "count")).0, "60");
}

const RACE_DIR: &str = "BULLA_TEST_RACE_DIR";

#[tokio::test]
async fn processes_that_race_lose_no_update() {
    let (_temp, store) = store();
    put(&store, "count", "0", PutMode::Create).await.unwrap();
    let spawn = || {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "bucket::files::tests::racing_process", "--test-threads=1"])
            .env(RACE_DIR, store.root())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let children = [spawn(), spawn(), spawn()];
    count_up(&store, 15).await;
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(read(&store, "count").await.0, "60");
}

/// Not a test of its own: what `processes_that_race_lose_no_update` starts.
#[tokio::test]
async fn racing_process() {
    if let Some(root) = env::var_os(RACE_DIR) {
        count_up(&FileStore::open(root).unwrap(), 15).await;
    }
}

#[tokio::test]
async fn the_lock_is_no_object() {
    let (_temp, store) = store();
    let version = put(&store, "a", "1", PutMode::Create).await.unwrap();
    put(&store, "a", "2", PutMode::Update(version)).await.unwrap();
    assert!(store.root().join(".bulla.lock").is_file());
    assert_eq!(names(&store).await, ["a"]);
    let listed = store.list_with_delimiter(None).await.unwrap();
    assert_eq!(listed.objects.len(), 1);
    let lock = key(".bulla.lock");
    assert!(store.get(&lock).await.is_err());
    assert!(store.delete(&lock).await.is_err());
    assert!(put(&store, ".bulla.lock", "x", PutMode::Overwrite).await.is_err());
}

#[tokio::test]
async fn staging_files_of_killed_writers_are_removed_after_an_hour() {
    let (_temp, store) = store();
    put(&store, "a/b", "1", PutMode::Create).await.unwrap();
    let leave = |name: &str, age: Duration| {
        let path = store.root().join(name);
        fs::write(&path, "half").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let stale = leave("a/b#1", hours(2));
    let fresh = leave("a/c#1", hours(0));
    let other = leave("a/d", hours(2));
    assert_eq!(names(&store).await, ["a/b", "a/d"]);
    assert_eq!(staging::sweep(store.root(), STALE), 1);
    assert!(!stale.exists() && fresh.exists() && other.exists());
}

#[tokio::test]
async fn a_copy_is_a_new_file_with_a_new_time() {
    let (_temp, store) = store();
    put(&store, "a", "text", PutMode::Create).await.unwrap();
    let old = fs::File::options().write(true).open(store.root().join("a")).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    store.copy_if_not_exists(&key("a"), &key("b/c")).await.unwrap();
    store.copy(&key("a"), &key("b/c")).await.unwrap();
    assert!(matches!(
        store.copy_if_not_exists(&key("a"), &key("b/c")).await,
        Err(Error::AlreadyExists { .. })
    ));
    assert!(matches!(store.copy(&key("none"), &key("b/c")).await, Err(Error::NotFound { .. })));
    let (from, to) = (store.head(&key("a")).await.unwrap(), store.head(&key("b/c")).await.unwrap());
    assert!(to.last_modified > from.last_modified);
    assert_ne!(to.e_tag, from.e_tag);
    assert_eq!(read(&store, "b/c").await.0, "text");
    store.rename(&key("b/c"), &key("d")).await.unwrap();
    assert_eq!(names(&store).await, ["a", "d"]);
}

#[tokio::test]
async fn many_deletes_each_have_an_answer() {
    let (_temp, store) = store();
    for name in ["a", "b/c", "b/d"] {
        put(&store, name, "x", PutMode::Create).await.unwrap();
    }
    let locations = ["a", "none", "b/c"].map(|name| Ok(key(name)));
    let results: Vec<_> = store.delete_stream(stream::iter(locations).boxed()).collect().await;
    assert!(matches!(&results[..], [Ok(_), Err(Error::NotFound { .. }), Ok(_)]));
    assert_eq!(names(&store).await, ["b/d"]);
}

#[test]
fn a_missing_folder_is_not_made_by_opening_it() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("a/b");
    assert_eq!(FileStore::open(&root).unwrap_err().kind(), BucketErrorKind::NotFound);
    assert!(!temp.path().join("a").exists());
    fs::write(temp.path().join("file"), "").unwrap();
    assert_eq!(FileStore::create(temp.path().join("file")).unwrap_err().kind(), BucketErrorKind::Invalid);
    FileStore::create(&root).unwrap();
    FileStore::open(&root).unwrap();
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&root).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700, "for the owner only");
    }
}

#[test]
fn works_without_a_runtime() {
    let (_temp, store) = store();
    futures::executor::block_on(async {
        let first = put(&store, "a", "1", PutMode::Create).await.unwrap();
        put(&store, "a", "2", PutMode::Update(first)).await.unwrap();
        assert_eq!(read(&store, "a").await.0, "2");
    });
}

#[tokio::test]
async fn a_buffer_that_is_used_again_gives_nothing_of_its_last_use() {
    let (_temp, store) = store();
    put(&store, "long", "a longer text", PutMode::Create).await.unwrap();
    put(&store, "short", "text", PutMode::Create).await.unwrap();
    let buffers = Buffers::default();
    assert_eq!(store.read(&key("long"), 2..13, &buffers).await.unwrap(), "longer text");
    assert_eq!(store.read(&key("short"), 1..4, &buffers).await.unwrap(), "ext");
    let beyond = store.read(&key("short"), 1..5, &buffers).await.unwrap_err();
    assert!(matches!(beyond, Error::Generic { .. }), "{beyond:?}");
    assert!(matches!(store.read(&key("none"), 0..4, &buffers).await, Err(Error::NotFound { .. })));
}
