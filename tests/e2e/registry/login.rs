use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use spinfer_tests::{OCI_PASSWORD, OCI_USER, OciRegistry, binary};

use super::faulty::{FakeServer, Reply};
use super::{UserFolder, guest};

/// `spinfer registry login` with the password on standard input.
fn login(home: &UserFolder, host: &str, user: &str, password: &str) -> (bool, String) {
    let mut child = Command::new(binary())
        .args(["registry", "login", host, "-u", user, "--password-stdin"])
        .env("DOCKER_CONFIG", home.docker())
        .env("PATH", format!("{}:{}", home.text("bin"), std::env::var("PATH").unwrap()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!text.contains(password), "the password is shown: {text}");
    (output.status.success(), text)
}

#[test]
fn login_allows_push_and_pull() {
    let (registry, home) = (OciRegistry::start_with_password(), UserFolder::new());
    let host = registry.address();
    let reference = format!("{host}/guests/hello:1.0.0");
    let hello = guest("hello_p2");
    let refused = home.refused(&["registry", "push", &reference, &hello]);
    assert!(refused.contains(&format!("spinfer registry login {host}")), "{refused}");

    let config = home.path("docker/config.json");
    let (done, text) = login(&home, host, OCI_USER, "not-the-password");
    assert!(!done && text.contains("rejected this user and password"), "{text}");
    assert!(!config.exists());

    fs::create_dir(home.path("docker")).unwrap();
    fs::write(&config, r#"{"HttpHeaders": {"a": "b"}, "auths": {"other.org": {"auth": "eDp5"}}}"#)
        .unwrap();
    let (done, text) = login(&home, host, OCI_USER, OCI_PASSWORD);
    assert!(done && text.contains("Logged in to"), "{text}");
    assert_eq!(config.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let written: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    assert_eq!(written["HttpHeaders"], json!({ "a": "b" }));
    assert_eq!(written["auths"]["other.org"], json!({ "auth": "eDp5" }));
    // What `docker login` writes.
    assert_eq!(written["auths"][host], json!({ "auth": "dGVzdGVyOmNvcnJlY3QgaG9yc2U=" }));

    let pushed = home.done(&["registry", "push", &reference, &hello]);
    assert!(pushed.contains("Pushed"), "{pushed}");
    let (pulled, text) = home.pull(&reference, &[]);
    assert!(pulled, "{text}");

    let text = home.done(&["registry", "logout", host]);
    assert!(text.contains("Logged out of"), "{text}");
    let text = home.done(&["registry", "logout", host]);
    assert!(text.contains("Not logged in to"), "{text}");
    let refused = home.refused(&["registry", "push", &reference, &guest("probe")]);
    assert!(refused.contains("401 Unauthorized"), "{refused}");
}

#[test]
fn credential_helper_stores_the_password() {
    let (registry, home) = (OciRegistry::start_with_password(), UserFolder::new());
    let host = registry.address();
    for folder in ["docker", "bin"] {
        fs::create_dir(home.path(folder)).unwrap();
    }
    let config = home.path("docker/config.json");
    let text = r#"{"credsStore":"test"}"#;
    fs::write(&config, text).unwrap();
    // A helper that stores one credential in a file.
    let helper = home.path("bin/docker-credential-test");
    let stored_path = home.text("kept");
    let script = format!(
        "#!/bin/sh\ncase $1 in store) cat > {stored_path};; erase) rm {stored_path};;\n\
         get) cat > /dev/null; test -e {stored_path} && cat {stored_path} || {{ echo credentials not found; exit 1; }};; esac\n"
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let (done, printed) = login(&home, host, OCI_USER, OCI_PASSWORD);
    assert!(
        done && printed.contains("the password is stored by docker-credential-test"),
        "{printed}"
    );
    assert_eq!(fs::read_to_string(&config).unwrap(), text, "the file is unchanged");
    let stored: Value = serde_json::from_slice(&fs::read(&stored_path).unwrap()).unwrap();
    assert_eq!(stored, json!({ "ServerURL": host, "Username": OCI_USER, "Secret": OCI_PASSWORD }));

    let path = format!("{}:{}", home.text("bin"), std::env::var("PATH").unwrap());
    let reference = format!("{host}/guests/hello:1.0.0");
    let push = || {
        let docker = home.docker();
        let environment = [("DOCKER_CONFIG", docker.as_str()), ("PATH", &path)];
        let push = ["registry", "push", &reference, &guest("hello_p2")];
        let (status, text) = spinfer_tests::run_in(&environment, &push);
        (status.success(), text)
    };
    let (pushed, text) = push();
    assert!(pushed, "{text}");
    // A helper without the credential has the effect of no helper.
    fs::remove_file(&stored_path).unwrap();
    let (pushed, text) = push();
    assert!(!pushed && text.contains("401 Unauthorized"), "{text}");
}

#[test]
fn credentials_are_sent_to_the_token_service_and_not_to_storage() {
    let home = UserFolder::new();
    fs::create_dir(home.path("docker")).unwrap();
    let hello = fs::read(guest("hello_p2")).unwrap();
    let storage = {
        let hello = hello.clone();
        FakeServer::start(move |request| match request.header("authorization") {
            None => Reply::ok("application/octet-stream", &hello),
            Some(_) => Reply::status(400, b"a signed URL wants no other authorization"),
        })
    };
    let at = storage.address().to_owned();
    let manifest = super::faulty::component_manifest(&hello);
    let registry = FakeServer::start(move |request| {
        let host = request.header("host").unwrap_or_default();
        let authorization = request.header("authorization").unwrap_or_default();
        match request.path.as_str() {
            "/token?service=tests&scope=repository%3Aa%3Apull" => match authorization {
                "Basic dTpw" => Reply::ok("application/json", br#"{"token": "good"}"#),
                _ => Reply::status(401, b"{}"),
            },
            _ if authorization != "Bearer good" => {
                let realm = format!("http://{host}/token");
                let challenge = format!("Bearer realm=\"{realm}\",service=\"tests\"");
                Reply::status(401, b"").with("www-authenticate", &challenge)
            }
            path if path.starts_with("/v2/a/manifests/") => {
                Reply::ok("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes())
            }
            _ => Reply::redirect(&format!("http://{at}/blob?signature=1")),
        }
    });
    let reference = format!("{}/a:1", registry.address());
    let refused = home.pull(&reference, &[]).1;
    assert!(refused.contains("401"), "{refused}");
    let auths = json!({ "auths": { registry.address(): { "auth": "dTpw" } } });
    fs::write(home.path("docker/config.json"), auths.to_string()).unwrap();
    let (pulled, text) = home.pull(&reference, &[]);
    assert!(pulled, "{text}");
    assert_eq!(fs::read(home.path("components/a.wasm")).unwrap(), hello);
}
