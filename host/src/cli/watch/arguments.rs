//! The command line of `spinfer up`, from that of `spinfer watch`.

use std::ffi::{OsStr, OsString};

use anyhow::{Context, Result};

/// Flags of `spinfer watch` that `spinfer up` does not have, and those that `watch` does itself.
const OWN: [(&str, bool); 3] = [("--skip-build", false), ("--debounce", true), ("--build", false)];
const LISTEN: &str = "--listen";
const DRAIN: &str = "--drain";

/// The arguments of `spinfer up`.
#[derive(Debug)]
pub(super) struct UpArguments(Vec<OsString>);

impl UpArguments {
    /// From the `arguments` of this process, without its name.
    pub(super) fn new(arguments: impl Iterator<Item = OsString>) -> Result<Self> {
        let mut arguments: Vec<_> = arguments.collect();
        let command = arguments.first_mut().context("the command is the first argument")?;
        *command = "up".into();
        for (flag, has_value) in OWN {
            remove(&mut arguments, flag, has_value);
        }
        // No load balancer has to notice a restart.
        if !arguments.iter().any(|given| given.to_str().is_some_and(|g| g.starts_with(DRAIN))) {
            arguments.extend([DRAIN.into(), "0s".into()]);
        }
        Ok(Self(arguments))
    }

    pub(super) fn as_slice(&self) -> &[OsString] {
        &self.0
    }

    /// Whether any free port is asked for.
    pub(super) fn any_port(&self) -> bool {
        let value = |index: usize| {
            let given = self.0[index].to_str()?;
            match given.strip_prefix(LISTEN)? {
                "" => self.0.get(index + 1)?.to_str(),
                given => given.strip_prefix('='),
            }
        };
        let listen = (0..self.0.len()).find_map(value);
        listen.is_some_and(|address| address.rsplit(':').next() == Some("0"))
    }

    /// Listens on `address`, which the first start was given.
    pub(super) fn pin_listen(&mut self, address: &str) {
        remove(&mut self.0, LISTEN, true);
        self.0.extend([LISTEN.into(), address.into()]);
    }
}

/// Removes every `flag`, with the value after it or after `=`.
fn remove(arguments: &mut Vec<OsString>, flag: &str, has_value: bool) {
    let mut rest = std::mem::take(arguments).into_iter();
    while let Some(argument) = rest.next() {
        if argument == OsStr::new(flag) {
            if has_value {
                rest.next();
            }
        } else if !argument.to_str().is_some_and(|text| {
            has_value && text.strip_prefix(flag).is_some_and(|value| value.starts_with('='))
        }) {
            arguments.push(argument);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(given: &[&str]) -> UpArguments {
        UpArguments::new(given.iter().map(OsString::from)).unwrap()
    }

    #[test]
    fn flags_of_watch_are_removed() {
        for (given, expected) in [
            (&["watch"][..], &["up", DRAIN, "0s"][..]),
            (&["watch", "--skip-build", "-f", "app"], &["up", "-f", "app", DRAIN, "0s"]),
            (&["watch", "--debounce", "1s", "--drain=1s"], &["up", "--drain=1s"]),
            (&["watch", "--debounce=1s", "--build", DRAIN, "1s"], &["up", DRAIN, "1s"]),
            (
                &["watch", "--env", "a=--build", DRAIN, "1s"],
                &["up", "--env", "a=--build", DRAIN, "1s"],
            ),
        ] {
            assert_eq!(arguments(given).as_slice(), expected);
        }
    }

    #[test]
    fn free_port_is_replaced_by_the_port_of_the_first_start() {
        for (given, any) in [
            (&["watch"][..], false),
            (&["watch", "--listen", "127.0.0.1:3000"], false),
            (&["watch", "--listen", "127.0.0.1:0"], true),
            (&["watch", "--listen=[::1]:0"], true),
        ] {
            assert_eq!(arguments(given).any_port(), any, "{given:?}");
        }
        for listen in [&["--listen", "127.0.0.1:0"][..], &["--listen=127.0.0.1:0"]] {
            let mut up = arguments(&[&["watch"], listen, &["--drain=1s"]].concat());
            up.pin_listen("127.0.0.1:4000");
            assert_eq!(up.as_slice(), ["up", "--drain=1s", "--listen", "127.0.0.1:4000"]);
        }
    }
}
