//! Commands to try on a development cluster, as they work where they are read.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::out;
use super::ticket_place::TicketPlace;

const CLIENT: &str = "aspen-cli";

/// Prints commands that reach this cluster, also where the client is not in the path or would take
/// another cluster for it.
pub(crate) fn say(place: &TicketPlace) {
    let is_other_named = env::var_os("ASPEN_TICKET").is_some_and(|ticket| !ticket.is_empty());
    let option = match place.is_found_by_clients() && !is_other_named {
        true => String::new(),
        false => format!(" --ticket {}", quoted(place.path())),
    };
    out::line(format!("ticket: {}", place.path().display()));
    if is_other_named {
        out::line(format!(
            "ASPEN_TICKET is set, so that {CLIENT} means its cluster unless told otherwise."
        ));
    }
    let beside = env::current_exe().ok().map(|program| program.with_file_name(CLIENT));
    let here = env::current_dir().unwrap_or_default();
    let client = match client(env::var_os("PATH").as_deref(), beside, &here) {
        Some(client) => client,
        None => {
            out::line(format!("{CLIENT} is not built yet: cargo build --release --bin {CLIENT}"));
            CLIENT.to_owned()
        }
    };
    out::line("try, in another terminal:");
    out::line(format!("  {client}{option} kv set greeting hello"));
    out::line(format!("  {client}{option} kv get greeting"));
    out::line(format!("  {client}{option} cluster status"));
}

/// How the client is called in the folder `here`: by its name if that is in the path, else as the
/// program `beside` this one; `None` if it is in neither place.
fn client(path: Option<&OsStr>, beside: Option<PathBuf>, here: &Path) -> Option<String> {
    let mut folders = path.into_iter().flat_map(env::split_paths);
    if folders.any(|folder| folder.join(CLIENT).is_file()) {
        return Some(CLIENT.to_owned());
    }
    let beside = beside.filter(|client| client.is_file())?;
    match beside.strip_prefix(here) {
        // A bare name would be looked for in the path.
        Ok(below) if below == Path::new(CLIENT) => Some(format!("./{CLIENT}")),
        Ok(below) => Some(quoted(below)),
        Err(_) => Some(quoted(&beside)),
    }
}

/// A path as a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    match text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_for_a_shell() {
        assert_eq!(quoted(Path::new("/run/user/7/t.txt")), "/run/user/7/t.txt");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    #[test]
    fn the_client_is_called_as_the_shell_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let built = folder.path().join("target/release");
        std::fs::create_dir_all(&built).unwrap();
        let beside = || Some(built.join(CLIENT));
        let elsewhere = Path::new("/nonexistent");
        assert_eq!(client(None, beside(), elsewhere), None);
        std::fs::write(built.join(CLIENT), "").unwrap();
        let here = client(None, beside(), folder.path());
        assert_eq!(here.as_deref(), Some("target/release/aspen-cli"));
        assert_eq!(client(None, beside(), &built).as_deref(), Some("./aspen-cli"));
        let there = client(Some(elsewhere.as_os_str()), beside(), elsewhere);
        assert_eq!(there, Some(built.join(CLIENT).display().to_string()));
        let installed = client(Some(built.as_os_str()), beside(), elsewhere);
        assert_eq!(installed.as_deref(), Some(CLIENT));
    }
}
