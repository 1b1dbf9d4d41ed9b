//! Settings of the services: the user's own files in the home, and `--set`.

use std::fs;

use toml::{Table, Value};

use super::services::SERVICES;
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;

const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// `configs/SERVICE.toml` in the home; empty when there is none.
pub(super) fn user_config(home: &Home, service: &str) -> Outcome<Table> {
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

/// Service, key, value.
pub(super) type Setting = (String, Vec<String>, Value);

/// Reads `SERVICE.SECTION.KEY=VALUE`; a value that is no TOML is a string.
pub(super) fn settings(texts: &[String]) -> Outcome<Vec<Setting>> {
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

/// Puts a value at a key, making sections on the way.
pub(super) fn put(table: &mut Table, key: &[String], value: Value) -> Outcome<()> {
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
        check("speech.a.b=1", Err("begin with one of: llm, nlp, vision"));
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
