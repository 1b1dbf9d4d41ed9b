//! `ai-semble keys`: the orchestrator's key file. A key's text is shown once and never stored, but
//! for the one that this command uses itself.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aisemble_protocol::keys::{KeyFile, KeyFileError, KeyRecord, Scope};
use serde_json::json;

use crate::args::{Global, KeysCommand, KeysCreate};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::{Home, SECRET_MODE, write_atomically};
use crate::terminal::{Terminal, span};

/// What the command's own key opens: everything but other keys' jobs.
const OWN_SCOPES: [Scope; 6] =
    [Scope::Llm, Scope::Vision, Scope::Nlp, Scope::Data, Scope::Jobs, Scope::Metrics];
/// Bytes of a key file.
const KEYS_BYTES_MAX: u64 = 4 * 1024 * 1024;
const NAME_CHARS_MAX: usize = 100;

/// Runs the command.
///
/// # Errors
/// When the key file cannot be read or written, or there is no such key.
pub fn run(global: &Global, command: KeysCommand, terminal: Terminal) -> Outcome<()> {
    let home = Home::named(global)?;
    match command {
        KeysCommand::Create(options) => create(&home, &options, terminal),
        KeysCommand::List => list(&home, terminal),
        KeysCommand::Revoke { id } => revoke(&home, &id, terminal),
    }
}

/// Makes the key file and the command's own key if one of them is missing. Tells whether it did.
///
/// # Errors
/// When a file cannot be read or written.
pub fn ensure(home: &Home) -> Outcome<bool> {
    let (has_keys, has_own) = (home.keys().exists(), home.client_key().exists());
    if has_keys && has_own {
        return Ok(false);
    }
    let _lock = lock(home)?;
    let mut file = if has_keys { read(&home.keys())? } else { generate()? };
    let secret = file.create("ai-semble command", &OWN_SCOPES, now_ms(), None).map_err(wrong)?;
    // The record first: a key that is known nowhere is worse than a record that nobody uses.
    write(home, &file)?;
    let text = format!("{}\n", secret.reveal());
    write_atomically(&home.client_key(), text.as_bytes(), SECRET_MODE)?;
    Ok(true)
}

fn create(home: &Home, options: &KeysCreate, terminal: Terminal) -> Outcome<()> {
    let chars = options.name.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX || options.name.contains(char::is_control) {
        let limit = NAME_CHARS_MAX;
        return Err(Failure::new(Exit::Usage, format!("a key's name has 1 to {limit} characters")));
    }
    home.ensure()?;
    let _lock = lock(home)?;
    let mut file = if home.keys().exists() { read(&home.keys())? } else { generate()? };
    let now = now_ms();
    let expires_at_ms = options.expires.map(|span_ms| now + span_ms);
    let mut scopes = options.scope.clone();
    scopes.sort_unstable();
    scopes.dedup();
    let secret = file.create(&options.name, &scopes, now, expires_at_ms).map_err(wrong)?;
    write(home, &file)?;
    let id = file.keys.last().map(|record| record.id.clone()).unwrap_or_default();
    if let Some(path) = &options.output {
        let text = format!("{}\n", secret.reveal());
        write_atomically(path, text.as_bytes(), SECRET_MODE)?;
        terminal.note(&format!("Made {id}; its text is in {}", path.display()));
    }
    let shown = options.output.is_none().then(|| secret.reveal());
    if terminal.json {
        return terminal.data(&json!({
            "id": id,
            "key": shown,
            "scopes": scopes,
            "expires_at_ms": expires_at_ms,
        }));
    }
    let Some(text) = shown else { return Ok(()) };
    terminal.note(&format!("Made {id}. This is the only time that the key is shown:"));
    terminal.line(text)
}

fn list(home: &Home, terminal: Terminal) -> Outcome<()> {
    let file = if home.keys().exists() { Some(read(&home.keys())?) } else { None };
    let keys = file.map(|file| file.keys).unwrap_or_default();
    let now = now_ms();
    if terminal.json {
        let public: Vec<_> = keys.iter().map(|key| public(key, now)).collect();
        return terminal.data(&json!({ "keys": public }));
    }
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
            let age = Duration::from_millis(now.saturating_sub(key.created_at_ms));
            vec![
                key.id.clone(),
                key.name.clone(),
                scopes.join(","),
                format!("{} ago", span(age)),
                standing(key, now),
            ]
        })
        .collect();
    terminal.table(&["ID", "NAME", "SCOPES", "MADE", "STATE"], &rows)
}

fn revoke(home: &Home, id: &str, terminal: Terminal) -> Outcome<()> {
    home.ensure()?;
    let _lock = lock(home)?;
    let mut file = read(&home.keys())?;
    let now = now_ms();
    let Some(record) = file.keys.iter_mut().find(|record| record.id == id) else {
        return Err(Failure::new(Exit::Failed, format!("there is no key {id:?}"))
            .hint("`ai-semble keys list` shows their ids"));
    };
    if record.revoked_at_ms.is_none() {
        record.revoked_at_ms = Some(now);
    }
    let shown = public(record, now);
    write(home, &file)?;
    if terminal.json {
        return terminal.data(&shown);
    }
    terminal.note(&format!("Took {id} back"));
    Ok(())
}

/// A record without its hash.
fn public(key: &KeyRecord, now_ms: u64) -> serde_json::Value {
    json!({
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "created_at_ms": key.created_at_ms,
        "expires_at_ms": key.expires_at_ms,
        "revoked_at_ms": key.revoked_at_ms,
        "live": key.is_live(now_ms),
    })
}

fn standing(key: &KeyRecord, now_ms: u64) -> String {
    match (key.revoked_at_ms, key.expires_at_ms) {
        (Some(_), _) => "revoked".to_owned(),
        (None, Some(at)) if at <= now_ms => "expired".to_owned(),
        (None, Some(at)) => format!("ends in {}", span(Duration::from_millis(at - now_ms))),
        (None, None) => "live".to_owned(),
    }
}

fn lock(home: &Home) -> Outcome<fs::File> {
    home.try_lock("keys")?.ok_or_else(|| {
        Failure::new(Exit::TryLater, "another command is changing the keys").hint("try again")
    })
}

fn read(path: &Path) -> Outcome<KeyFile> {
    let too_large = fs::metadata(path).is_ok_and(|data| data.len() > KEYS_BYTES_MAX);
    if too_large {
        let message = format!("{} is larger than {KEYS_BYTES_MAX} bytes", path.display());
        return Err(Failure::new(Exit::Failed, message));
    }
    let text = fs::read(path).map_err(|error| Failure::file("read", path, error))?;
    serde_json::from_slice(&text).map_err(|error| {
        Failure::new(Exit::Failed, format!("{} is no key file", path.display()))
            .because(error)
            .hint("put it back from a backup, or move it away and make new keys")
    })
}

fn write(home: &Home, file: &KeyFile) -> Outcome<()> {
    let text = serde_json::to_vec_pretty(file)
        .map_err(|error| Failure::new(Exit::Failed, "cannot encode the key file").because(error))?;
    write_atomically(&home.keys(), &text, SECRET_MODE)
}

fn generate() -> Outcome<KeyFile> {
    KeyFile::generate().map_err(wrong)
}

fn wrong(error: KeyFileError) -> Failure {
    Failure::new(Exit::Failed, "cannot make a key").because(error)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::home::read_secret;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(&folder.path().join("home"));
        home.ensure().unwrap();
        (folder, home)
    }

    #[test]
    fn the_first_start_makes_a_key_that_opens_and_the_second_keeps_it() {
        let (_folder, home) = home();
        assert!(ensure(&home).unwrap());
        let key = read_secret(&home.client_key()).unwrap();
        let file = read(&home.keys()).unwrap();
        let record = file.find(&key, now_ms()).unwrap().unwrap();
        assert!(record.opens(Scope::Llm) && !record.opens(Scope::Admin));
        for path in [home.keys(), home.client_key()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(!ensure(&home).unwrap());
        assert_eq!(read_secret(&home.client_key()).unwrap(), key);
        // A lost client key is made anew beside the others.
        fs::remove_file(home.client_key()).unwrap();
        assert!(ensure(&home).unwrap());
        assert_eq!(read(&home.keys()).unwrap().keys.len(), 2);
    }

    #[test]
    fn a_broken_key_file_is_never_overwritten() {
        let (_folder, home) = home();
        fs::write(home.keys(), b"{\"pepper\":").unwrap();
        assert!(ensure(&home).unwrap_err().message.contains("no key file"));
        assert_eq!(fs::read(home.keys()).unwrap(), b"{\"pepper\":");
        assert!(!home.client_key().exists());
    }

    #[test]
    fn a_revoked_key_opens_nothing_and_stays_listed() {
        let (_folder, home) = home();
        ensure(&home).unwrap();
        let key = read_secret(&home.client_key()).unwrap();
        let id = read(&home.keys()).unwrap().keys[0].id.clone();
        let terminal = Terminal::new(true, true);
        revoke(&home, &id, terminal).unwrap();
        let file = read(&home.keys()).unwrap();
        assert!(file.find(&key, now_ms()).unwrap().is_none());
        assert_eq!(standing(&file.keys[0], now_ms()), "revoked");
        assert!(revoke(&home, "key_no", terminal).is_err());
        let shown = public(&file.keys[0], now_ms()).to_string();
        assert!(!shown.contains(&file.keys[0].hash) && !shown.contains(&key));
    }
}
