//! The home directory: which file lies where, who may read it, how it is written, and the lock that
//! keeps a second `up` away.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use crate::args::Global;
use crate::failure::{Exit, Failure, Outcome};

/// Directory mode: the owner only.
const DIR_MODE: u32 = 0o700;
/// Mode of every file with a secret.
pub const SECRET_MODE: u32 = 0o600;
/// A secret file is this long at most, bytes.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// The paths of local mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The home that the options name, or the default one. Nothing is made.
    ///
    /// # Errors
    /// When neither an option nor `HOME` names a directory.
    pub fn named(global: &Global) -> Outcome<Self> {
        let root = match &global.home {
            Some(root) => root.clone(),
            None => default_root()?,
        };
        let root = std::path::absolute(&root)
            .map_err(|error| Failure::file("make absolute", &root, error))?;
        Ok(Self { root })
    }

    /// A home at `root`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Installed models, a directory each.
    #[must_use]
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// Packages that models are taken out of, until they are.
    #[must_use]
    pub fn packages(&self) -> PathBuf {
        self.root.join("packages")
    }

    /// What the orchestrator keeps: `jobs.db`.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Uploaded files and results.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// Hashes of the API keys, alone in their directory: the orchestrator may read all of it.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys/keys.json")
    }

    /// The key that this command uses itself.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.root.join("client-key")
    }

    /// Sockets and the state of `up`.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Socket of the llm service, alone in its directory.
    #[must_use]
    pub fn llm_socket(&self) -> PathBuf {
        self.root.join("run/llm/llm.sock")
    }

    /// Who runs: written by `up`.
    #[must_use]
    pub fn up_state(&self) -> PathBuf {
        self.root.join("run/up.json")
    }

    /// Log of a process.
    #[must_use]
    pub fn log(&self, process: &str) -> PathBuf {
        self.root.join("logs").join(format!("{process}.log"))
    }

    /// Makes the directories that are missing, 0700, and refuses a home that others can write.
    ///
    /// # Errors
    /// When one cannot be made, or others may write in the home.
    pub fn ensure(&self) -> Outcome<()> {
        for path in [
            self.root.clone(),
            self.models(),
            self.data(),
            self.root.join("keys"),
            self.run(),
            self.root.join("run/llm"),
            self.root.join("logs"),
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(DIR_MODE)
                .create(&path)
                .map_err(|error| Failure::file("make the directory", &path, error))?;
        }
        let mode = self.mode()?;
        if mode & 0o022 != 0 {
            return Err(Failure::new(
                Exit::Failed,
                format!("others may write in {} (mode {mode:o})", self.root.display()),
            )
            .hint(format!("chmod 700 {}", self.root.display())));
        }
        Ok(())
    }

    /// Permission bits of the home.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn mode(&self) -> Outcome<u32> {
        let data = fs::metadata(&self.root)
            .map_err(|error| Failure::file("look at", &self.root, error))?;
        Ok(data.permissions().mode() & 0o777)
    }

    /// Takes the lock of `name`, for as long as the file lives. None when another process has it.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn try_lock(&self, name: &str) -> Outcome<Option<File>> {
        let path = self.run().join(format!("{name}.lock"));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(SECRET_MODE)
            .open(&path)
            .map_err(|error| Failure::file("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(Failure::file("lock", &path, error)),
        }
    }
}

fn default_root() -> Outcome<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let user = std::env::var_os("HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    data.or_else(|| user.map(|user| user.join(".local/share")))
        .map(|data| data.join("ai-semble"))
        .ok_or_else(|| {
            Failure::new(Exit::Usage, "no home directory is known: HOME is not set")
                .hint("name one with --home DIR")
        })
}

/// Writes a file so that a reader sees the old content or the new one, never a part, and a power
/// cut loses neither: temporary name, fsync, rename, fsync of the directory.
///
/// # Errors
/// When a step fails; the temporary file is then removed and the old file untouched.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Outcome<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let temporary =
        folder.join(format!(".{}.{}.new", name.unwrap_or_default(), std::process::id()));
    let written = (|| {
        let _ = fs::remove_file(&temporary);
        let mut file =
            OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Failure::file("write", path, error)
    })
}

/// Reads a file that holds a secret on one line.
///
/// # Errors
/// When it is not there, larger than a key, not text, empty, or readable by others.
pub fn read_secret(path: &Path) -> Outcome<String> {
    let data = fs::metadata(path).map_err(|error| Failure::file("read the key", path, error))?;
    let mode = data.permissions().mode() & 0o777;
    let owner = data.uid();
    if mode & 0o077 != 0 && owner == rustix::process::geteuid().as_raw() {
        return Err(Failure::new(
            Exit::NotAllowed,
            format!("others may read {} (mode {mode:o})", path.display()),
        )
        .hint(format!("chmod 600 {}", path.display())));
    }
    if data.len() > KEY_FILE_BYTES_MAX {
        return Err(Failure::new(Exit::Usage, format!("{} is no key file", path.display())));
    }
    let text =
        fs::read_to_string(path).map_err(|error| Failure::file("read the key", path, error))?;
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(Failure::new(Exit::Usage, format!("{} holds no key", path.display()))
            .hint("it must hold one line, the key"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_private_and_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(&folder.path().join("a/b"));
        home.ensure().unwrap();
        home.ensure().unwrap();
        assert_eq!(home.mode().unwrap(), 0o700);
        let lock = home.try_lock("up").unwrap();
        assert!(lock.is_some());
        assert!(home.try_lock("up").unwrap().is_none());
        drop(lock);
        assert!(home.try_lock("up").unwrap().is_some());
        fs::set_permissions(home.root(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(home.ensure().unwrap_err().hint.unwrap().starts_with("chmod 700"));
    }

    #[test]
    fn a_write_replaces_the_whole_file_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        write_atomically(&path, b"old", SECRET_MODE).unwrap();
        write_atomically(&path, b"new", SECRET_MODE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A directory in the way: the rename fails, and no temporary file stays.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("inside"), b"x").unwrap();
        assert!(write_atomically(&taken, b"new", SECRET_MODE).is_err());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_key_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client-key");
        write_atomically(&path, b"ais_1\n", SECRET_MODE).unwrap();
        assert_eq!(read_secret(&path).unwrap(), "ais_1");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_secret(&path).unwrap_err().exit, Exit::NotAllowed);
        write_atomically(&path, b" \n", SECRET_MODE).unwrap();
        assert!(read_secret(&path).is_err());
        write_atomically(&path, &[b'a'; 9000], SECRET_MODE).unwrap();
        assert!(read_secret(&path).is_err());
    }
}
