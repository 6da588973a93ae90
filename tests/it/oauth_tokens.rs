//! What becomes of a sign-in: tokens that run out or are refused, renewals that fail, crashes, and files that are not as
//! they should be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use postkeep_sim::{At, Fault, HttpFault, State, When};

use crate::account::Remote;
use crate::oauth::{Scene, body, error};

const EXPIRED: &str = "* BYE Session invalidated - AccessTokenExpired";

/// F1: a token that the mail server does not take is renewed once, and then the user is asked.
#[test]
fn a_refused_token_is_renewed_once_and_then_the_user_is_asked() {
    let scene = Scene::new();
    scene.login();
    scene.mail.inject("AUTHENTICATE", When::Nth(1), Fault::Answer("NO AUTHENTICATE failed.".to_owned()));
    scene.sync(0);
    assert_eq!((scene.renewals(), scene.sign_ins()), (2, 2));
    assert_eq!(scene.mail.fired(), ["AUTHENTICATE answer"]);

    drop(scene.mail.take_commands());
    scene.mail.inject("AUTHENTICATE", When::Every, Fault::Answer("NO AUTHENTICATE failed.".to_owned()));
    let output = scene.sync(3);
    assert_eq!((scene.renewals(), scene.sign_ins()), (4, 2));
    let said = output.stdout + &output.stderr;
    for words in ["AUTHENTICATE failed.", "postkeep login a", "as someone@outlook.com", "IMAP is allowed", "alias"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    scene.mail.calm();
    scene.sync(0);
}

/// F5: a session ends with its token; the pass goes on where it was, as if nothing had happened.
#[test]
fn a_session_whose_token_ran_out_goes_on_with_a_new_one() {
    for pattern in ["LIST", "STATUS", "SELECT", "UID FETCH", "UID FETCH BODY.PEEK[]", "UID STORE", "APPEND"] {
        let scene = Scene::new();
        scene.login();
        scene.sync(0);
        for n in 2..40_u32 {
            let bytes = format!("Message-ID: <{n}>\r\nSubject: {n}\r\n\r\nbody\r\n");
            scene.mail.state().append("INBOX", bytes.as_bytes(), &[], 1_700_000_000 + i64::from(n));
        }
        let path = scene.account.files("INBOX").remove(0);
        scene.account.set_info(&path, "S");
        scene.account.deliver("INBOX", b"Message-ID: <here>\nSubject: here\n\nbody\n");
        let before = (scene.renewals(), scene.sign_ins());
        let last = |line: &str| {
            let tagged = !line.starts_with('*') && !line.starts_with('+');
            Some(if tagged { EXPIRED.to_owned() } else { line.to_owned() })
        };
        scene.mail.inject(pattern, When::Nth(1), Fault::edit(last));
        scene.mail.inject(pattern, When::Nth(1), Fault::Close(At::After));
        let output = scene.sync(0);
        assert!(scene.mail.fired().iter().any(|fired| fired.ends_with(" edit")), "{pattern}: {:?}", scene.mail.fired());
        assert!(!output.stdout.contains("ran out") && !output.stderr.contains("ran out"), "{pattern}: {output:?}");
        assert_eq!(scene.renewals() - before.0, 2, "{pattern}");
        assert!(scene.sign_ins() - before.1 >= 2, "{pattern}");
        scene.account.assert_equal(Remote::Sim(&scene.mail));
        assert_eq!(scene.mail.violations(), Vec::<String>::new(), "{pattern}");
    }
}

#[test]
fn a_session_is_not_used_again_when_its_token_is_old() {
    let scene = Scene::new();
    scene.login();
    scene.sync(0);
    let usual = scene.sign_ins();
    // Old at once, and good all the same.
    scene.oauth.directory().expires_in = Duration::ZERO;
    let prolong = |state: &mut State| state.grants.values_mut().for_each(|grant| grant.until = Duration::MAX);
    scene.mail.inject("AUTHENTICATE", When::Every, Fault::Run(Arc::new(prolong)));
    drop(scene.mail.take_commands());
    scene.mail.state().append("INBOX", b"Subject: two\r\n\r\nbody\r\n", &[], 1_700_000_000);
    scene.sync(0);
    scene.account.assert_equal(Remote::Sim(&scene.mail));
    let commands = scene.mail.commands();
    let count = |name: &str| commands.iter().filter(|command| command.name == name).count();
    assert!(count("AUTHENTICATE") > usual, "{commands:?}");
    assert_eq!(count("LOGOUT"), count("AUTHENTICATE"), "{commands:?}");
}

/// F31: what the token endpoint may answer. The sign-in is kept whatever it is.
#[test]
fn a_failed_renewal_keeps_the_sign_in() {
    let abuse = "AADSTS70000: User account is found to be in service abuse mode.";
    let rows = [
        (body(500, "oh"), 5, "it answered HTTP 500"),
        (HttpFault::too_many(120), 5, "it answered HTTP 429 and asks to be left alone for 120 seconds"),
        (error("temporarily_unavailable", "AADSTS90033: later"), 5, "AADSTS90033: later"),
        (body(404, "<html>"), 5, "it answered HTTP 404"),
        (body(302, ""), 5, "it answered HTTP 302"),
        (body(200, "{\"access_token\":\"cAnArY\"}"), 5, "makes no sense"),
        (body(200, &"x".repeat(2 << 20)), 5, "far too long"),
        (HttpFault::Lose, 5, "cannot be used now"),
        (error("invalid_grant", "AADSTS70000: The provided value is not valid."), 3, "postkeep login a"),
        (error("interaction_required", "AADSTS50076: more"), 3, "postkeep login a"),
        (error("invalid_grant", abuse), 3, "Microsoft has restricted the user"),
        (error("unauthorized_client", "AADSTS700016: unknown"), 3, "check client_id"),
    ];
    let scene = Scene::new();
    scene.oauth.directory().strict = false;
    scene.login();
    let kept = fs::read(scene.token_file()).unwrap();
    for (fault, code, words) in rows {
        let before = scene.renewals();
        scene.token_fails(fault.clone());
        let output = scene.sync(code);
        let said = output.stdout + &output.stderr;
        assert!(said.contains(words) && !said.contains("cAnArY"), "{words}: {said}");
        assert_eq!(scene.renewals(), before + 1, "{fault:?}");
        assert_eq!(fs::read(scene.token_file()).unwrap(), kept, "{fault:?}");
        assert_eq!(scene.oauth.fired().last(), Some(&format!("token refresh_token {}", fault.name())));
    }
    scene.sync(0);
}

/// F31: killed between the receipt of a rotated token and the end of its saving.
#[test]
fn a_crash_while_a_token_is_saved_never_leaves_half_of_one() {
    let list = {
        let scene = Scene::new();
        scene.login();
        let steps = scene.account.state_dir().join("steps");
        let output = scene.run_with(&["sync"], &[("POSTKEEP_STEPS", steps.to_str().unwrap())]);
        assert_eq!(output.code, 0, "{}", output.stderr);
        fs::read_to_string(steps).unwrap()
    };
    let of_tokens: Vec<(&str, &str)> =
        list.lines().filter(|line| line.contains("token")).map(|line| line.split_once(' ').unwrap()).collect();
    let names: Vec<&str> = of_tokens.iter().map(|(_, name)| *name).collect();
    assert_eq!(names, ["keep token", "write token", "rename token", "sync token directory"]);
    for (number, name) in of_tokens {
        for strict in [false, true] {
            let scene = Scene::new();
            scene.oauth.directory().strict = strict;
            scene.login();
            let before = fs::read_to_string(scene.token_file()).unwrap();
            let output = scene.run_with(&["sync"], &[("POSTKEEP_CRASH_AT", number)]);
            assert_eq!(output.code, -1, "{name}: {}", output.stderr);
            assert_eq!(scene.renewals(), 1, "{name}");
            // The access token was not used before the new refresh token was durable.
            assert_eq!(scene.sign_ins(), 0, "{name}");
            let after = fs::read_to_string(scene.token_file()).unwrap();
            assert_eq!(after == before, name != "sync token directory", "{name}");
            assert!(serde_json::from_str::<serde_json::Value>(&after).is_ok(), "{name}");

            // Microsoft still takes the old one; a server that does not leaves only the user.
            let lost = strict && name != "sync token directory";
            let output = scene.sync(if lost { 3 } else { 0 });
            if lost {
                assert!(output.stdout.contains("postkeep login a"), "{}", output.stdout);
                assert_eq!(fs::read_to_string(scene.token_file()).unwrap(), after, "{name}");
                scene.login();
                scene.sync(0);
            }
            assert!(!scene.account.state_dir().join("a.token-new").exists(), "{name}");
        }
    }
}

#[test]
fn a_sign_in_that_cannot_be_saved_is_told_and_the_old_one_stays() {
    let scene = Scene::new();
    scene.oauth.directory().strict = false;
    scene.login();
    let before = fs::read(scene.token_file()).unwrap();
    // In the way of the new file.
    let obstacle = scene.account.state_dir().join("a.token-new");
    fs::create_dir_all(obstacle.join("x")).unwrap();
    let output = scene.sync(1);
    assert!(output.stdout.contains("the renewed sign-in could not be kept"), "{}", output.stdout);
    scene.account.assert_equal(Remote::Sim(&scene.mail));
    assert_eq!(fs::read(scene.token_file()).unwrap(), before);
    fs::remove_dir_all(obstacle).unwrap();
    scene.sync(0);
    assert_ne!(fs::read(scene.token_file()).unwrap(), before);
}

#[test]
fn a_sign_in_that_others_can_read_is_not_used() {
    let scene = Scene::new();
    scene.login();
    fs::set_permissions(scene.token_file(), fs::Permissions::from_mode(0o644)).unwrap();
    let output = scene.sync(3);
    assert!(output.stdout.contains("chmod 600"), "{}", output.stdout);
    assert_eq!((scene.renewals(), scene.sign_ins()), (0, 0));
    fs::set_permissions(scene.token_file(), fs::Permissions::from_mode(0o600)).unwrap();
    scene.sync(0);
    fs::write(scene.token_file(), "{").unwrap();
    let output = scene.sync(3);
    assert!(output.stdout.contains("postkeep login a"), "{}", output.stdout);
    scene.login();
    scene.sync(0);
}

#[test]
fn a_sign_in_under_another_registration_is_not_sent_to_it() {
    let scene = Scene::new();
    scene.login();
    let config = fs::read_to_string(scene.account.config()).unwrap();
    fs::write(scene.account.config(), config.replace("\"client\"", "\"another\"")).unwrap();
    let output = scene.sync(3);
    assert!(output.stdout.contains("client_id, tenant or token_url is another one now"), "{}", output.stdout);
    assert_eq!(scene.renewals(), 0);
}
