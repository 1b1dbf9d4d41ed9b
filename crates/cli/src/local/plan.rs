//! What `up` starts: which binaries with which configuration. The services' settings come from
//! `configs/SERVICE.toml` in the home, then `--set`, then the paths that local mode fixes.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::{Table, Value};

use super::child::ChildSpec;
use crate::args::Up;
use crate::catalog::Catalog;
use crate::failure::{Exit, Failure, Outcome};
use crate::home::{Home, write_atomically};
use crate::models::Installed;
use crate::terminal::Terminal;

/// Services that local mode starts, in the order of starting; they are stopped in the other order.
pub const SERVICES: [&str; 2] = ["llm", "orchestrator"];
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Everything that is to be started.
#[derive(Debug)]
pub struct Plan {
    /// The model, digest checked.
    pub model: Installed,
    /// The children in the order of starting.
    pub children: Vec<ChildSpec>,
}

/// Where the binary of a service lies.
///
/// # Errors
/// When it is not there.
pub fn binary(service: &str, bin_dir: Option<&Path>) -> Outcome<PathBuf> {
    let name = format!("ai-semble-{service}");
    let folder = match bin_dir {
        Some(folder) => std::path::absolute(folder),
        None => std::env::current_exe()
            .map(|own| own.parent().map_or_else(PathBuf::new, Path::to_path_buf)),
    };
    let folder = folder.map_err(|error| {
        Failure::new(Exit::Failed, "cannot tell where this program lies").because(error)
    })?;
    let path = folder.join(&name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(Exit::Failed, format!("there is no {name} in {}", folder.display()))
        .hint("`scripts/setup.sh --local` builds and installs all programs; or name --bin-dir"))
}

/// Finds the model and checks it.
///
/// # Errors
/// When it is not installed, or its digest is wrong.
pub fn model(home: &Home, options: &Up, terminal: Terminal) -> Outcome<Installed> {
    let catalog = Catalog::load(options.catalog.catalog.as_deref())?;
    let name = match &options.model {
        Some(name) => name.clone(),
        None => catalog.pick(None)?.name.clone(),
    };
    crate::catalog::check_name(&name).map_err(|why| Failure::new(Exit::Usage, why))?;
    let Some(model) = Installed::find(home, &catalog, &name)? else {
        return Err(Failure::new(Exit::Failed, format!("the model {name} is not installed"))
            .hint(format!("ai-semble models pull {name}")));
    };
    let found = model.digest(home, terminal)?;
    if found != model.sha256 {
        let path = model.path(home);
        let message = format!("{} is not the file it should be", path.display());
        return Err(Failure::new(Exit::CheckFailed, message)
            .because(format!("expected sha256 {}, found {found}", model.sha256))
            .hint(format!("ai-semble models pull --force {name}")));
    }
    Ok(model)
}

/// Lays down the services' configuration and says how each is started.
///
/// # Errors
/// When a binary is missing, or a setting cannot be understood.
pub fn make(
    home: &Home,
    options: &Up,
    model: Installed,
    listener: &Arc<TcpListener>,
) -> Outcome<Plan> {
    let settings = settings(&options.set)?;
    let mut children = Vec::new();
    for service in SERVICES {
        let program = binary(service, options.bin_dir.as_deref())?;
        let mut config = user_config(home, service)?;
        for (key, value) in settings.iter().filter(|(of, ..)| of == service).map(|(_, k, v)| (k, v))
        {
            put(&mut config, key, value.clone())?;
        }
        for (key, value) in fixed(home, service, &model, options) {
            put(&mut config, &key.split('.').map(str::to_owned).collect::<Vec<_>>(), value)?;
        }
        let path = home.run().join(format!("{service}.toml"));
        let text = format!(
            "# Made by `ai-semble up` from configs/{service}.toml in this home and from --set.\n\
             # It is written anew at each start.\n{config}"
        );
        write_atomically(&path, text.as_bytes(), 0o600)?;
        children.push(ChildSpec {
            name: service.to_owned(),
            program,
            args: vec!["--config".into(), path.into()],
            folder: home.root().to_owned(),
            log: home.log(service),
            listener: (service == "orchestrator").then(|| Arc::clone(listener)),
        });
    }
    Ok(Plan { model, children })
}

/// What local mode itself decides.
fn fixed(
    home: &Home,
    service: &str,
    model: &Installed,
    options: &Up,
) -> Vec<(&'static str, Value)> {
    let path = |path: PathBuf| Value::String(path.to_string_lossy().into_owned());
    let drain_ms = i64::try_from(options.drain_seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    let mut values = vec![("drain.deadline_ms", Value::Integer(drain_ms))];
    match service {
        "llm" => values.extend([
            ("model.path", path(model.path(home))),
            ("model.name", Value::String(model.name.clone())),
            ("model.sha256", Value::String(model.sha256.clone())),
            ("model.license", Value::String(model.license.clone())),
            ("socket.path", path(home.llm_socket())),
        ]),
        _ => values.extend([
            ("keys.file", path(home.keys())),
            ("store.dir", path(home.data())),
            ("services.llm", Value::Array(vec![path(home.llm_socket())])),
        ]),
    }
    values
}

fn user_config(home: &Home, service: &str) -> Outcome<Table> {
    let path = home.root().join("configs").join(format!("{service}.toml"));
    match fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Table::new()),
        Err(error) => return Err(Failure::file("read", &path, error)),
        Ok(data) if data.len() > CONFIG_BYTES_MAX => {
            let message = format!("{} is larger than {CONFIG_BYTES_MAX} bytes", path.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(_) => {}
    }
    let text = fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, error))?;
    text.parse().map_err(|error: toml::de::Error| {
        Failure::new(Exit::Usage, format!("{} is no TOML", path.display())).because(error)
    })
}

type Setting = (String, Vec<String>, Value);

/// Reads `SERVICE.SECTION.KEY=VALUE`; a value that is no TOML is a string.
fn settings(texts: &[String]) -> Outcome<Vec<Setting>> {
    let mut settings = Vec::new();
    for text in texts {
        let wrong = |why: &str| {
            Failure::new(Exit::Usage, format!("--set {text}: {why}"))
                .hint("as in: --set llm.engine.threads=2")
        };
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
        let mut parts = key.trim().split('.').map(str::to_owned);
        let service = parts.next().unwrap_or_default();
        let rest: Vec<_> = parts.collect();
        if !SERVICES.contains(&service.as_str()) {
            let known = SERVICES.join(", ");
            return Err(wrong(&format!("it must begin with one of: {known}")));
        }
        if rest.len() < 2 || rest.iter().any(String::is_empty) {
            return Err(wrong("it must name a section and a key"));
        }
        let parsed = format!("value = {value}").parse::<Table>().ok();
        let parsed = parsed.filter(|table| table.len() == 1).and_then(|mut t| t.remove("value"));
        settings.push((service, rest, parsed.unwrap_or_else(|| Value::String(value.to_owned()))));
    }
    Ok(settings)
}

fn put(table: &mut Table, key: &[String], value: Value) -> Outcome<()> {
    let [sections @ .., last] = key else { return Ok(()) };
    let mut at = table;
    for section in sections {
        let inner = at.entry(section).or_insert_with(|| Value::Table(Table::new()));
        at = inner.as_table_mut().ok_or_else(|| {
            let message = format!("{section} is a value and a section at once");
            Failure::new(Exit::Usage, message)
        })?;
    }
    at.insert(last.clone(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<Value, &str>) {
        let found = settings(&[text.to_owned()]);
        match (found, expect) {
            (Ok(found), Ok(value)) => assert_eq!(found[0].2, value, "{text}"),
            (Err(failure), Err(part)) => assert!(failure.message.contains(part), "{failure}"),
            (found, expect) => panic!("{text}: {found:?} instead of {expect:?}"),
        }
    }

    #[test]
    fn settings_are_toml_or_strings() {
        check("llm.engine.threads=2", Ok(Value::Integer(2)));
        check("llm.log.level=debug", Ok(Value::String("debug".into())));
        check("orchestrator.x.y=a\nb = 1", Ok(Value::String("a\nb = 1".into())));
        check("llm.engine.threads", Err("no `=`"));
        check("vision.a.b=1", Err("begin with one of: llm, orchestrator"));
        check("llm.threads=1", Err("a section and a key"));
    }

    #[test]
    fn what_local_mode_fixes_wins_over_the_user_s_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.ensure().unwrap();
        fs::create_dir(home.root().join("configs")).unwrap();
        let text = "[engine]\nthreads = 3\n[socket]\npath = \"/tmp/x\"\n";
        fs::write(home.root().join("configs/llm.toml"), text).unwrap();
        let mut config = user_config(&home, "llm").unwrap();
        put(&mut config, &["socket".into(), "path".into()], Value::String("y".into())).unwrap();
        assert_eq!(config.to_string(), "[engine]\nthreads = 3\n\n[socket]\npath = \"y\"\n");
        let deep = ["engine".to_owned(), "threads".into(), "x".into()];
        assert!(put(&mut config, &deep, Value::Integer(1)).is_err());
    }
}
