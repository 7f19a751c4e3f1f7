//! A component without its concurrent part: what the fast door needs of it.
//!
//! A component of `model-sdk` also exports `wasi:http/handler`, an asynchronous function with streams. wasmtime
//! runs it with support for concurrent calls. That makes each call more expensive, through the fast door and
//! from the guest to the host: it keeps tasks, queues and tables, which synchronous calls do not need. So the
//! fast door calls another form of the component, compiled without that support. What needs it is replaced,
//! and all indices stay the same:
//!
//! | item | replaced by |
//! | --- | --- |
//! | core function: `stream.read`, a lowered import ... | one of the same type that traps |
//! | function | any other function |
//! | instance, component | an empty one |
//! | type | `string` |
//! | export | nothing |
//!
//! A synchronous function cannot wait for streams or asynchronous functions, and so has no use for `wasi:http`
//! 0.3. A component with other concurrent imports has no sequential form.

mod replaced;

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use wasm_encoder::{
    Alias, CodeSection, Component, ComponentAliasSection, ComponentExportKind, ComponentSectionId,
    ExportKind, ExportSection, Function, FunctionSection, InstanceSection, Instruction, Module,
    ModuleArg, ModuleSection, RawSection, TypeSection,
};
use wasmparser::types::Types;
use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExport, ComponentExternalKind,
    ComponentImport, ComponentInstance, ComponentType, ComponentTypeRef, FromReader, Instance,
    InstanceTypeDeclaration, Parser, Payload, SectionLimited, Validator, WasmFeatures,
};

/// Part of the hash of the artifacts of this form: changes when the same file is converted differently.
pub(super) const REVISION: &[u8] = b"sequential 1";

/// Prefix of the imports that are replaced.
const REPLACED: &str = "wasi:http/";

/// The sequential form of the component in `wasm`; `None` if it has none.
///
/// # Errors
/// The component is invalid.
pub(super) fn of(wasm: &[u8]) -> Result<Option<Vec<u8>>> {
    ensure!(Parser::is_component(wasm), "it is not a component");
    let types = Validator::new_with_features(WasmFeatures::all()).validate_all(wasm)?;
    let mut form = SequentialForm { wasm, ..SequentialForm::default() };
    form.add_traps(&types)?;
    // Nesting depth: modules and components inside of this one are copied or replaced as a whole.
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            _ if depth > 1 => {}
            _ if !form.add(&payload)? => return Ok(None),
            _ => {}
        }
    }
    let form = form.component.finish();
    let without = WasmFeatures::all()
        & !(WasmFeatures::CM_ASYNC | WasmFeatures::CM_ASYNC_STACKFUL | WasmFeatures::CM_THREADING);
    let validated = Validator::new_with_features(without).validate_all(&form);
    validated.context("the sequential form of a component is invalid")?;
    Ok(Some(form))
}

/// The component while it is written, item by item. The flags tell by index which items are replaced.
#[derive(Default)]
struct SequentialForm<'a> {
    wasm: &'a [u8],
    component: Component,
    types: Vec<bool>,
    functions: Vec<bool>,
    instances: Vec<bool>,
    components: Vec<bool>,
    /// Number of core functions so far.
    core_functions: usize,
    /// The export of the module of traps that has the type of each core function.
    traps: Vec<String>,
    /// The first function of instance types, by their index.
    first_functions: HashMap<u32, &'a str>,
    /// An imported instance and one of its functions, which others are replaced by.
    any_function: Option<(u32, &'a str)>,
}

/// Number of core modules, and of their instances, that are added before all others.
const ADDED: u32 = 1;

impl<'a> SequentialForm<'a> {
    /// Adds a core module with a function that traps of each type that core functions have.
    fn add_traps(&mut self, of: &Types) -> Result<()> {
        let of = of.as_ref();
        let (mut types, mut functions) = (TypeSection::new(), FunctionSection::new());
        let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
        let mut known = Vec::new();
        for index in 0..of.function_count() {
            let id = of.core_function_at(index);
            let number = match known.iter().position(|other| *other == id) {
                Some(number) => number,
                None => {
                    known.push(id);
                    let function = of[id].unwrap_func();
                    let values = |types: &[wasmparser::ValType]| -> Result<Vec<_>> {
                        let value = |&ty| wasm_encoder::ValType::try_from(ty);
                        let values = types.iter().map(value).collect::<Result<_, _>>();
                        values.map_err(|error| anyhow!("a core function's type: {error:?}"))
                    };
                    types.ty().function(values(function.params())?, values(function.results())?);
                    let number = known.len() - 1;
                    let ty = u32::try_from(number)?;
                    functions.function(ty);
                    exports.export(&number.to_string(), ExportKind::Func, ty);
                    let mut body = Function::new([]);
                    body.instruction(&Instruction::Unreachable).instruction(&Instruction::End);
                    code.function(&body);
                    number
                }
            };
            self.traps.push(number.to_string());
        }
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&exports).section(&code);
        self.component.section(&ModuleSection(&module));
        let mut instance = InstanceSection::new();
        instance.instantiate(0, [] as [(&str, ModuleArg); 0]);
        self.component.section(&instance);
        Ok(())
    }

    /// Adds a section. Returns false if the component has no sequential form.
    fn add(&mut self, payload: &Payload<'a>) -> Result<bool> {
        match payload {
            Payload::ComponentTypeSection(types) => {
                for (ty, bytes) in items(self.wasm, types)? {
                    let replaced = self.is_type_replaced(&ty, 0);
                    let first = first_function(&ty).zip(u32::try_from(self.types.len()).ok());
                    self.first_functions.extend(first.map(|(name, index)| (index, name)));
                    self.add_type((!replaced).then_some((ComponentSectionId::Type, bytes)));
                }
            }
            Payload::ComponentImportSection(imports) => {
                for (import, bytes) in items(self.wasm, imports)? {
                    if !self.add_import(&import, bytes) {
                        return Ok(false);
                    }
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for (alias, bytes) in items(self.wasm, aliases)? {
                    self.add_alias(&alias, bytes)?;
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                for (function, bytes) in items(self.wasm, functions)? {
                    self.add_canonical(&function, bytes)?;
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for (instance, bytes) in items(self.wasm, instances)? {
                    self.add_instance(&instance, bytes);
                }
            }
            Payload::ComponentExportSection(exports) => {
                for (export, bytes) in items(self.wasm, exports)? {
                    self.add_export(&export, bytes)?;
                }
            }
            Payload::InstanceSection(instances) => {
                for (instance, bytes) in items(self.wasm, instances)? {
                    self.add_core_instance(&instance, bytes);
                }
            }
            Payload::ComponentSection { unchecked_range, .. } => {
                let bytes =
                    self.wasm.get(unchecked_range.clone()).context("a truncated component")?;
                let replaced = is_concurrent(bytes)?;
                let data = if replaced { Component::new().finish() } else { bytes.to_owned() };
                self.component
                    .section(&RawSection { id: ComponentSectionId::Component.into(), data: &data });
                self.components.push(replaced);
            }
            Payload::ComponentStartSection { .. } => return Ok(false),
            // Names of items that are replaced, of producers, and of languages.
            Payload::CustomSection(_) => {}
            other => {
                if let Some((id, range)) = other.as_section() {
                    let data = self.wasm.get(range).context("a truncated section")?;
                    self.component.section(&RawSection { id, data });
                }
            }
        }
        Ok(true)
    }

    /// Adds a section with one item.
    fn add_item(&mut self, (section, bytes): (ComponentSectionId, &[u8])) {
        let mut data = vec![1];
        data.extend_from_slice(bytes);
        self.component.section(&RawSection { id: section.into(), data: &data });
    }

    /// Adds what defines a type; `None`: it is replaced.
    fn add_type(&mut self, item: Option<(ComponentSectionId, &[u8])>) {
        const STRING: u8 = 0x73;
        self.types.push(item.is_none());
        self.add_item(item.unwrap_or((ComponentSectionId::Type, &[STRING])));
    }

    /// Adds what defines an instance; `None`: it is replaced.
    fn add_instance_item(&mut self, item: Option<(ComponentSectionId, &[u8])>) {
        /// From exports, of which there are none.
        const EMPTY: [u8; 2] = [1, 0];
        self.instances.push(item.is_none());
        self.add_item(item.unwrap_or((ComponentSectionId::Instance, &EMPTY)));
    }

    /// Adds what defines a function; `None`: it is replaced.
    fn add_function(&mut self, item: Option<(ComponentSectionId, &[u8])>) -> Result<()> {
        self.functions.push(item.is_none());
        match item {
            Some(item) => self.add_item(item),
            None => {
                let any =
                    self.any_function.context("there is no function that could stand for it")?;
                let (instance, name) = any;
                let mut aliases = ComponentAliasSection::new();
                let kind = ComponentExportKind::Func;
                aliases.alias(Alias::InstanceExport { instance, kind, name });
                self.component.section(&aliases);
            }
        }
        Ok(())
    }

    /// Adds what defines a core function; `None`: it is replaced.
    fn add_core_function(&mut self, item: Option<(ComponentSectionId, &[u8])>) -> Result<()> {
        match item {
            Some(item) => self.add_item(item),
            None => {
                let name =
                    self.traps.get(self.core_functions).context("an unknown core function")?;
                let mut aliases = ComponentAliasSection::new();
                let kind = ExportKind::Func;
                aliases.alias(Alias::CoreInstanceExport { instance: 0, kind, name });
                self.component.section(&aliases);
            }
        }
        self.core_functions += 1;
        Ok(())
    }

    /// Returns false if it is not one of those that can be replaced.
    fn add_import(&mut self, import: &ComponentImport<'a>, bytes: &[u8]) -> bool {
        let replaced = self.is_reference_replaced(&import.ty, 0);
        let item = (!replaced).then_some((ComponentSectionId::Import, bytes));
        match import.ty {
            _ if replaced && !import.name.name.starts_with(REPLACED) => return false,
            ComponentTypeRef::Instance(ty) => {
                let instance = u32::try_from(self.instances.len()).ok().filter(|_| !replaced);
                let first = instance.zip(self.first_functions.get(&ty).copied());
                self.any_function = self.any_function.or(first);
                self.add_instance_item(item);
            }
            ComponentTypeRef::Type(_) => self.add_type(item),
            _ if replaced => return false,
            ComponentTypeRef::Func(_) => {
                self.functions.push(false);
                self.add_item((ComponentSectionId::Import, bytes));
            }
            ComponentTypeRef::Component(_) => {
                self.components.push(false);
                self.add_item((ComponentSectionId::Import, bytes));
            }
            ComponentTypeRef::Module(_) => self.add_item((ComponentSectionId::Import, bytes)),
            ComponentTypeRef::Value(_) => return false,
        }
        true
    }

    fn add_alias(&mut self, alias: &ComponentAlias<'a>, bytes: &[u8]) -> Result<()> {
        match *alias {
            ComponentAlias::InstanceExport { kind, instance_index, .. } => {
                let replaced = flag(&self.instances, instance_index);
                let item = (!replaced).then_some((ComponentSectionId::Alias, bytes));
                match kind {
                    ComponentExternalKind::Type => self.add_type(item),
                    ComponentExternalKind::Instance => self.add_instance_item(item),
                    ComponentExternalKind::Func => self.add_function(item)?,
                    kind => bail!("an alias of a {kind:?}"),
                }
            }
            ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
                let mut aliases = ComponentAliasSection::new();
                let (instance, is_function) =
                    (instance_index + ADDED, kind == wasmparser::ExternalKind::Func);
                let kind = ExportKind::from(kind);
                aliases.alias(Alias::CoreInstanceExport { instance, kind, name });
                self.component.section(&aliases);
                self.core_functions += usize::from(is_function);
            }
            ComponentAlias::Outer { .. } => bail!("an alias of an outer item"),
        }
        Ok(())
    }

    fn add_canonical(&mut self, function: &CanonicalFunction, bytes: &[u8]) -> Result<()> {
        let is_async = |options: &[CanonicalOption]| {
            let concurrent = |option: &CanonicalOption| {
                matches!(option, CanonicalOption::Async | CanonicalOption::Callback(_))
            };
            options.iter().any(concurrent)
        };
        let item =
            |replaced: bool| (!replaced).then_some((ComponentSectionId::CanonicalFunction, bytes));
        match function {
            CanonicalFunction::Lift { type_index, options, .. } => {
                self.add_function(item(flag(&self.types, *type_index) || is_async(options)))
            }
            CanonicalFunction::Lower { func_index, options } => self
                .add_core_function(item(flag(&self.functions, *func_index) || is_async(options))),
            CanonicalFunction::ResourceNew { resource }
            | CanonicalFunction::ResourceDrop { resource }
            | CanonicalFunction::ResourceRep { resource } => {
                self.add_core_function(item(flag(&self.types, *resource)))
            }
            // Everything else is of tasks, threads, streams and futures.
            _ => self.add_core_function(None),
        }
    }

    fn add_instance(&mut self, instance: &ComponentInstance<'a>, bytes: &[u8]) {
        let replaced = match instance {
            ComponentInstance::Instantiate { component_index, args } => {
                flag(&self.components, *component_index)
                    || args.iter().any(|arg| self.is_item_replaced(arg.kind, arg.index))
            }
            ComponentInstance::FromExports(exports) => {
                exports.iter().any(|export| self.is_item_replaced(export.kind, export.index))
            }
        };
        self.add_instance_item((!replaced).then_some((ComponentSectionId::Instance, bytes)));
    }

    /// An export has an index of its own, as the item that it exports has.
    fn add_export(&mut self, export: &ComponentExport<'a>, bytes: &[u8]) -> Result<()> {
        let ty = export.ty.as_ref();
        let replaced = self.is_item_replaced(export.kind, export.index)
            || ty.is_some_and(|ty| self.is_reference_replaced(ty, 0));
        let item = (!replaced).then_some((ComponentSectionId::Export, bytes));
        match export.kind {
            ComponentExternalKind::Type => self.add_type(item),
            ComponentExternalKind::Instance => self.add_instance_item(item),
            ComponentExternalKind::Func => self.add_function(item)?,
            kind => bail!("an export of a {kind:?}"),
        }
        Ok(())
    }

    fn add_core_instance(&mut self, instance: &Instance<'a>, bytes: &[u8]) {
        match instance {
            Instance::Instantiate { module_index, args } => {
                let arg = |arg: &wasmparser::InstantiationArg<'a>| {
                    (arg.name, ModuleArg::Instance(arg.index + ADDED))
                };
                let mut section = InstanceSection::new();
                section.instantiate(module_index + ADDED, args.iter().map(arg));
                self.component.section(&section);
            }
            // Its items are no instances.
            Instance::FromExports(_) => self.add_item((ComponentSectionId::CoreInstance, bytes)),
        }
    }
}

/// The name of the first function of an instance type.
fn first_function<'a>(ty: &ComponentType<'a>) -> Option<&'a str> {
    let ComponentType::Instance(declarations) = ty else { return None };
    declarations.iter().find_map(|declaration| match declaration {
        InstanceTypeDeclaration::Export { name, ty: ComponentTypeRef::Func(_) } => Some(name.name),
        _ => None,
    })
}

fn flag(flags: &[bool], index: u32) -> bool {
    flags.get(index as usize).copied().unwrap_or(false)
}

/// The items of a section, each with its bytes.
fn items<'a, T: FromReader<'a>>(
    wasm: &'a [u8],
    section: &SectionLimited<'a, T>,
) -> Result<Vec<(T, &'a [u8])>> {
    let end = section.range().end;
    let items: Vec<(usize, T)> =
        section.clone().into_iter_with_offsets().collect::<Result<_, _>>()?;
    let ends: Vec<usize> = items.iter().skip(1).map(|(start, _)| *start).chain([end]).collect();
    let bytes = |((start, item), end)| Ok((item, wasm.get(start..end).context("truncated")?));
    items.into_iter().zip(ends).map(bytes).collect()
}

/// Whether a component inside of another has types that need support for concurrency.
fn is_concurrent(component: &[u8]) -> Result<bool> {
    // Of each type alone: what it refers to is another type of the component.
    let form = SequentialForm::default();
    for payload in Parser::new(0).parse_all(component) {
        let Payload::ComponentTypeSection(types) = payload? else { continue };
        for ty in types {
            if form.is_type_replaced(&ty?, 0) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
