//! Profiles of callgrind, a tool of valgrind: the cost of each function in counted events, which are the
//! same on a busy machine.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Options of callgrind for a profile that [`Profile::parse`] can read.
pub const OPTIONS: [&str; 4] = [
    "--tool=callgrind",
    "--compress-strings=no",
    "--compress-pos=no",
    // Compiled guest code has replaced other code at the same address.
    "--smc-check=all-non-file",
];

/// Name of a function without a symbol in memory that is no file: code that wasmtime compiled.
pub const GUEST_CODE: &str = "compiled guest code";

/// The cost of a process by function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Names of the counted events, such as `Ir`, instructions read.
    pub events: Vec<String>,
    /// For each function its own cost, without the functions that it calls: one number for each event.
    pub functions: BTreeMap<Function, Vec<f64>>,
}

/// A function, and where its code is from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    /// The crate; the file, for what is not Rust.
    pub origin: String,
    pub name: String,
}

impl Profile {
    /// Parses a file that callgrind wrote with [`OPTIONS`].
    ///
    /// # Errors
    /// If it is not such a file.
    pub fn parse(text: &str) -> Result<Self> {
        let mut profile = Self::default();
        let (mut object, mut name) = ("", "");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(value) = line.strip_prefix("ob=") {
                object = value;
            } else if let Some(value) = line.strip_prefix("fn=") {
                name = value;
            } else if let Some(value) = line.strip_prefix("events: ") {
                profile.events = value.split(' ').map(str::to_owned).collect();
            } else if line.starts_with("calls=") {
                // The cost of the called function.
                lines.next();
            } else if line.starts_with(|first: char| first.is_ascii_digit()) {
                let function = Function::of(name, object);
                let own = profile.functions.entry(function).or_default();
                own.resize(profile.events.len(), 0.0);
                // Zeros at the end of a line are omitted.
                for (own, cost) in own.iter_mut().zip(line.split(' ').skip(1)) {
                    *own += cost.parse::<f64>().with_context(|| format!("not a cost: {line}"))?;
                }
            }
        }
        anyhow::ensure!(!profile.functions.is_empty(), "callgrind wrote no costs");
        Ok(profile)
    }

    /// The cost of each of the `requests` by which `self` exceeds `less`.
    #[must_use]
    pub fn each(&self, less: &Self, requests: u32) -> Self {
        let mut each = self.clone();
        for (function, costs) in &mut each.functions {
            let before = less.functions.get(function);
            for (index, cost) in costs.iter_mut().enumerate() {
                *cost -= before.map_or(0.0, |before| before[index]);
                *cost /= f64::from(requests);
            }
        }
        each
    }

    /// The sum over all functions of the events that `counts`.
    #[must_use]
    pub fn total(&self, counts: impl Fn(&str) -> bool) -> f64 {
        self.functions.values().map(|costs| self.sum(costs, &counts)).sum()
    }

    /// The sum of those of `costs` whose event `counts`.
    #[must_use]
    pub fn sum(&self, costs: &[f64], counts: impl Fn(&str) -> bool) -> f64 {
        let of_events = self.events.iter().zip(costs);
        of_events.filter(|(event, _)| counts(event)).map(|(_, cost)| cost).sum()
    }
}

impl Function {
    fn of(name: &str, object: &str) -> Self {
        // Each level of a recursion is a function of its own: `name'2`.
        let name = match name.rsplit_once('\'') {
            Some((name, level)) if level.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => name,
        };
        let file = object.rsplit('/').next().unwrap_or(object);
        let (origin, name) = match (name.starts_with("0x") || name == "???", name.find("::")) {
            (true, _) if object == "???" || object.is_empty() => ("guest", GUEST_CODE),
            (true, _) => (file, "functions without a symbol"),
            (false, Some(_)) => (crate_of(name), name),
            (false, None) => (file, name),
        };
        Self { origin: origin.to_owned(), name: name.to_owned() }
    }
}

/// The crate of a demangled symbol, which is in front of its first `::`:
/// `<alloc::vec::Vec<T> as core::ops::Drop>::drop` is of `alloc`, `<T as core::fmt::Debug>::fmt` of `core`.
fn crate_of(symbol: &str) -> &str {
    let mut names = symbol.match_indices("::").map(|(end, _)| {
        let before = &symbol[..end];
        before.rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or(before)
    });
    names.find(|name| !name.is_empty()).unwrap_or(symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir Dr
summary: 1000 10

ob=/target/release/spinfer
fl=/host/src/request/mod.rs
fn=<spinfer::request::Exchange<B> as core::fmt::Debug>::fmt
10 400 5
fi=/inlined.rs
20 3
fe=/host/src/request/mod.rs
cob=/lib/libc.so.6
cfn=memcpy
calls=2 0
11 90 7
fn=spinfer::request::serve'2
12 100 1
fn=spinfer::request::serve
12 1 1
ob=/lib/libc.so.6
fn=memcpy
0 90 7
ob=???
fn=0x0000000004c5a010
0 7
fn=0x0000000004c5a020
0 3 2
";

    fn function(origin: &str, name: &str) -> Function {
        Function { origin: origin.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn costs_are_those_of_the_function_itself() {
        let profile = Profile::parse(PROFILE).unwrap();
        let expected = [
            (function("guest", GUEST_CODE), vec![10.0, 2.0]),
            (function("libc.so.6", "memcpy"), vec![90.0, 7.0]),
            (
                function("spinfer", "<spinfer::request::Exchange<B> as core::fmt::Debug>::fmt"),
                vec![403.0, 5.0],
            ),
            (function("spinfer", "spinfer::request::serve"), vec![101.0, 2.0]),
        ];
        assert_eq!(profile.functions, BTreeMap::from(expected));
        assert_eq!(profile.total(|event| event == "Ir"), 604.0);
        assert!(Profile::parse("events: Ir\n").is_err());
    }

    #[test]
    fn the_start_of_the_process_cancels_out() {
        let less = Profile::parse("events: Ir\nob=a\nfn=start\n0 50\nfn=serve\n0 30\n").unwrap();
        let more =
            Profile::parse("events: Ir\nob=a\nfn=start\n0 50\nfn=serve\n0 50\nfn=rare\n0 10\n")
                .unwrap();
        let each = more.each(&less, 10);
        let costs: Vec<_> = each.functions.iter().map(|(f, c)| (f.name.as_str(), c[0])).collect();
        assert_eq!(costs, [("rare", 1.0), ("serve", 2.0), ("start", 0.0)]);
    }

    #[test]
    fn a_symbol_belongs_to_its_first_crate() {
        assert_eq!(crate_of("<alloc::vec::Vec<T> as core::ops::Drop>::drop"), "alloc");
        assert_eq!(crate_of("<&mut dyn tokio::io::AsyncRead as T>::poll_read"), "tokio");
        assert_eq!(crate_of("<(A1,) as wasmtime::WasmParams>::store"), "wasmtime");
        assert_eq!(crate_of("serde_json::de::from_slice"), "serde_json");
    }
}
