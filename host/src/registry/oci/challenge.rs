//! Parses `WWW-Authenticate`, the authentication that a registry requests.

/// A supported authentication scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password in each request.
    Basic,
    /// A token from the service at `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The preferred challenge of the headers `values`.
    pub fn choose<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        let all: Vec<Self> = values.flat_map(parse).collect();
        let is_bearer = |challenge: &&Self| matches!(challenge, Self::Bearer { .. });
        all.iter().find(is_bearer).or(all.first()).cloned()
    }
}

/// A scheme with its parameters.
struct AuthScheme {
    name: String,
    parameters: Vec<(String, String)>,
}

impl AuthScheme {
    fn take(&mut self, name: &str) -> Option<String> {
        let index = self.parameters.iter().position(|(known, _)| known == name)?;
        Some(self.parameters.swap_remove(index).1)
    }
}

/// The supported challenges of one header, in order.
fn parse(value: &str) -> Vec<Challenge> {
    let mut schemes: Vec<AuthScheme> = Vec::new();
    let mut scanner = Scanner(value);
    while let Some(token) = scanner.token() {
        match (scanner.value(), schemes.last_mut()) {
            (Some(value), Some(scheme)) => {
                scheme.parameters.push((token.to_ascii_lowercase(), value));
            }
            // A parameter without a scheme.
            (Some(_), None) => {}
            (None, _) => {
                let name = token.to_ascii_lowercase();
                schemes.push(AuthScheme { name, parameters: Vec::new() });
            }
        }
    }
    let known = |mut scheme: AuthScheme| match scheme.name.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            let realm = scheme.take("realm")?;
            let (service, scope) = (scheme.take("service"), scheme.take("scope"));
            Some(Challenge::Bearer { realm, service, scope })
        }
        _ => None,
    };
    schemes.into_iter().filter_map(known).collect()
}

/// The rest of a header's value.
struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    /// The next token; other characters before it are skipped.
    fn token(&mut self) -> Option<&'a str> {
        let start = self.0.find(is_token)?;
        let rest = &self.0[start..];
        let end = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
        self.0 = &rest[end..];
        Some(&rest[..end])
    }

    /// The value after an equals sign, if one follows.
    fn value(&mut self) -> Option<String> {
        let rest = self.0.trim_start().strip_prefix('=')?.trim_start();
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
            self.0 = &rest[end..];
            return Some(rest[..end].to_owned());
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.0 = &quoted[at + 1..];
                    return Some(value);
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                c => value.push(c),
            }
        }
        self.0 = "";
        Some(value)
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.into(), service: owned(service), scope: owned(scope) }
    }

    #[test]
    fn challenges_of_registries_are_parsed() {
        for (value, expected) in [
            ("Basic realm=\"Registry\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",\
                 scope=\"repository:a/b:pull,push\"",
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (
                "Negotiate, Basic realm=\"a, b\" , BEARER Realm = \"https://a/\\\"x\"",
                vec![Challenge::Basic, bearer("https://a/\"x", None, None)],
            ),
            ("Bearer service=\"no realm\"", vec![]),
            ("Bearer realm=https://a/token", vec![bearer("https://a/token", None, None)]),
            ("Bearer realm=\"never closed", vec![bearer("never closed", None, None)]),
            ("", vec![]),
        ] {
            assert_eq!(parse(value), expected, "{value}");
        }
    }

    #[test]
    fn bearer_is_preferred_to_basic() {
        let chosen =
            Challenge::choose(["Basic realm=x", "Bearer realm=\"https://a/\""].into_iter());
        assert_eq!(chosen, Some(bearer("https://a/", None, None)));
        assert_eq!(Challenge::choose(["Digest a=b"].into_iter()), None);
    }

    proptest! {
        #[test]
        fn arbitrary_headers_do_not_panic(value in "([Bb]earer |Basic |realm=|\"|,|\\\\|=|\\PC){0,40}") {
            let _ = parse(&value);
        }
    }
}
