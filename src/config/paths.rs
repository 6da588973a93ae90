//! Paths as people write them, and the places that are used when they write none.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// Looks up a variable of the environment.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Returns where the configuration is if nobody says so.
pub(super) fn default_config(env: Env<'_>) -> Option<PathBuf> {
    Some(xdg(env, "XDG_CONFIG_HOME", ".config")?.join("postkeep/config.toml"))
}

/// Returns where databases and the graveyard are if nobody says so.
pub(super) fn default_state_dir(env: Env<'_>) -> Option<PathBuf> {
    Some(xdg(env, "XDG_STATE_HOME", ".local/state")?.join("postkeep"))
}

/// Returns where the control socket is if nobody says so: in the state directory where there is no runtime directory.
pub(super) fn default_socket(env: Env<'_>, state_dir: &Path) -> PathBuf {
    match absolute(env, "XDG_RUNTIME_DIR") {
        Some(runtime) => runtime.join("postkeep/control.sock"),
        None => state_dir.join("control.sock"),
    }
}

/// The XDG Base Directory Specification: a relative path in these variables is to be ignored.
fn xdg(env: Env<'_>, variable: &str, under_home: &str) -> Option<PathBuf> {
    absolute(env, variable).or_else(|| Some(absolute(env, "HOME")?.join(under_home)))
}

fn absolute(env: Env<'_>, variable: &str) -> Option<PathBuf> {
    env(variable).map(PathBuf::from).filter(|p| p.is_absolute())
}

/// Returns the path with `~`, `$VAR` and `${VAR}` replaced (`$$` is a `$`), without `.` and `..`.
///
/// # Errors
/// What is wrong with it, as a text: a variable that is not set, a path that is relative even then.
pub(super) fn expand(text: &str, env: Env<'_>) -> Result<PathBuf, String> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).ok_or_else(|| format!("${name} is not set"));
    let mut out = OsString::new();
    let mut rest = text;
    if let Some(after) = text.strip_prefix('~') {
        if !after.is_empty() && !after.starts_with('/') {
            return Err("~ stands for your own home only; write another user's in full".to_owned());
        }
        out.push(set("HOME")?);
        rest = after;
    }
    while let Some(at) = rest.find('$') {
        out.push(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push("$");
            rest = after;
            continue;
        }
        let (name, after) = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}').ok_or("${ without }")?,
            None => rest.split_at(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())),
        };
        if name.is_empty() {
            return Err("$ without the name of a variable; write $$ for a $".to_owned());
        }
        out.push(set(name)?);
        rest = after;
    }
    out.push(rest);
    let path = normalise(Path::new(&out));
    match path.is_absolute() {
        true if out.as_bytes().contains(&0) => Err("a path cannot hold a NUL character".to_owned()),
        true => Ok(path),
        false => Err("a relative path means something else in every directory; begin it with / or ~/".to_owned()),
    }
}

fn normalise(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => out.push(component),
        }
    }
    out
}

/// Returns the path with symbolic links followed as far as it exists, to compare it with others.
pub(super) fn real(path: &Path) -> PathBuf {
    let mut missing: Vec<&OsStr> = Vec::new();
    for ancestor in path.ancestors() {
        if let Ok(found) = ancestor.canonicalize() {
            return missing.iter().rev().fold(found, |path, name| path.join(name));
        }
        missing.extend(ancestor.file_name());
    }
    path.to_owned()
}

/// Why the state directory cannot be used.
#[derive(thiserror::Error, Debug)]
pub enum StateDirError {
    /// It cannot be made or looked at.
    #[error("cannot use the state directory {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something else is in its place.
    #[error("the state directory {} is not a directory", path.display())]
    NotADirectory {
        /// What is there.
        path: PathBuf,
    },
    /// Others may write to it, or it belongs to someone else.
    #[error(
        "the state directory {} must be yours, and not writable by others, but has owner {owner} and mode {mode:04o}; \
         run: chmod go-w {}", path.display(), path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
}

/// Makes the state directory with mode 0700 if it is not there, and checks that nobody else can write to it. That
/// others may list one which the user made is no harm: what is put into it is for the user alone.
///
/// # Errors
/// [`StateDirError`], with what to do.
pub fn prepare_state_dir(path: &Path) -> Result<(), StateDirError> {
    let io = |source| StateDirError::Io { path: path.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => StateDirError::NotADirectory { path: path.to_owned() },
        _ => io(error),
    })?;
    let found = std::fs::metadata(path).map_err(io)?;
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if owner != rustix::process::geteuid().as_raw() || mode & 0o022 != 0 {
        return Err(StateDirError::Open { path: path.to_owned(), owner, mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::PermissionsExt;

    fn env(name: &str) -> Option<OsString> {
        match name {
            "HOME" => Some("/home/u".into()),
            "MAIL" => Some("/var/mail".into()),
            "RAW" => Some(OsString::from_vec(b"/\xff".to_vec())),
            "EMPTY" => Some("".into()),
            "REL" => Some("relative".into()),
            _ => None,
        }
    }

    #[test]
    fn paths_are_expanded() {
        let rows = [
            ("~", "/home/u"),
            ("~/Mail", "/home/u/Mail"),
            ("/a/./b/../c//d/", "/a/c/d"),
            ("$MAIL/x", "/var/mail/x"),
            ("${MAIL}x", "/var/mailx"),
            ("/$$MAIL/~", "/$MAIL/~"),
            ("/../..", "/"),
        ];
        for (text, path) in rows {
            assert_eq!(expand(text, &env).as_deref(), Ok(Path::new(path)), "{text}");
        }
        assert_eq!(expand("$RAW", &env).unwrap().as_os_str().as_bytes(), b"/\xff");
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        let rows = [
            ("~other/Mail", "~ stands for your own home only; write another user's in full"),
            ("$NONE/x", "$NONE is not set"),
            ("$EMPTY/x", "$EMPTY is not set"),
            ("/${MAIL", "${ without }"),
            ("/$/x", "$ without the name of a variable; write $$ for a $"),
            ("Mail", "a relative path means something else in every directory; begin it with / or ~/"),
            ("$REL", "a relative path means something else in every directory; begin it with / or ~/"),
            ("", "a relative path means something else in every directory; begin it with / or ~/"),
            ("/a\0b", "a path cannot hold a NUL character"),
        ];
        for (text, why) in rows {
            assert_eq!(expand(text, &env), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_relative_xdg_variable_is_ignored() {
        let env = |name: &str| match name {
            "HOME" => Some("/h".into()),
            "XDG_CONFIG_HOME" => Some("c".into()),
            "XDG_STATE_HOME" => Some("/s".into()),
            _ => None,
        };
        assert_eq!(default_config(&env), Some("/h/.config/postkeep/config.toml".into()));
        assert_eq!(default_state_dir(&env), Some("/s/postkeep".into()));
        assert_eq!(default_socket(&env, Path::new("/s/postkeep")), Path::new("/s/postkeep/control.sock"));
        assert_eq!(default_config(&|_| None), None);
    }

    #[test]
    fn only_the_user_writes_to_the_state_directory() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        prepare_state_dir(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
        prepare_state_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o770)).unwrap();
        let error = prepare_state_dir(&dir).unwrap_err().to_string();
        assert!(error.contains("mode 0770; run: chmod go-w "), "{error}");
        std::fs::write(root.path().join("file"), "").unwrap();
        let error = prepare_state_dir(&root.path().join("file")).unwrap_err();
        assert!(matches!(error, StateDirError::NotADirectory { .. }), "{error}");
    }

    #[test]
    fn links_are_followed_as_far_as_there_is_something() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("a")).unwrap();
        std::os::unix::fs::symlink(base.join("a"), base.join("link")).unwrap();
        assert_eq!(real(&base.join("link/x/y")), base.join("a/x/y"));
    }
}
