//! Where the sign-in is kept, and where it is not.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use postkeep_sim::{Fault, When};

use crate::account::{Output, Remote};
use crate::oauth::{Scene, Started, error, files, visit};

/// Returns what of `secret` is in its base64, wherever it stands in the text.
fn in_base64(secret: &str) -> Vec<String> {
    let shifted = |n: usize| STANDARD_NO_PAD.encode("x".repeat(n) + secret);
    // What shares a character with a neighbour is left out.
    vec![shifted(0)[..8].to_owned(), shifted(1)[2..8].to_owned(), shifted(2)[3..9].to_owned()]
}

#[test]
fn no_secret_is_found_anywhere_but_in_its_file() {
    let scene = Scene::new();
    let trace = ["--log", "trace"];
    let (output, page) = scene.login_by(&trace, visit);
    let mut said = vec![output, scene.run(&[&["login", "a", "--device"][..], &trace].concat())];
    scene.mail.inject("AUTHENTICATE", When::Nth(1), Fault::Answer("NO AUTHENTICATE failed.".to_owned()));
    said.push(scene.run(&[&["sync"][..], &trace].concat()));
    assert_eq!(said.iter().map(|output| output.code).collect::<Vec<_>>(), [0, 0, 0]);
    // A server that says too much.
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(scene.token_file()).unwrap()).unwrap();
    let echo = format!("AADSTS70000: {} is not valid", kept["refresh_token"].as_str().unwrap());
    scene.token_fails(error("invalid_grant", &echo));
    said.push(scene.run(&[&["sync"][..], &trace].concat()));
    assert!(said[3].stdout.contains("[secret] is not valid"), "{}", said[3].stdout);
    assert!(said[2].stderr.contains(" TRACE "), "{}", said[2].stderr);
    let needles: Vec<String> = std::iter::once("cAnArY".to_owned()).chain(in_base64("cAnArY")).collect();
    let is_clean = |text: &str, place: &str| {
        for needle in &needles {
            let at = text.find(needle).map(|at| text[at.saturating_sub(200)..].chars().take(300).collect::<String>());
            assert_eq!(at, None, "{needle} in {place}");
        }
    };
    is_clean(&page, "the page");
    for output in &said {
        is_clean(&output.stdout, "standard output");
        is_clean(&output.stderr, "standard error");
    }
    for (path, content) in files(scene.account.config().parent().unwrap()) {
        if path == scene.token_file() {
            assert!(String::from_utf8_lossy(&content).contains("cAnArY"));
        } else {
            is_clean(&String::from_utf8_lossy(&content), &path.display().to_string());
        }
    }
}

#[cfg(feature = "keyring")]
/// Runs shell commands in a session of a desktop with an unlocked GNOME Keyring; `$p` is the program with its
/// configuration.
fn in_session(scene: &Scene, commands: &str) -> Output {
    let script = format!(
        "printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1 || exit 99\n\
         p=\"{} --config {}\"\n{commands}",
        env!("CARGO_BIN_EXE_postkeep"),
        scene.account.config().display()
    );
    let home = scene.account.config().parent().unwrap().to_owned();
    let mut command = Command::new("dbus-run-session");
    command.args(["--", "sh", "-c", &script]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("HOME", &home).env("XDG_RUNTIME_DIR", &home);
    Started::new(&mut command).end()
}

#[cfg(feature = "keyring")]
#[test]
fn a_desktop_keeps_the_sign_in_in_its_keyring() {
    let scene = Scene::with("");
    let output = in_session(&scene, "$p --log trace login a --device && $p --log trace sync && $p sync");
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("the sign-in is kept in the Secret Service."), "{}", output.stdout);
    assert!(!output.stdout.contains("cAnArY") && !output.stderr.contains("cAnArY"));
    assert_eq!(scene.renewals(), 2);
    assert!(!scene.token_file().exists());
    scene.account.assert_equal(Remote::Sim(&scene.mail));
    // The desktop of the next day knows the token that was rotated.
    let output = in_session(&scene, "$p sync");
    assert_eq!((output.code, scene.renewals()), (0, 3), "{}{}", output.stdout, output.stderr);
    // Without a desktop it is out of reach, and that is told.
    let output = scene.sync(3);
    assert!(
        output.stdout.contains("there is no Secret Service") && output.stdout.contains("postkeep login a"),
        "{output:?}"
    );
    // What is signed in without one is kept in a file, and with one again in the keyring alone.
    scene.login();
    assert!(scene.token_file().exists());
    scene.sync(0);
    let output = in_session(&scene, "$p login a --device && $p sync");
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
    assert!(!scene.token_file().exists());
}

#[test]
fn who_insists_on_a_keyring_is_told_that_there_is_none() {
    let scene = Scene::with("token_store = \"keyring\"");
    let output = scene.run(&["login", "a"]);
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(output.stderr.contains("there is no Secret Service to keep the sign-in"), "{}", output.stderr);
    assert_eq!(scene.asked("authorize").len(), 0);
    assert!(!scene.token_file().exists());
}
