//! What needs support for concurrent calls, or refers to something that does.

use wasmparser::{
    ComponentAlias, ComponentDefinedType, ComponentExternalKind, ComponentOuterAliasKind,
    ComponentType, ComponentTypeDeclaration, ComponentTypeRef, ComponentValType,
    InstanceTypeDeclaration, PrimitiveValType, TypeBounds,
};

use super::{SequentialForm, flag};

impl SequentialForm<'_> {
    pub(super) fn is_item_replaced(&self, kind: ComponentExternalKind, index: u32) -> bool {
        match kind {
            ComponentExternalKind::Type => flag(&self.types, index),
            ComponentExternalKind::Func => flag(&self.functions, index),
            ComponentExternalKind::Instance => flag(&self.instances, index),
            ComponentExternalKind::Component => flag(&self.components, index),
            ComponentExternalKind::Module | ComponentExternalKind::Value => false,
        }
    }

    /// Whether a type needs support for concurrency, or refers to one that does. `depth`: the number of
    /// types that it is nested in, which have types with indices of their own.
    pub(super) fn is_type_replaced(&self, ty: &ComponentType<'_>, depth: u32) -> bool {
        let value = |ty: &ComponentValType| self.is_value_replaced(ty, depth);
        match ty {
            ComponentType::Defined(ty) => match ty {
                ComponentDefinedType::Future(_) | ComponentDefinedType::Stream(_) => true,
                ComponentDefinedType::Primitive(ty) => *ty == PrimitiveValType::ErrorContext,
                ComponentDefinedType::Record(fields) => fields.iter().any(|(_, ty)| value(ty)),
                ComponentDefinedType::Variant(cases) => {
                    cases.iter().filter_map(|case| case.ty.as_ref()).any(value)
                }
                ComponentDefinedType::List(ty)
                | ComponentDefinedType::FixedLengthList(ty, _)
                | ComponentDefinedType::Option(ty) => value(ty),
                ComponentDefinedType::Map(key, ty) => value(key) || value(ty),
                ComponentDefinedType::Tuple(types) => types.iter().any(value),
                ComponentDefinedType::Result { ok, err } => ok.iter().chain(err).any(value),
                ComponentDefinedType::Own(index) | ComponentDefinedType::Borrow(index) => {
                    value(&ComponentValType::Type(*index))
                }
                ComponentDefinedType::Flags(_) | ComponentDefinedType::Enum(_) => false,
            },
            ComponentType::Func(ty) => {
                let params = ty.params.iter().map(|(_, ty)| ty);
                ty.async_ || params.chain(&ty.result).any(value)
            }
            ComponentType::Component(declarations) => {
                let mut all = declarations.iter();
                all.any(|declaration| self.is_declaration_replaced(declaration, depth + 1))
            }
            ComponentType::Instance(declarations) => {
                let mut all = declarations.iter();
                all.any(|declaration| match declaration {
                    InstanceTypeDeclaration::CoreType(_) => false,
                    InstanceTypeDeclaration::Type(ty) => self.is_type_replaced(ty, depth + 1),
                    InstanceTypeDeclaration::Alias(alias) => {
                        self.is_outer_replaced(alias, depth + 1)
                    }
                    InstanceTypeDeclaration::Export { ty, .. } => {
                        self.is_reference_replaced(ty, depth + 1)
                    }
                })
            }
            ComponentType::Resource { .. } => false,
        }
    }

    fn is_declaration_replaced(
        &self,
        declaration: &ComponentTypeDeclaration<'_>,
        depth: u32,
    ) -> bool {
        match declaration {
            ComponentTypeDeclaration::CoreType(_) => false,
            ComponentTypeDeclaration::Type(ty) => self.is_type_replaced(ty, depth),
            ComponentTypeDeclaration::Alias(alias) => self.is_outer_replaced(alias, depth),
            ComponentTypeDeclaration::Export { ty, .. } => self.is_reference_replaced(ty, depth),
            ComponentTypeDeclaration::Import(import) => {
                self.is_reference_replaced(&import.ty, depth)
            }
        }
    }

    fn is_value_replaced(&self, ty: &ComponentValType, depth: u32) -> bool {
        match ty {
            ComponentValType::Primitive(ty) => *ty == PrimitiveValType::ErrorContext,
            ComponentValType::Type(index) => depth == 0 && flag(&self.types, *index),
        }
    }

    pub(super) fn is_reference_replaced(&self, ty: &ComponentTypeRef, depth: u32) -> bool {
        match ty {
            ComponentTypeRef::Func(index)
            | ComponentTypeRef::Instance(index)
            | ComponentTypeRef::Component(index)
            | ComponentTypeRef::Type(TypeBounds::Eq(index)) => {
                depth == 0 && flag(&self.types, *index)
            }
            ComponentTypeRef::Value(ty) => self.is_value_replaced(ty, depth),
            ComponentTypeRef::Type(TypeBounds::SubResource) | ComponentTypeRef::Module(_) => false,
        }
    }

    /// Whether an alias within a type is of one of the component's types that is replaced.
    fn is_outer_replaced(&self, alias: &ComponentAlias<'_>, depth: u32) -> bool {
        match alias {
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Type, count, index } => {
                *count == depth && flag(&self.types, *index)
            }
            _ => false,
        }
    }
}
