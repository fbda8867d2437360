//! Compiled code on disk, so that a start or a swap need not compile what was compiled before.
//!
//! Whoever can change an entry can do all that this process can. So an entry is only believed where its file and the
//! directory belong to this process' user and nobody else can write them, and where it is as it was written. A cache
//! never fails anything: what cannot be read is compiled, what cannot be written is compiled again the next time.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use std::{env, fmt, process};

use sha2::{Digest as _, Sha256};

use super::precompiled::MachineCode;
use crate::config;

/// More policies than anybody has, with some versions of each.
const ENTRIES_MAX: usize = 64;
/// All entries together.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// One entry. Compiled code has some three to ten times the size of a module, and those are small.
const ENTRY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What an entry begins with; the number changes with the format.
const MAGIC: &[u8] = b"waypost compiled policy 1\n";
const SUFFIX: &str = ".cwasm";
const TEMPORARY: &str = ".tmp";
/// After so long, nobody writes to a temporary file any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// SHA-256.
type Digest = [u8; 32];

/// A directory of compiled policies.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    /// Somebody chose the directory, and will want to know what is wrong with it.
    chosen: bool,
    /// The same trouble is told once.
    told: AtomicBool,
}

/// What compiled code depends on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Key(Digest);

/// Where the code starts in an entry: after the magic, the key and the digest of the code.
const START: usize = MAGIC.len() + 2 * size_of::<Digest>();

// === Key ===

impl Key {
    /// `digest` is that of the policy's bytes. wasmtime's hash covers its own version, every setting that code
    /// generation depends on and the features of this processor; ours covers what wraps modules into components.
    pub(super) fn new(engine: &wasmtime::Engine, digest: &str) -> Key {
        let mut hasher = KeyHasher(Sha256::new());
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        digest.hash(&mut hasher);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Key(hasher.0.finalize().into())
    }

    fn file_name(self) -> String {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        hex + SUFFIX
    }
}

/// Has SHA-256 take the place of a hash that differs from one build of Rust to the next.
struct KeyHasher(Sha256);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Nobody asks for this short form.
    fn finish(&self) -> u64 {
        0
    }
}

// === Cache ===

impl Cache {
    /// `None` where it is switched off, or where there is no place for it.
    pub(super) fn new(settings: &config::Cache) -> Option<Cache> {
        let directory = match settings {
            config::Cache::Off => return None,
            config::Cache::Directory(directory) => Some(directory.clone()),
            config::Cache::User => directory_of_user(|name| env::var_os(name)),
        };
        if directory.is_none() {
            tracing::debug!("compiled policies are not kept: this user has no home");
        }
        Some(Cache {
            directory: directory?,
            chosen: matches!(settings, config::Cache::Directory(_)),
            told: AtomicBool::new(false),
        })
    }

    /// The code kept under a key.
    pub(super) fn load(&self, key: Key) -> Option<MachineCode> {
        let entry = self.read(key);
        entry.unwrap_or_else(|trouble| {
            self.tell("read", &trouble);
            None
        })
    }

    /// Keeps code; it must be that of a [`MachineCode`].
    pub(super) fn store(&self, key: Key, code: &[u8]) {
        let stored = self.write(key, code).and_then(|()| self.evict());
        stored.unwrap_or_else(|trouble| self.tell("write", &trouble));
    }

    fn read(&self, key: Key) -> io::Result<Option<MachineCode>> {
        match fs::metadata(&self.directory) {
            Ok(metadata) => check_private(&self.directory, &metadata)?,
            Err(error) => return absent(error),
        }
        let path = self.directory.join(key.file_name());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => return absent(error),
        };
        check_private(&path, &file.metadata()?)?;
        let mut entry = Vec::new();
        (&file).take(ENTRY_BYTES_MAX).read_to_end(&mut entry)?;
        if !is_whole(&entry, key) {
            tracing::debug!("{} is damaged and will be replaced", path.display());
            return Ok(None);
        }
        // What is used stays.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(MachineCode::kept(entry, START)))
    }

    fn write(&self, key: Key, code: &[u8]) -> io::Result<()> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        if (code.len() + START) as u64 >= ENTRY_BYTES_MAX {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        check_private(&self.directory, &fs::metadata(&self.directory)?)?;
        let path = self.directory.join(key.file_name());
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{number}{TEMPORARY}", process::id()));
        let written = write_entry(&temporary, key, code)
            // Nobody ever sees half an entry.
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes what was not used for longest while there is too much, and what a process left half written.
    fn evict(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Another process may be doing the same.
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let modified = metadata.modified()?;
            if name.ends_with(SUFFIX) {
                entries.push((modified, metadata.len(), path));
            } else if name.ends_with(TEMPORARY)
                && modified.elapsed().is_ok_and(|age| age > ABANDONED)
            {
                let _ = fs::remove_file(&path);
            }
        }
        entries.sort_unstable_by(|a, b| b.cmp(a));
        let mut total = 0;
        for (index, (_, bytes, path)) in entries.iter().enumerate() {
            total += bytes;
            if index >= ENTRIES_MAX || total > BYTES_MAX {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    fn tell(&self, what: &str, trouble: &dyn fmt::Display) {
        let directory = self.directory.display();
        // Whoever did not ask for a cache need not hear that this machine has no room for one.
        if self.told.swap(true, Ordering::Relaxed) || !self.chosen {
            tracing::debug!("cannot {what} compiled policies in {directory}: {trouble}");
        } else {
            tracing::warn!(
                "cannot {what} compiled policies in {directory}, and compiles them each time: {trouble}"
            );
        }
    }
}

/// Where systemd says, or where users keep what can be made again.
fn directory_of_user(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // A relative path would depend on where the program was started.
    let absolute = |name: &str| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let of_service = variable("CACHE_DIRECTORY").and_then(|all| {
        let first = env::split_paths(&all).next();
        first.filter(|path| path.is_absolute())
    });
    of_service
        .or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("waypost")))
        .or_else(|| Some(absolute("HOME")?.join(".cache/waypost")))
}

fn absent<T>(error: io::Error) -> io::Result<Option<T>> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(error),
    }
}

/// Refuses what another user could have written.
fn check_private(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let writable_by_others = metadata.mode() & 0o022 != 0;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if ours && !writable_by_others {
        return Ok(());
    }
    let path = path.display();
    Err(io::Error::other(format!(
        "{path} must belong to the user that runs waypost, and nobody else may write it"
    )))
}

fn write_entry(path: &Path, key: Key, code: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&key.0)?;
    file.write_all(&digest(code))?;
    file.write_all(code)?;
    file.sync_all()
}

/// Whether an entry is what was written under this key, to the last byte.
fn is_whole(entry: &[u8], key: Key) -> bool {
    let rest = entry.strip_prefix(MAGIC);
    let rest = rest.and_then(|rest| rest.strip_prefix(&key.0));
    rest.and_then(|rest| rest.split_first_chunk())
        .is_some_and(|(written, code)| *written == digest(code))
}

fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const KEY: Key = Key([7; 32]);
    const CODE: &[u8] = b"not really code";

    struct Fixture {
        cache: Cache,
        directory: tempfile::TempDir,
    }

    impl Fixture {
        /// An empty cache.
        fn new() -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            let settings = config::Cache::Directory(directory.path().join("a/cache"));
            let cache = Cache::new(&settings).unwrap();
            Fixture { cache, directory }
        }

        /// A cache with [`CODE`] under [`KEY`].
        fn filled() -> Fixture {
            let fixture = Fixture::new();
            fixture.cache.store(KEY, CODE);
            assert_eq!(fixture.load(), Some(CODE.to_vec()));
            fixture
        }

        fn load(&self) -> Option<Vec<u8>> {
            self.cache.load(KEY).map(|code| code.bytes().to_vec())
        }

        fn file(&self) -> PathBuf {
            self.cache.directory.join(KEY.file_name())
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.cache.directory).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn set_age(path: &Path, age: Duration) {
        let file = File::open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn what_was_stored_is_found_under_its_key_alone() {
        let fixture = Fixture::new();
        assert_eq!(fixture.load(), None, "there is not even a directory");
        fixture.cache.store(KEY, CODE);
        assert_eq!(fixture.load(), Some(CODE.to_vec()));
        assert!(fixture.cache.load(Key([8; 32])).is_none());
        // An entry under another's name is none.
        fs::rename(
            fixture.file(),
            fixture.cache.directory.join(Key([8; 32]).file_name()),
        )
        .unwrap();
        assert!(fixture.cache.load(Key([8; 32])).is_none());
    }

    #[test]
    fn nobody_else_can_read_or_write_it() {
        let fixture = Fixture::filled();
        assert_eq!(mode(&fixture.cache.directory), 0o700);
        assert_eq!(mode(&fixture.file()), 0o600);
        assert_eq!(fixture.names(), [KEY.file_name()], "nothing is left over");
    }

    #[test]
    fn damage_anywhere_is_a_miss_and_is_repaired() {
        let fixture = Fixture::filled();
        let whole = fs::read(fixture.file()).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(fixture.file(), &damaged).unwrap();
            assert_eq!(fixture.load(), None, "byte {at} of {}", whole.len());
            fs::write(fixture.file(), &whole[..at]).unwrap();
            assert_eq!(fixture.load(), None, "cut off after {at} bytes");
        }
        fs::write(fixture.file(), [&whole, &b"more"[..]].concat()).unwrap();
        assert_eq!(fixture.load(), None);
        fixture.cache.store(KEY, CODE);
        assert_eq!(fixture.load(), Some(CODE.to_vec()));
    }

    #[test]
    fn what_others_can_write_is_not_believed() {
        for mode in [0o620, 0o602, 0o666] {
            let fixture = Fixture::filled();
            set_mode(&fixture.file(), mode);
            assert_eq!(fixture.load(), None, "{mode:o}");
            // Storing puts a file of our own in its place.
            fixture.cache.store(KEY, CODE);
            assert_eq!(fixture.load(), Some(CODE.to_vec()));
        }
        for mode in [0o770, 0o702, 0o777] {
            let fixture = Fixture::filled();
            set_mode(&fixture.cache.directory, mode);
            assert_eq!(fixture.load(), None, "{mode:o}");
            fs::remove_file(fixture.file()).unwrap();
            fixture.cache.store(KEY, CODE);
            assert!(
                !fixture.file().exists(),
                "{mode:o}: nothing is written there"
            );
        }
        // What systemd makes is readable by all.
        let fixture = Fixture::filled();
        set_mode(&fixture.cache.directory, 0o755);
        assert_eq!(fixture.load(), Some(CODE.to_vec()));
    }

    /// Needs root, as only root can give files away; others see the same through the mode.
    #[test]
    fn what_belongs_to_others_is_not_believed() {
        const NOBODY: Option<u32> = Some(65534);
        let give_away = |path: &Path| std::os::unix::fs::chown(path, NOBODY, None);
        let fixture = Fixture::filled();
        if give_away(&fixture.file()).is_ok() {
            assert_eq!(fixture.load(), None);
        }
        let fixture = Fixture::filled();
        if give_away(&fixture.cache.directory).is_ok() {
            assert_eq!(fixture.load(), None);
        }
    }

    #[test]
    fn a_place_that_cannot_be_used_is_no_trouble() {
        let fixture = Fixture::new();
        fs::write(fixture.directory.path().join("a"), "a file in the way").unwrap();
        fixture.cache.store(KEY, CODE);
        assert_eq!(fixture.load(), None);

        let in_the_way = Fixture::filled();
        fs::remove_file(in_the_way.file()).unwrap();
        fs::create_dir(in_the_way.file()).unwrap();
        in_the_way.cache.store(KEY, CODE);
        assert_eq!(in_the_way.load(), None);
        assert_eq!(in_the_way.names().len(), 1, "no temporary file stays");
    }

    #[test]
    fn what_was_not_used_for_longest_goes() {
        let fixture = Fixture::filled();
        for number in 0..ENTRIES_MAX {
            let key = Key([u8::try_from(100 + number).unwrap(); 32]);
            fixture.cache.store(key, CODE);
            let minutes = u64::try_from(number).unwrap();
            let age = Duration::from_secs(60 * (1000 - minutes));
            set_age(&fixture.cache.directory.join(key.file_name()), age);
            if number == ENTRIES_MAX / 2 {
                // Old as it is, it is used now and then.
                set_age(&fixture.file(), Duration::from_secs(1_000_000));
                assert!(fixture.load().is_some());
            }
        }
        assert_eq!(fixture.names().len(), ENTRIES_MAX);
        assert!(fixture.load().is_some());
        assert!(fixture.cache.load(Key([100; 32])).is_none());
        assert!(fixture.cache.load(Key([101; 32])).is_some());
    }

    #[test]
    fn large_entries_leave_fewer() {
        let fixture = Fixture::filled();
        let large = |number: u8, age: u64| {
            let path = fixture.cache.directory.join(Key([number; 32]).file_name());
            // Sparse: it takes no room.
            File::create(&path).unwrap().set_len(BYTES_MAX / 2).unwrap();
            set_age(&path, Duration::from_secs(age));
            path
        };
        let (older, newer) = (large(1, 200), large(2, 100));
        fixture.cache.store(KEY, CODE);
        assert!(newer.exists() && !older.exists());
        assert!(fixture.load().is_some());
    }

    #[test]
    fn what_a_process_left_half_written_goes_in_time() {
        let fixture = Fixture::filled();
        let path = |name: &str| fixture.cache.directory.join(name);
        for name in ["old.1-0.tmp", "new.1-1.tmp", "notes.txt"] {
            fs::write(path(name), "").unwrap();
        }
        set_age(&path("old.1-0.tmp"), ABANDONED * 2);
        set_age(&path("notes.txt"), ABANDONED * 2);
        fixture.cache.store(KEY, CODE);
        assert!(!path("old.1-0.tmp").exists() && path("new.1-1.tmp").exists());
        assert!(path("notes.txt").exists(), "not ours");
    }

    #[test]
    fn the_key_changes_with_the_policy_and_the_engine() {
        let engine = wasmtime::Engine::default();
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let other = wasmtime::Engine::new(&config).unwrap();
        let key = Key::new(&engine, "aa");
        assert_eq!(key, Key::new(&wasmtime::Engine::default(), "aa"));
        assert_ne!(key, Key::new(&engine, "ab"));
        assert_ne!(key, Key::new(&other, "aa"));
    }

    #[test]
    fn the_place_is_that_of_the_service_or_of_the_user() {
        let place = |set: &[(&str, &str)]| {
            let path = directory_of_user(|name| {
                let (_, value) = set.iter().find(|(set, _)| *set == name)?;
                Some(value.into())
            });
            path.map(|path| path.display().to_string())
        };
        let user = [("XDG_CACHE_HOME", "/x"), ("HOME", "/home/u")];
        assert_eq!(place(&user).as_deref(), Some("/x/waypost"));
        assert_eq!(place(&user[1..]).as_deref(), Some("/home/u/.cache/waypost"));
        let service = [("CACHE_DIRECTORY", "/var/cache/a:/b"), user[0]];
        assert_eq!(place(&service).as_deref(), Some("/var/cache/a"));
        let relative = [("XDG_CACHE_HOME", "x"), ("CACHE_DIRECTORY", "")];
        assert_eq!(place(&relative), None);
        assert!(Cache::new(&config::Cache::Off).is_none());
    }
}
