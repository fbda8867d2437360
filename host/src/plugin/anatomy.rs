//! What a policy is made of, read from its bytes: what it asks the host for, and which hooks it has.

use std::collections::BTreeSet;

use wasmparser::{Parser, Payload};

/// How the contract's interfaces are named in a module, be it alone or within a component.
const CONTRACT: &str = "waypost:policy/";

/// What the functions of a policy's module say of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Anatomy {
    /// The version of the contract that it was built for; empty where no function tells.
    pub(crate) contract: String,
    /// The optional interfaces it exports, in alphabetical order.
    pub(crate) hooks: Vec<String>,
    /// The host's functions that it may call: `request.header`, in alphabetical order.
    pub(crate) imports: Vec<String>,
    /// It is a component, and not a module that the host wraps.
    pub(crate) is_component: bool,
}

impl Anatomy {
    /// Reads a module or a component that has been loaded, and so is well-formed. What comes after a mistake is left out.
    pub(crate) fn of(wasm: &[u8]) -> Anatomy {
        let mut anatomy = Anatomy {
            is_component: Parser::is_component(wasm),
            ..Anatomy::default()
        };
        let (mut hooks, mut imports) = (BTreeSet::new(), BTreeSet::new());
        for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
            match payload {
                Payload::ImportSection(section) => {
                    for import in section.into_imports().map_while(Result::ok) {
                        if let Some((interface, version)) = interface(import.module) {
                            anatomy.contract = version.to_owned();
                            imports.insert(format!("{interface}.{}", import.name));
                        }
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section.into_iter().map_while(Result::ok) {
                        let Some((interface, version)) = interface(export.name) else {
                            continue;
                        };
                        // A function: `waypost:policy/balance@0.1.0#pick`.
                        let Some((version, _)) = version.split_once('#') else {
                            continue;
                        };
                        anatomy.contract = version.to_owned();
                        if !super::loader::EXPORTS.contains(&interface) {
                            hooks.insert(interface.to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        anatomy.hooks = hooks.into_iter().collect();
        anatomy.imports = imports.into_iter().collect();
        anatomy
    }
}

/// The interface and the version that stand in a name of the contract's.
fn interface(name: &str) -> Option<(&str, &str)> {
    // `[resource-drop]` and the like stand in front, and `cabi_post_` before what is called after a function.
    let (front, rest) = name.split_once(CONTRACT)?;
    if front.is_empty() {
        rest.split_once('@')
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_built_in_policies_are_made_of() {
        for (name, imports) in [
            ("round-robin", &["host.log"][..]),
            ("least-conn", &["host.counter-add", "host.log"]),
        ] {
            let anatomy = Anatomy::of(crate::built_in::policy(name).unwrap());
            assert_eq!(anatomy.contract, super::super::CONTRACT_VERSION);
            assert!(!anatomy.is_component);
            for import in imports {
                assert!(
                    anatomy.imports.iter().any(|known| known == import),
                    "{name}: {anatomy:?}"
                );
            }
            let hooks = ["outcomes", "responses", "state"];
            assert!(
                anatomy
                    .hooks
                    .iter()
                    .all(|hook| hooks.contains(&hook.as_str())),
                "{anatomy:?}"
            );
        }
        assert_eq!(Anatomy::of(b"not wasm"), Anatomy::default());
    }
}
