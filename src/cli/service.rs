//! `postkeep service`: the daemon as a service of the user, by systemd.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::output;
use super::{Exit, Failure};
use crate::config::Config;

/// Let systemd run the daemon
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write the unit, and start the daemon now and at each login
    Install,
    /// Stop the daemon, and remove the unit
    Uninstall,
    /// Say what systemd says of it
    Status,
}

const UNIT: &str = include_str!("../../systemd/postkeep.service");
const NAME: &str = "postkeep.service";

/// Runs the command. `config_file` is the one that was named, if one was.
pub(super) fn run(args: &Args, config_file: Option<&Path>) -> Result<Exit, Failure> {
    let unit = unit().ok_or_else(|| Failure::usage("$HOME is not set"))?;
    match args.what {
        What::Install => install(config_file)?,
        What::Uninstall => {
            if !unit.exists() {
                output::print(&format!("there is no {}\n", unit.display()))?;
                return Ok(Exit::Done);
            }
            systemctl(&["disable", "--now", NAME])?;
            fs::remove_file(&unit).map_err(|error| failed("cannot remove the unit", &error))?;
            systemctl(&["daemon-reload"])?;
            output::print(&format!("{} is removed; mail and databases are as they were\n", unit.display()))?;
        }
        What::Status => {
            let status = Command::new("systemctl").args(["--user", "--no-pager", "status", NAME]).status();
            let status = status.map_err(|error| failed("cannot start systemctl", &error))?;
            return Ok(if status.success() { Exit::Done } else { Exit::Partial });
        }
    }
    Ok(Exit::Done)
}

/// Writes the unit, and starts the daemon now and at each login. `config_file` is the one that was named, if one was.
pub(super) fn install(config_file: Option<&Path>) -> Result<(), Failure> {
    let no_home = || Failure::usage("$HOME is not set");
    let (home, unit) = (directory("HOME").ok_or_else(no_home)?, unit().ok_or_else(no_home)?);
    let config = Config::load(config_file)?;
    let program = std::env::current_exe().map_err(|error| failed("cannot tell where this program is", &error))?;
    let config_file = config_file.map(fs::canonicalize).transpose();
    let config_file = config_file.map_err(|error| failed("cannot follow the path of --config", &error))?;
    let text = unit_for(&program, config_file.as_deref(), &outside(&config, &home))?;
    write(&unit, &text)?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", NAME])?;
    output::print(&format!(
        "{} is written, and the daemon runs.\nIts log:       journalctl --user -u postkeep\nWithout login: loginctl \
         enable-linger\n",
        unit.display()
    ))?;
    Ok(())
}

/// Returns where the unit is, if it is installed.
pub(super) fn unit() -> Option<PathBuf> {
    let config = directory("XDG_CONFIG_HOME").or_else(|| Some(directory("HOME")?.join(".config")))?;
    Some(config.join("systemd/user").join(NAME))
}

fn directory(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn failed(what: &str, error: &std::io::Error) -> Failure {
    Failure { exit: Exit::Partial, text: format!("{what}: {error}") }
}

/// Returns the directories outside the home that the daemon writes to: the unit has to allow each of them.
fn outside(config: &Config, home: &Path) -> Vec<PathBuf> {
    let maildirs = config.accounts.iter().map(|account| account.maildir.clone());
    let metrics = config.daemon.metrics_file.iter().filter_map(|file| file.parent().map(Path::to_owned));
    let all = maildirs.chain([config.daemon.state_dir.clone()]).chain(metrics);
    all.filter(|path| !path.starts_with(home)).collect()
}

/// Returns the unit for this program, this configuration, and more directories that may be written to.
fn unit_for(program: &Path, config_file: Option<&Path>, writable: &[PathBuf]) -> Result<String, Failure> {
    let mut command = quoted(program)?;
    if let Some(file) = config_file {
        command = format!("{command} --config {}", quoted(file)?);
    }
    let mut text = UNIT.replace("ExecStart=/usr/bin/postkeep run", &format!("ExecStart={command} run"));
    for path in writable {
        text = text
            .replace("ReadWritePaths=%h %t\n", &format!("ReadWritePaths=%h %t\nReadWritePaths={}\n", quoted(path)?));
    }
    Ok(text)
}

/// Returns a path as systemd.syntax(7) wants it.
fn quoted(path: &Path) -> Result<String, Failure> {
    let unusable = || Failure::usage(format!("systemd cannot be given the path {}", path.display()));
    let text = path.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(unusable)?;
    let escaped = text.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$");
    Ok(if escaped == text && !text.contains([' ', '\'', ';']) { escaped } else { format!("\"{escaped}\"") })
}

/// Writes a file for its owner only, with the directories above it.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        // One that is there already may have another.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|error| failed(&format!("cannot write {}", path.display()), &error))
}

fn systemctl(args: &[&str]) -> Result<(), Failure> {
    let line = format!("systemctl --user {}", args.join(" "));
    let output = Command::new("systemctl").arg("--user").args(args).output();
    let output = output.map_err(|error| failed(&format!("cannot start {line}"), &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // What went well comes first.
    let said = said.lines().filter(|line| !line.starts_with("Created symlink")).collect::<Vec<_>>().join("; ");
    Err(Failure { exit: Exit::Partial, text: format!("{line} failed: {}", output::harmless(&said)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_for_this_program_and_its_paths() {
        let program = Path::new("/home/u/my programs/post\"keep");
        let text = unit_for(program, Some(Path::new("/etc/100%.toml")), &["/srv/mail".into(), "/var/x y".into()]);
        let text = text.unwrap();
        let line = |start: &str| text.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
        assert_eq!(
            line("ExecStart="),
            [r#"ExecStart="/home/u/my programs/post\"keep" --config "/etc/100%%.toml" run"#]
        );
        let writable = ["ReadWritePaths=%h %t", "ReadWritePaths=\"/var/x y\"", "ReadWritePaths=/srv/mail"];
        assert_eq!(line("ReadWritePaths="), writable);
        assert!(quoted(Path::new("/a\nb")).is_err());
    }

    #[test]
    fn the_unit_is_as_hardened_as_is_promised() {
        let directory = tempfile::tempdir().unwrap();
        let unit = directory.path().join(NAME);
        fs::write(&unit, UNIT).unwrap();
        let mut command = Command::new("systemd-analyze");
        command.args(["--user", "security", "--offline=true", "--threshold=25"]).arg(&unit);
        let Ok(output) = command.env("XDG_RUNTIME_DIR", directory.path()).output() else {
            println!("skipped: there is no systemd-analyze here");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("Overall exposure level"), "{said}");
    }
}
