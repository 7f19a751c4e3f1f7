//! Interfaces that Spin provides and this host does not: a component that imports one is served, and each
//! call returns the interface's own error, as in Spin without a grant. Toolchains of interpreted
//! languages import every interface of their SDK, whether the program uses it or not.
//!
//! An interface that the linker defines is never denied: to provide one, add it to the linker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType, Val};
use wasmtime::{Result, bail, error::Context};

use super::Provided;
use crate::guest::instance::InstanceState;

/// The prefix of the names of these interfaces, and what they give access to.
const DENIED: [(&str, &str); 8] = [
    ("fermyon:spin/llm", "large language models"),
    ("fermyon:spin/mqtt", "MQTT of Spin 1 (build with a newer SDK)"),
    ("fermyon:spin/mysql", "MySQL"),
    ("fermyon:spin/sqlite", "SQLite databases of Spin 1 (build with a newer SDK)"),
    ("spin:mqtt/", "MQTT in a version other than 3.0.0"),
    ("spin:mysql/", "MySQL"),
    ("spin:postgres/", "PostgreSQL in a version other than 3.0.0 and 4"),
    ("spin:sqlite/", "SQLite databases in a version other than 3.0.0 and 3.1.0"),
];

/// Cases of error types that mean, or can carry, a denial: the first that a type has is returned.
const CASES: [&str; 7] =
    ["access-denied", "connection-failed", "runtime-error", "other", "other-error", "io", "error"];

/// What the interface `name` gives access to, if it is denied where it is not defined.
fn denied(name: &str) -> Option<&'static str> {
    DENIED.iter().find(|(start, _)| name.starts_with(start)).map(|(_, what)| *what)
}

/// Whether calls of the interface `name` are denied unless it is defined.
pub(super) fn is_denied(name: &str) -> bool {
    denied(name).is_some()
}

/// A resource of a denied interface. There are none.
struct Denied;

/// A linker that also defines the denied interfaces of `component`, and the names of these; `None` if
/// the component imports none.
///
/// # Errors
/// An interface cannot be defined.
pub fn deny(
    linker: &Linker<InstanceState>,
    component: &Component,
) -> Result<Option<(Linker<InstanceState>, Vec<String>)>> {
    let engine = linker.engine();
    let types = component.component_type();
    let imports = types.imports(engine).filter_map(|(name, import)| match import.ty {
        ComponentItem::ComponentInstance(instance) => Some((name, denied(name)?, instance)),
        _ => None,
    });
    let mut imports: Vec<_> = imports.collect();
    if imports.is_empty() {
        return Ok(None);
    }
    let mut provided = Provided::by(linker);
    imports.retain(|(name, ..)| !provided.has(name));
    let (mut linker, mut names) = (linker.clone(), Vec::new());
    for (name, what, instance) in imports {
        let mut definition = linker.instance(name)?;
        let mut calls = false;
        let reason: Arc<str> = format!("this host does not provide {what}").into();
        for (item, export) in instance.exports(engine) {
            match export.ty {
                ComponentItem::ComponentFunc(function) => {
                    calls = true;
                    let label = format!("{name}#{item}");
                    let denial =
                        Denial { label, reason: reason.clone(), warned: AtomicBool::new(false) };
                    define(&mut definition, item, &function, denial)?;
                }
                ComponentItem::Resource(_) => {
                    definition.resource(item, ResourceType::host::<Denied>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
        if calls {
            names.push(name.to_owned());
        }
    }
    Ok((!names.is_empty()).then_some((linker, names)))
}

/// What a denied function returns.
struct Denial {
    /// The function, by interface and name.
    label: String,
    reason: Arc<str>,
    /// Whether a call has been logged.
    warned: AtomicBool,
}

fn define(
    interface: &mut LinkerInstance<'_, InstanceState>,
    name: &str,
    function: &ComponentFunc,
    denial: Denial,
) -> Result<()> {
    if !function.async_() {
        return interface.func_new(name, move |store, function, _, results| {
            denial.log(store.data());
            denial.put(&function, results)
        });
    }
    let denial = Arc::new(denial);
    interface.func_new_concurrent(name, move |accessor, function, _, results| {
        let denial = Arc::clone(&denial);
        Box::pin(async move {
            accessor.with(|mut access| denial.log(access.get()));
            denial.put(&function, results)
        })
    })
}

impl Denial {
    /// Logs the first call.
    fn log(&self, state: &InstanceState) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let component = &state.outbound.spec.id;
            warn!(component, function = self.label, "a call is denied: {}", self.reason);
        }
    }

    /// Sets the result of a call to the error of its type. A function without a result does nothing.
    fn put(&self, function: &ComponentFunc, results: &mut [Val]) -> Result<()> {
        let Some((ty, result)) = function.results().zip(results).next() else { return Ok(()) };
        let Type::Result(outcome) = ty else { bail!("{}: {}", self.label, self.reason) };
        let error = match outcome.err() {
            None => None,
            Some(ty) => {
                let error = error_of(&ty, &self.reason);
                Some(Box::new(error.with_context(|| format!("{}: {}", self.label, self.reason))?))
            }
        };
        *result = Val::Result(Err(error));
        Ok(())
    }
}

/// The value of the error type `ty` that comes nearest to a denial.
fn error_of(ty: &Type, reason: &str) -> Option<Val> {
    let text = || Val::String(reason.to_owned());
    match ty {
        Type::String => Some(text()),
        Type::Enum(names) => {
            let case = CASES.iter().find(|case| names.names().any(|name| name == **case))?;
            Some(Val::Enum((*case).to_owned()))
        }
        Type::Variant(variant) => CASES.iter().find_map(|name| {
            let case = variant.cases().find(|case| case.name == *name)?;
            let payload = match case.ty {
                None => None,
                Some(Type::String) => Some(Box::new(text())),
                Some(_) => return None,
            };
            Some(Val::Variant((*name).to_owned(), payload))
        }),
        _ => None,
    }
}
