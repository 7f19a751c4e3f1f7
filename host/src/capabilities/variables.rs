//! Variables of a component: `spin:variables`, `fermyon:spin/variables` and `wasi:config/store`. They
//! are resolved at startup.

use wasmtime::Result;
use wasmtime::component::{Accessor, HasData, Linker};

use crate::config::manifest::names::check_variable;
use crate::config::variables::Variables;
use crate::guest::instance::InstanceState;

mod generated {
    wasmtime::component::bindgen!({
        path: ["../wit/spin-variables", "../wit/fermyon-spin", "../wit/wasi-config"],
        inline: "
            package spinfer:host;
            world variables {
                import spin:variables/variables@3.0.0;
                import fermyon:spin/variables@2.0.0;
                import wasi:config/store@0.2.0-draft-2024-09-27;
            }
        ",
        world: "spinfer:host/variables",
        imports: { default: trappable },
    });
}

use generated::fermyon::spin::variables as fermyon;
use generated::spin::variables::variables as spin;
use generated::wasi::config::store;

/// The variables of a component, borrowed for one call.
#[derive(Clone, Copy, Debug)]
pub struct VariablesView<'a>(pub &'a Variables);

/// Why a variable has no value.
pub(super) enum NoValue {
    InvalidName(String),
    Undefined(String),
}

impl VariablesView<'_> {
    pub(super) fn value(self, name: String) -> Result<String, NoValue> {
        if let Err(problem) = check_variable(&name) {
            return Err(NoValue::InvalidName(problem));
        }
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone()).ok_or(NoValue::Undefined(name))
    }
}

impl spin::Host for VariablesView<'_> {}

impl<T> spin::HostWithStore<T> for HasVariables {
    async fn get(store: &Accessor<T, Self>, name: String) -> Result<Result<String, spin::Error>> {
        let value = store.with(|mut view| view.get().value(name));
        Ok(value.map_err(|error| match error {
            NoValue::InvalidName(problem) => spin::Error::InvalidName(problem),
            NoValue::Undefined(name) => spin::Error::Undefined(name),
        }))
    }
}

impl fermyon::Host for VariablesView<'_> {
    fn get(&mut self, name: String) -> Result<Result<String, fermyon::Error>> {
        Ok(self.value(name).map_err(|error| match error {
            NoValue::InvalidName(problem) => fermyon::Error::InvalidName(problem),
            NoValue::Undefined(name) => fermyon::Error::Undefined(name),
        }))
    }
}

impl store::Host for VariablesView<'_> {
    fn get(&mut self, key: String) -> Result<Result<Option<String>, store::Error>> {
        Ok(Ok(self.value(key).ok()))
    }

    fn get_all(&mut self) -> Result<Result<Vec<(String, String)>, store::Error>> {
        Ok(Ok(self.0.to_vec()))
    }
}

pub(super) struct HasVariables;

impl HasData for HasVariables {
    type Data<'a> = VariablesView<'a>;
}

/// Adds the variables interfaces to `linker`.
///
/// # Errors
/// The linker already defines one of them.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    spin::add_to_linker::<_, HasVariables>(linker, InstanceState::variables)?;
    fermyon::add_to_linker::<_, HasVariables>(linker, InstanceState::variables)?;
    store::add_to_linker::<_, HasVariables>(linker, InstanceState::variables)
}
