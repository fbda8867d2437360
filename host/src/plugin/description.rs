//! What a core module says of the types of its functions, in custom sections that the encoder reads.
//!
//! The encoder believes it. Where packages refer to each other in a circle, it follows them until the stack ends, and
//! with it the process. So only one package may be spoken of, which is the contract's.

use wasmparser::{
    ComponentExternName, ComponentType, ComponentTypeDeclaration, InstanceTypeDeclaration, Parser,
    Payload,
};

/// How the names of those sections begin.
pub(super) const SECTION: &str = "component-type";

/// The interfaces and worlds that a well-formed module names, with their versions: `waypost:policy/types@0.1.0`.
pub(super) fn interfaces(module: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    // Whatever comes after a mistake, the encoder does not get to see either.
    for payload in Parser::new(0).parse_all(module).map_while(Result::ok) {
        if let Payload::CustomSection(section) = payload
            && section.name().starts_with(SECTION)
        {
            in_section(section.data(), &mut names);
        }
    }
    // Functions and types have names without a package.
    names.retain(|name| name.contains(':'));
    names
}

/// Such a section holds a component.
fn in_section(component: &[u8], names: &mut Vec<String>) {
    for payload in Parser::new(0).parse_all(component).map_while(Result::ok) {
        match payload {
            Payload::ComponentTypeSection(section) => {
                for ty in section.into_iter().map_while(Result::ok) {
                    in_type(&ty, names);
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section.into_iter().map_while(Result::ok) {
                    note(&import.name, names);
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.into_iter().map_while(Result::ok) {
                    note(&export.name, names);
                }
            }
            _ => {}
        }
    }
}

/// Recurses as deep as the parser did to make `ty`, which [`bounds`](super::bounds) limits.
fn in_type(ty: &ComponentType<'_>, names: &mut Vec<String>) {
    match ty {
        ComponentType::Component(declarations) => {
            for declaration in declarations {
                match declaration {
                    ComponentTypeDeclaration::Type(ty) => in_type(ty, names),
                    ComponentTypeDeclaration::Export { name, .. } => note(name, names),
                    ComponentTypeDeclaration::Import(import) => note(&import.name, names),
                    ComponentTypeDeclaration::Alias(_) | ComponentTypeDeclaration::CoreType(_) => {}
                }
            }
        }
        ComponentType::Instance(declarations) => {
            for declaration in declarations {
                match declaration {
                    InstanceTypeDeclaration::Type(ty) => in_type(ty, names),
                    InstanceTypeDeclaration::Export { name, .. } => note(name, names),
                    InstanceTypeDeclaration::Alias(_) | InstanceTypeDeclaration::CoreType(_) => {}
                }
            }
        }
        ComponentType::Defined(_) | ComponentType::Func(_) | ComponentType::Resource { .. } => {}
    }
}

fn note(name: &ComponentExternName<'_>, names: &mut Vec<String>) {
    let suffix = name.version_suffix.unwrap_or_default();
    names.push(format!("{}{suffix}", name.name));
    names.extend(name.implements.map(str::to_owned));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_of_a_policy_are_found() {
        for policy in crate::config::BUILT_IN {
            let names = interfaces(crate::built_in::policy(policy).unwrap());
            for wanted in ["about", "balance", "types", "host"] {
                let wanted = format!("waypost:policy/{wanted}@");
                assert!(
                    names.iter().any(|name| name.starts_with(&wanted)),
                    "{names:?}"
                );
            }
            assert!(
                names.iter().all(|name| name.starts_with("waypost:policy/")),
                "{names:?}"
            );
        }
        assert!(interfaces(b"\0asm\x01\0\0\0").is_empty());
        assert!(interfaces(b"not wasm").is_empty());
    }
}
