//! Names of artifacts, `registry.example.com/models/iris:1`, and of packages, `acme:iris`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::digest::Digest;

/// Maximum length of a repository's name, and of a host, in characters.
const MAX_NAME: usize = 255;
/// Maximum length of a tag, in characters.
const MAX_TAG: usize = 128;
/// Docker Hub's name in references, and the host of its API.
const DOCKER_HUB: [&str; 2] = ["docker.io", "registry-1.docker.io"];

/// A registry: its host and port, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryHost(String);

impl RegistryHost {
    /// Host and port of the registry's API.
    #[must_use]
    pub fn address(&self) -> &str {
        let [name, address] = DOCKER_HUB;
        if self.0 == name { address } else { &self.0 }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let name = without_port(&self.0);
        if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            return address.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback());
        }
        name == "localhost"
            || name.ends_with(".localhost")
            || name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

impl FromStr for RegistryHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = without_port(text);
        let port = text[name.len()..].strip_prefix(':');
        let port_is_valid = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        let name_is_valid = match name.strip_prefix('[') {
            Some(address) => {
                address.strip_suffix(']').is_some_and(|a| a.parse::<Ipv6Addr>().is_ok())
            }
            None => name.split('.').all(is_label),
        };
        if !port_is_valid || !name_is_valid || text.len() > MAX_NAME {
            return Err(format!(
                "{text:?} is not the host of a registry; write \"registry.example.com\" or \
                 \"localhost:5000\""
            ));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

fn is_label(label: &str) -> bool {
    let ends = [label.bytes().next(), label.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(|end| end.is_ascii_alphanumeric()))
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// An artifact in a registry: a repository, and a tag or a digest in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArtifactReference {
    pub host: RegistryHost,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl ArtifactReference {
    /// The digest, or else the tag, that selects the manifest.
    #[must_use]
    pub fn selector(&self) -> Option<String> {
        self.digest.map(|digest| digest.to_string()).or_else(|| self.tag.clone())
    }

    /// The last segment of the repository's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }
}

impl fmt::Display for ArtifactReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, repository, tag, digest } = self;
        write!(f, "{host}/{repository}")?;
        if let Some(tag) = tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ArtifactReference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let in_text = |problem: String| format!("{text:?}: {problem}");
        if text.contains("://") {
            return Err(in_text("a reference has no scheme; omit it".into()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|e| in_text(format!("digest: {e}")))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (host, path) = rest
            .split_once('/')
            .filter(|(host, _)| is_host(host))
            .ok_or_else(|| in_text("name the registry first: \"localhost:5000/iris:1\"".into()))?;
        let host = host.parse().map_err(in_text)?;
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        check_repository(repository).map_err(in_text)?;
        if let Some(tag) = tag {
            check_tag(tag).map_err(in_text)?;
        }
        Ok(Self { host, repository: repository.into(), tag: tag.map(str::to_owned), digest })
    }
}

/// Whether the first segment of a reference is a host, by Docker's rule.
fn is_host(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':'])
}

/// Checks a repository's name: segments in lower case, separated by slashes.
///
/// # Errors
/// A message with the valid form.
pub fn check_repository(name: &str) -> Result<(), String> {
    let is_part = |part: &str| {
        let words = part.split(['.', '_', '-']);
        let ends = [part.bytes().next(), part.bytes().next_back()];
        let has_word_ends = ends
            .iter()
            .all(|end| end.is_some_and(|end| end.is_ascii_lowercase() || end.is_ascii_digit()));
        let plain = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        // Separators are a single dot, one or two underscores, or any number of hyphens.
        let separated = !part.contains("..")
            && !part.contains("___")
            && !["._", "_.", ".-", "-.", "_-", "-_"].iter().any(|pair| part.contains(pair));
        has_word_ends && separated && words.into_iter().all(plain)
    };
    if name.len() > MAX_NAME || !name.split('/').all(is_part) {
        return Err(format!(
            "{name:?} is not the name of a repository; write lower-case letters and digits, with \
             `/`, `-`, `_` or `.` between them"
        ));
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), String> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let valid = tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
        && tag.len() <= MAX_TAG;
    if valid { Ok(()) } else { Err(format!("{tag:?} is not a tag; write a version, \"1.0.0\"")) }
}

/// A version of a WebAssembly package: `acme:iris@1.0.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    namespace: String,
    name: String,
    version: String,
}

impl Package {
    pub fn parse(package: &str, version: &str) -> Result<Self, String> {
        let parts = package.split_once(':').filter(|(namespace, name)| {
            [namespace, name]
                .iter()
                .all(|part| !part.contains('/') && check_repository(part).is_ok())
        });
        let Some((namespace, name)) = parts else {
            return Err(format!("package: {package:?} is not a package; write \"acme:iris\""));
        };
        if semver::Version::parse(version).is_err() {
            return Err("version: write a semantic version, \"1.0.0\"".into());
        }
        // Build metadata follows a plus sign, which a tag cannot contain.
        check_tag(version).map_err(|problem| format!("version: {problem}"))?;
        Ok(Self { namespace: namespace.into(), name: name.into(), version: version.into() })
    }

    /// The package's repository under `prefix`, as wasm-pkg-tools names it.
    ///
    /// # Errors
    /// If the prefix is not valid in a repository's name.
    pub fn reference(&self, host: RegistryHost, prefix: &str) -> Result<ArtifactReference, String> {
        let Self { namespace, name, version } = self;
        let repository = format!("{prefix}{namespace}/{name}");
        check_repository(&repository)?;
        Ok(ArtifactReference { host, repository, tag: Some(version.clone()), digest: None })
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}@{}", self.namespace, self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<ArtifactReference, String> {
        text.parse()
    }

    #[test]
    fn reference_has_a_host_a_repository_and_a_tag_or_digest() {
        let digest = Digest::of(b"");
        let pinned = format!("localhost:5000/a/b-c_d.e:1.0.0@{digest}");
        for (text, host, repository, tag, by) in [
            ("ghcr.io/a/b:1", "ghcr.io", "a/b", Some("1"), None),
            ("localhost/a", "localhost", "a", None, None),
            ("[::1]:5000/a:v1", "[::1]:5000", "a", Some("v1"), None),
            ("127.0.0.1:5000/a:Release_1-2", "127.0.0.1:5000", "a", Some("Release_1-2"), None),
            (&pinned, "localhost:5000", "a/b-c_d.e", Some("1.0.0"), Some(digest)),
        ] {
            let reference = parse(text).unwrap();
            assert_eq!(reference.host.as_str(), host, "{text}");
            assert_eq!(reference.repository, repository, "{text}");
            assert_eq!((reference.tag.as_deref(), reference.digest), (tag, by), "{text}");
            assert_eq!(reference.to_string(), text);
        }
        assert_eq!(parse("GHCR.io/a:1").unwrap().host.as_str(), "ghcr.io");
        assert_eq!(parse("docker.io/a:1").unwrap().host.address(), "registry-1.docker.io");
    }

    #[test]
    fn invalid_references_are_refused_with_the_fix() {
        for (text, part) in [
            ("", "name the registry first"),
            ("iris:1", "name the registry first"),
            ("acme/iris:1", "name the registry first"),
            ("https://ghcr.io/a:1", "has no scheme"),
            ("ghcr.io/", "is not the name of a repository"),
            ("ghcr.io/A:1", "lower-case"),
            ("ghcr.io/a//b:1", "is not the name of a repository"),
            ("ghcr.io/../b:1", "is not the name of a repository"),
            ("ghcr.io/a..b:1", "is not the name of a repository"),
            ("ghcr.io/a:", "is not a tag"),
            ("ghcr.io/a:1:2", "is not a tag"),
            ("ghcr.io/a:1.0.0+build", "is not a tag"),
            ("ghcr.io/a@sha256:12", "64 hexadecimal digits"),
            ("ghcr.io:99999/a:1", "is not the host of a registry"),
            ("-a.io/a:1", "is not the host of a registry"),
            ("[::g]:1/a:1", "is not the host of a registry"),
            ("user@ghcr.io/a:1", "64 hexadecimal digits"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    #[test]
    fn loopback_hosts_are_recognised() {
        for (host, loopback) in [
            ("localhost", true),
            ("LOCALHOST:5000", true),
            ("registry.localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("10.0.0.1:5000", false),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
            ("[::2]", false),
        ] {
            assert_eq!(host.parse::<RegistryHost>().unwrap().is_loopback(), loopback, "{host}");
        }
    }

    #[test]
    fn package_maps_to_a_repository_of_its_namespace() {
        let host: RegistryHost = "r.org".parse().unwrap();
        let package = Package::parse("acme:iris-model", "1.2.3-rc.1").unwrap();
        let reference = package.reference(host.clone(), "").unwrap();
        assert_eq!(reference.to_string(), "r.org/acme/iris-model:1.2.3-rc.1");
        let reference = package.reference(host.clone(), "wasm/").unwrap();
        assert_eq!(reference.to_string(), "r.org/wasm/acme/iris-model:1.2.3-rc.1");
        assert!(package.reference(host, "../").is_err());
        for (package, version, part) in [
            ("acme", "1.0.0", "is not a package"),
            ("acme:iris:x", "1.0.0", "is not a package"),
            ("acme:a/b", "1.0.0", "is not a package"),
            ("acme:", "1.0.0", "is not a package"),
            ("acme:iris", "1", "write a semantic version"),
            ("acme:iris", "1.0.0+build", "is not a tag"),
        ] {
            let problem = Package::parse(package, version).unwrap_err();
            assert!(problem.contains(part), "{package} {version}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn valid_references_round_trip(text in "[a-z0-9.:/@_\\[\\]-]{0,60}") {
            if let Ok(reference) = parse(&text) {
                prop_assert_eq!(reference.to_string(), text);
                prop_assert!(!reference.repository.contains(".."));
            }
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "\\PC{0,80}", version in "\\PC{0,20}") {
            let _ = parse(&text);
            let _ = text.parse::<RegistryHost>();
            let _ = Package::parse(&text, &version);
        }

        #[test]
        fn generated_references_are_valid(
            host in "[a-z][a-z0-9]{0,8}\\.[a-z]{2,4}(:[1-9][0-9]{0,3})?",
            repository in "[a-z0-9]{1,6}([._-][a-z0-9]{1,6}){0,2}(/[a-z0-9]{1,6}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9._-]{0,20}",
        ) {
            let text = format!("{host}/{repository}:{tag}");
            prop_assert_eq!(parse(&text).map(|r| r.to_string()), Ok(text));
        }
    }
}
